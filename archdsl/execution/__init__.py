"""Weights on a device, captured programs, inputs and the decoder; knows no text and no task."""
