"""What one device can do with our models, in a few minutes and without a network.

    python -m benchmarks device --device CUDA           at most 8 minutes
    python -m benchmarks device --device CL --quick     at most 2

Four parts: is it right, is it fast, what does tuning find, which kernels take longest. A part
is a list of units. Each unit runs in a child process and adds a line of JSON to the results; a
unit that fails, crashes or takes too long is a line with its error.
"""
