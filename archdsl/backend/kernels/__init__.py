"""Kernels in C for the CPU, which tinygrad runs among its own.

`passes/select_kernels.py` says which of them does what. Each is a file of C with its sizes as
constants; `launch` makes it a program of tinygrad's, `team` shares its work among threads, and
the functions of the other modules call it on tensors.
"""
