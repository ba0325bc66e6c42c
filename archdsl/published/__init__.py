"""Published weights and configs for a spec, both ways: names, conversions, fields."""
