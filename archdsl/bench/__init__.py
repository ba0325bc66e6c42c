"""Benchmarks of models: runner, candidates, results, roofline."""
