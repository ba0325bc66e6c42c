"""What is reported about a graph: the difference of two models, an expanded spec, features."""
