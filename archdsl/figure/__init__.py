"""Figures: what a model is and computes, drawn."""
