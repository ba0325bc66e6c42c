"""What archdsl relies on, for each name that it imports from inside tinygrad."""

from __future__ import annotations

BEHAVIOUR = {
    # -- tensors and memory --
    "Ops": "the kinds of UOp: BUFFER, PARAM, RESHAPE, AFTER, CONTIGUOUS, CALL, LINEAR, SINK, "
    "PROGRAM, SOURCE; src[0] of a call is the kernel, the rest are buffers and bound variables",
    "buffers": "maps a BUFFER UOp to its Buffer; during a capture it has no Buffer yet",
    "Buffer": "memory on a device: allocate, copy_from, get_buf('CPU').va_addr, "
    "allocator._copyin and _copyout; UOp.from_buffer makes a tensor of it without a kernel",
    "BufferSpec": "nolru: memory comes from the system and is returned to it; external_ptr: it "
    "is at this address and is not freed",
    "AxisType": "DEVICE: a range over the numbers of the devices, by which `_shard` and "
    "`unshard` of UOp split what each has whole; `axis` is the split one, and `bufs` are the "
    "buffers of the devices",
    "LRUAllocator": "keeps freed memory in `cache`, by size and options; `free` of its base "
    "class returns it to the system",
    "DType": "the class of dtypes.float32 and others: itemsize, name and fmt",
    "DTYPES_DICT": "every dtype by its name",
    "storage_fmt_for_dtype": "the memoryview format in which a dtype is stored",
    "all_int": "whether all sizes are numbers, not variables",
    "TRAINING": "the ContextVar that enables dropout; false unless a user sets it",
    "optim": "AdamW, LAMB, Muon and SGD; schedule_step gives the weights and the state to "
    "realize, and `lr` may be a tensor that is replaced",
    # -- lowering and programs --
    "to_program": "lowers and compiles a kernel: SINK -> PROGRAM, src[0].arg.applied_opts; the "
    "arg of a kernel has opts_to_apply and beam",
    "to_program_cache": "gets one entry for each kernel that is lowered; it may be cleared",
    "schedule_cache": "has the kernels of each schedule; it may be cleared",
    "runtime_cache": "gets one entry for each kernel that is loaded; it may be cleared, since "
    "graph runners keep their own",
    "to_program_context": "the ContextVars that lowering reads, with key and value",
    "to_program_key": "kernel, type of renderer, target, settings: these determine a program",
    "Opt": "one step of a schedule; can be pickled and hashed",
    "args_from_ast": "buffers for a kernel, and the middle value of each of its variables",
    "time_call": "an endless iterator that runs a call and yields its seconds",
    "KernelInfo": "the name and the estimates of a kernel",
    "ProgramInfo": "of a program: globals (buffers in order), outs, ins, vars, global_size, "
    "runtimevars (where the number of a part goes), and local_size, which disables its search",
    "AddrSpace": "GLOBAL: a placeholder is a parameter",
    "Estimates": "operations and bytes, as tinygrad prints them",
    "Target": "Target('CPU') is the target of a program",
    "TinyELF": "an object file that the runtime of a device loads",
    # -- capturing --
    "_TinyJit": "captures the call for which cnt is 1, in _linears; after that "
    "captured(buffers, values) runs without the function",
    "capturing": "holds the JIT that captures, with add_linear and _linears; otherwise empty; "
    "each module that reads it imports it by this name",
    "GraphRunner": "built from captured calls: calls, runtimes, uop_replace, updated_vars and "
    "supports_uop; Device[…].graph is the class, None runs the calls one by one",
    "run_linear": "runs captured calls; with jit=True compiled ones, and input_uops are the "
    "buffers of their PARAMs",
    "graph_cache": "the runner of a captured graph, by the body of its call",
    "get_call_arg_uops": "the buffers of a call, without its bound variables",
    # -- devices --
    "Compiled": "an open device: renderer, compiler, runtime, allocator, graph and arch",
    "DLL": "findlib finds each library that ops_cpu loads when it is imported",
    "CPUProgram": "a loaded program: addr, fxn, runtimevars; called with the addresses of "
    "buffers and vals; looks up the functions it calls by getattr on rt_lib",
    "ClangRenderer": "writes the C of the CPU; pickled as its class and target",
    "ClangCompiler": "compile(source) runs the program that getenv('CC', 'clang') names",
    "NUM_CPU_THREADS": "the largest number of parts of a CPU kernel",
    "CACHEDB": "the file of compiled kernels",
    "CACHELEVEL": "below 1 nothing is stored there",
    "BEAM": "above 0 tinygrad searches kernels as it compiles them",
    "DEBUG": "above 0 tinygrad prints what it does",
    "JIT": "at 0 nothing is captured",
    "PROFILE": "above 0 tinygrad times what it does",
    "ContextVar": "a setting: key and value",
    "helpers": "the module that has every ContextVar",
    "DEV": "the device asked for: device, target(family).renderer; value lists Targets",
    "diskcache_get": "the value that was stored for a key, or None",
    "diskcache_put": "stores a picklable value for a key of strings",
    "getenv": "an environment variable, read once; cache_clear makes it read again",
}
