"""CPU kernels in C, which run as tinygrad programs beside tinygrad's own.

`passes/select_kernels.py` lists what each of them computes. A kernel is a C file that is
compiled with its sizes as constants. `launch` turns it into a tinygrad program, `thread_pool`
runs its tiles in parallel, and the functions of the other modules call it on tensors.
"""
