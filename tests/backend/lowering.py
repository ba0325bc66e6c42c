"""Lower tinygrad tensors to the kernels of GPU backends that this machine does not have.

A target is a tinygrad renderer used without its device: tensors name a device that is never
opened, are scheduled, and every kernel is rendered and, where the target's compiler can be
had as a package, compiled. Nothing runs: that the numbers are right is for other tests.

CUDA and NV compile with PyPI's `nvidia-cuda-nvrtc`, AMD with LLVM 18 or later (Debian's
`libllvm19`), AMD's HIP with the clang of PyPI's `ziglang`. Metal's and Qualcomm's compilers
are not published, OpenCL's and WebGPU's are their drivers': those targets are rendered only.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from tinygrad import Tensor
from tinygrad.codegen import to_program
from tinygrad.device import CompileError, Compiler
from tinygrad.engine.realize import capturing
from tinygrad.helpers import Context, Target
from tinygrad.renderer import Renderer
from tinygrad.renderer.cstyle import (
    CUDARenderer,
    HIPRenderer,
    MetalRenderer,
    OpenCLRenderer,
    QCOMCLRenderer,
)
from tinygrad.renderer.llvmir import AMDLLVMRenderer
from tinygrad.renderer.wgsl import WGSLRenderer
from tinygrad.uop.ops import Ops, UOp

DELICATE = {Ops.EXP2, Ops.LOG2, Ops.SQRT, Ops.RECIPROCAL, Ops.FDIV}


@dataclass(frozen=True)
class Kernel:
    """One kernel of a target.

    `binary` is what the target's compiler made of `source`: PTX (CUDA), a cubin (NV), an ELF
    object (AMD) or assembly (HIP). It is None where the kernel was rendered only.
    `multiply_adds` counts those of the matrix products that the kernel computes, 0 for none;
    `products` are how many these are, and `rows` how many rows share what they are multiplied
    with, on the side where there are fewer: 1 where a vector is multiplied.
    `precision` holds the types in which it sums, takes exponentials, logarithms, roots and
    quotients, by tinygrad's names: `float` is fp32.
    """

    name: str
    source: str
    binary: bytes | None
    tensor_cores: bool
    multiply_adds: int
    products: int
    rows: int
    precision: frozenset[str]


def nvrtc(target: Target) -> Compiler:
    """NVIDIA's run-time compiler, from its wheel: to PTX for CUDA, to machine code for NV."""
    from tinygrad.runtime.autogen.nvrtc import dll
    from tinygrad.runtime.support.compiler_cuda import NVRTCCompiler

    # tinygrad looked for the library when these bindings were imported, and not in wheels.
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations or () if package else ():
        for library in Path(folder).glob("*/lib/libnvrtc.so.*"):
            type(dll).__init__(dll, "nvrtc", str(library))
    ptx = target.device == "CUDA"
    try:
        return NVRTCCompiler(target.arch, ptx=ptx, cache_key=target.device.lower())
    except AttributeError as error:
        raise LookupError("pip install nvidia-cuda-nvrtc") from error


def llvm(target: Target) -> Compiler:
    """The system's LLVM. Versions before 18 end the process on what they cannot select."""
    from tinygrad.runtime.autogen import llvm as library
    from tinygrad.runtime.support.compiler_llvm import AMDLLVMCompiler

    version = [ctypes.c_uint32() for _ in range(3)]
    try:
        library.LLVMGetVersion(*map(ctypes.pointer, version))
    except AttributeError as error:
        raise LookupError("apt-get install libllvm19") from error
    if version[0].value < 18:
        raise LookupError(f"apt-get install libllvm19 (found LLVM {version[0].value})")
    return AMDLLVMCompiler(target.arch)


class ClangHIP(Compiler):
    """HIP to assembly by the clang in PyPI's `ziglang`."""

    def __init__(self, target: Target) -> None:
        if importlib.util.find_spec("ziglang") is None:
            raise LookupError("pip install ziglang")
        super().__init__(f"archdsl_ziglang_hip_{target.arch}")
        clang = [sys.executable, "-m", "ziglang", "clang", "-target", "x86_64-linux-gnu"]
        device = ["--cuda-device-only", "-nogpulib", "-nogpuinc"]
        architecture = [f"--offload-arch={target.arch}", "-mcumode"]
        self.command = [*clang, "-x", "hip", *device, *architecture, "-O2", "-S", "-o-", "-"]

    def compile(self, src: str) -> bytes:
        done = subprocess.run(
            self.command, input=src.encode(), capture_output=True, check=False
        )
        if done.returncode:
            raise CompileError(done.stderr.decode())
        return done.stdout


@dataclass(frozen=True)
class Backend:
    """How to lower for one target: renderer, hardware, compiler, call of its tensor cores."""

    renderer: type[Renderer]
    target: Target
    compiler: Callable[[Target], Compiler] | None = None
    tensor_core: str = "no tensor cores"


TARGETS = {
    "CUDA": Backend(CUDARenderer, Target("CUDA", "", "sm_90"), nvrtc, "mma.sync"),
    "CUDA:sm_80": Backend(CUDARenderer, Target("CUDA", "", "sm_80"), nvrtc, "mma.sync"),
    "NV": Backend(CUDARenderer, Target("NV", "", "sm_90"), nvrtc, "mma.sync"),
    "AMD": Backend(AMDLLVMRenderer, Target("AMD", "LLVM", "gfx942"), llvm, "amdgcn.mfma"),
    "AMD:gfx1100": Backend(
        AMDLLVMRenderer, Target("AMD", "LLVM", "gfx1100"), llvm, "amdgcn.wmma"
    ),
    "AMD:HIP": Backend(HIPRenderer, Target("AMD", "HIP", "gfx942"), ClangHIP, "amdgcn_mfma"),
    "METAL": Backend(MetalRenderer, Target("METAL", "", "Apple9"), None, "simdgroup_multiply"),
    "QCOM": Backend(QCOMCLRenderer, Target("QCOM", "", "a630")),
    "CL": Backend(OpenCLRenderer, Target("CL", "", "cl_khr_fp16")),
    "WEBGPU": Backend(WGSLRenderer, Target("WEBGPU", "", "shader-f16")),
}


def missing_compiler(target: str) -> str | None:
    """Why `target` is rendered only on this machine, or None where it is compiled."""
    backend = TARGETS[target]
    if backend.compiler is None:
        return "no compiler is published"
    try:
        backend.compiler(backend.target)
    except LookupError as error:
        return str(error)
    return None


def lower(
    build: Callable[[str], Sequence[Tensor]], target: str, compiles: bool = True
) -> tuple[Kernel, ...]:
    """Every kernel that computes `build(device)`, in the order of launch.

    `build` makes its inputs by `Tensor.empty(..., device=device)` and returns its outputs; what
    it realizes on the way is lowered too. Kernels are rendered only where not `compiles`.
    Raises tinygrad's CompileError for source that the target's compiler refuses.
    """
    backend = TARGETS[target]
    renderer = _renderer(backend)
    compiled = compiles and missing_compiler(target) is None
    if compiled and backend.compiler is not None:
        renderer.compiler = backend.compiler(backend.target)
    kernels = schedule(build, target)
    return tuple(_kernel(k, renderer, backend.tensor_core, compiled) for k in kernels)


def recompiled(kernel: Kernel, target: str) -> Kernel:
    """The same kernel by the compiler of another target, which has the same renderer."""
    backend = TARGETS[target]
    assert backend.compiler is not None
    compiler = backend.compiler(backend.target)
    return replace(kernel, binary=compiler.compile_cached(kernel.source))


def schedule(build: Callable[[str], Sequence[Tensor]], target: str) -> list[UOp]:
    """The kernels of `build(device)` before they are lowered; copies are left out."""
    device = TARGETS[target].target.device
    captured = _Captured()
    # Without a default of ours tinygrad would open devices in search of one.
    with Context(DEV=device):  # type: ignore[no-untyped-call]
        capturing.append(captured)  # so that nothing is run
        try:
            Tensor.realize(*build(device))
        finally:
            capturing.clear()
    calls = [call.src[0] for part in captured._linears for call in part.src]
    return [kernel for kernel in calls if kernel.op is not Ops.COPY]


class _Captured:
    """What is realized, as tinygrad's JIT takes it."""

    def __init__(self) -> None:
        self._linears: list[UOp] = []

    def add_linear(self, linear: UOp, var_vals: dict[str, int]) -> None:
        self._linears.append(linear)


def _renderer(backend: Backend) -> Renderer:
    """The renderer with tinygrad's plain `Compiler`, which leaves the source as it is.

    A renderer's constructor imports and opens its compiler's library, so all are stood in for.
    """
    names = "NVRTCCompiler NVCCCompiler AMDLLVMCompiler HIPCompiler HIPCCCompiler QCOMCompiler"
    plain = SimpleNamespace(
        **{name: lambda *_, **__: Compiler() for name in (*names.split(), "MetalCompiler")}
    )
    support = "tinygrad.runtime.support.compiler_"
    modules = [support + name for name in ("cuda", "llvm", "amd", "qcom")]
    with patch.dict(
        sys.modules, dict.fromkeys([*modules, "tinygrad.runtime.ops_metal"], plain)
    ):
        return backend.renderer(backend.target)


def _kernel(ast: UOp, renderer: Renderer, tensor_core: str, compiled: bool) -> Kernel:
    sink, linear, source, binary = to_program(ast, renderer).src
    sums = [node for node in ast.toposort() if _sums(node)]
    products = [node for node in sums if _multiply_adds(node)]
    delicate = [node for node in linear.src if node.op in DELICATE]
    return Kernel(
        name=sink.arg.function_name,
        source=source.arg,
        binary=binary.arg if compiled else None,
        tensor_cores=tensor_core in source.arg,
        multiply_adds=sum(map(_multiply_adds, products)),
        products=len(products),
        rows=min(map(_rows, products), default=0),
        precision=frozenset(node.dtype.name for node in (*sums, *delicate)),
    )


def _summand(node: UOp) -> UOp:
    """What a reduction reduces, before the cast to the type of its accumulator."""
    summand = node.src[0]
    while summand.op is Ops.CAST:
        summand = summand.src[0]
    return summand


def _sums(node: UOp) -> bool:
    """Whether the node adds up. A gather looks like a sum too, of one value and zeros."""
    is_sum = node.op is Ops.REDUCE and node.arg[0] is Ops.ADD
    return is_sum and _summand(node).op is not Ops.WHERE


def _multiply_adds(node: UOp) -> int:
    """The multiply-adds of a sum over products of two tensors; a sum of squares has none."""
    product = _summand(node)
    loads = [u for u in product.toposort() if u.op is Ops.INDEX]
    if product.op is not Ops.MUL or product.src[0] is product.src[1] or len(loads) < 2:
        return 0
    return math.prod(int(axis.vmax) + 1 for axis in product.ranges)


def _rows(node: UOp) -> int:
    """The smaller of a product's sides: of what one operand goes along, and not the other."""
    left, right = (set(operand.ranges) for operand in _summand(node).src)
    sides = (left - right, right - left)
    return min(math.prod(int(axis.vmax) + 1 for axis in side) for side in sides)
