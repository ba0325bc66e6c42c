"""Devices: chooses the device of a model, and reports what this machine can run.

Before a device is opened, its requirements are set up (the compiler, WebGPU's library). It is
accepted only after it has run a kernel with the right result.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from archdsl.backend.fork import note_open_device
from archdsl.backend.toolchain import INSTALL, ensure_compiler
from archdsl.diagnostics import ArchError, did_you_mean, fail, listing
from archdsl.frozen import Frozen
from archdsl.passes.select_kernels import CPU

try:
    from tinygrad import Device, Tensor

    from archdsl.backend import tinygrad_seam as seam
    from archdsl.backend.cuda_libraries import cuda_settings
    from archdsl.backend.device_startup import fast_startup, has_only_cpu
    from archdsl.backend.kernels import bfloat16, graph_runner
    from archdsl.backend.kernels.source import compiled
    from archdsl.backend.tinygrad_devices import tensor_core_dtypes, total_memory
    from archdsl.backend.tinygrad_seam import (
        CACHEDB,
        CACHELEVEL,
        DEV,
        DTYPES_DICT,
        NUM_CPU_THREADS,
        ClangRenderer,
    )
except (RuntimeError, ValueError) as error:
    # tinygrad reads its environment variables, first `DEV`, when it is imported.
    fail(
        "device",
        "tinygrad cannot read its environment variables",
        found=str(error),
        help="`DEV` is DEVICE or DEVICE:RENDERER, as in DEV=CUDA",
        cause=error,
    )


class _Family(Frozen):
    """A description of a device family, and how to install what it needs."""

    about: str
    help: str


_FAMILIES = {
    "CPU": _Family("this processor", INSTALL),
    "CL": _Family(
        "OpenCL",
        "install your GPU's OpenCL driver; without a GPU: `apt-get install pocl-opencl-icd`",
    ),
    "WEBGPU": _Family(
        "WebGPU, through Dawn",
        "`pip install dawn-python`; without a GPU also `apt-get install mesa-vulkan-drivers`",
    ),
    "CUDA": _Family(
        "NVIDIA GPUs, through CUDA",
        "needs an NVIDIA GPU and its driver: `apt-get install nvidia-driver`",
    ),
    "NV": _Family(
        "NVIDIA GPUs, without CUDA",
        "needs an NVIDIA GPU and its driver: `apt-get install nvidia-driver`",
    ),
    "AMD": _Family(
        "AMD GPUs, without ROCm",
        "needs an AMD GPU that you may open: `modprobe amdgpu`, `usermod -aG render $USER`",
    ),
    "HIP": _Family(
        "AMD GPUs, through ROCm",
        "needs an AMD GPU, and ROCm's libamdhip64.so under $ROCM_PATH/lib",
    ),
    "METAL": _Family("Apple GPUs", "needs macOS"),
    "QCOM": _Family("Qualcomm Adreno GPUs", "needs an Adreno GPU, at /dev/kgsl-3d0"),
    "DSP": _Family("Qualcomm Hexagon DSPs", "needs a Hexagon DSP, at /dev/ion"),
}

# tinygrad's devices for tests: PYTHON interprets kernels, NULL compiles them but runs nothing.
_TEST_DEVICES = ("PYTHON", "NULL")

_HALF_DTYPES = ("float16", "bfloat16")
_PROBE = """
import json, sys
from archdsl.backend import target
print(json.dumps(target._describe(json.loads(sys.argv[1]))))
"""


class Backend(Frozen):
    """Whether a device runs kernels on this machine.

    `model` is the hardware that tinygrad compiles for ("sm_90", or the name of an OpenCL
    device). `half_dtypes` are the supported dtypes among float16 and bfloat16, `tensor_cores`
    the dtypes that it multiplies on tensor cores. `memory` is in bytes, None if unknown. A
    device that does not run has a `reason`, and as `help` a command that fixes it, or what is
    missing.
    """

    name: str
    about: str
    runs: bool
    model: str = ""
    half_dtypes: tuple[str, ...] = ()
    reason: str | None = None
    help: str | None = None
    memory: int | None = None
    tensor_cores: tuple[str, ...] = ()


def open_device(name: str | None = None) -> str:
    """Opens a device and returns its tinygrad name, such as "CPU" or "CUDA:1".

    `name` is a family with an optional number, in upper or lower case. The default is the
    environment variable `DEV`, then tinygrad's default; the CPU device is preferred to an
    OpenCL device on the CPU. A renderer is set by `DEV` (`DEV=CPU:LLVM`), for the whole
    process. Environment variables are not changed.

    Raises ArchError (`device`) for an unknown name, and for a device that cannot be opened or
    computes wrong results, with the reason and a fix.
    """
    note_open_device()
    if NUM_CPU_THREADS.value < 1:
        fail(
            "device", f"NUM_CPU_THREADS cannot be {NUM_CPU_THREADS.value}", expected="1 or more"
        )
    _check_kernel_cache()
    compiler, compiler_error = None, None
    try:
        compiler = ensure_compiler()
    except ArchError as error:
        compiler_error = error
    clang = compiler.path if compiler else None
    device = _canonical(name) if name is not None else _default(clang, compiler_error)
    family = device.split(":")[0]
    if family == "CPU" and compiler_error:
        raise compiler_error
    if family != "CPU" and (width := seam.beam_width()):
        fail(
            "device",
            f"BEAM={width}: tinygrad searches kernels in the process that runs the model",
            expected="BEAM and JITBEAM not set, because the search can hang on a GPU",
            help="tune=60 or `--tune 60` searches in another process, with a time limit",
        )
    quickly = fast_startup(compiler) if family == "CPU" and compiler else nullcontext()
    with seam.environment(**_settings(family)), quickly:
        _run_kernel(device, clang)
    return device


def kernels_for(device: str) -> str | None:
    """Returns the target in passes/select_kernels.py of an open device, or None if it only has
    tinygrad's kernels. CPU kernels are C code, compiled by tinygrad's clang."""
    return CPU if graph_runner.runner_for(device) else None


def supports(device: str, dtype: str) -> bool:
    """Whether kernels on a device can compute in a dtype, such as "float16".

    Raises ArchError for a dtype that tinygrad does not have (`argument-value`), and for a
    device that cannot be opened (`device`).
    """
    if dtype not in DTYPES_DICT:
        names = sorted(DTYPES_DICT)
        help = did_you_mean(dtype, names) or f"the dtypes are {listing(names, 'and')}"
        fail("argument-value", f"unknown dtype `{dtype}`", help=help)
    device = open_device(device)
    renderer = Device[device].renderer
    # tinygrad does not check the version of clang.
    if dtype == "bfloat16" and isinstance(renderer, ClangRenderer):
        known = ensure_compiler().bfloat16
        if known:
            bfloat16.provide()
        return known
    return DTYPES_DICT[dtype] in renderer.supported_dtypes()


def probe(name: str | None, seconds: float = 60) -> Backend:
    """Tries a device (None: the default) in a separate process, because a driver may crash or
    hang; `seconds` is the time limit."""
    environment = dict(os.environ)
    if name is not None:
        environment.pop("DEV", None)
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _PROBE, json.dumps(name)],
            env=with_package(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return _failed(name, f"no answer in {seconds:g} s")
    # Drivers may print too: the answer is the last line that can be JSON.
    answers = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if not answers:
        lines = ran.stderr.strip().splitlines()
        ended = f"its process ended with status {ran.returncode}"
        return _failed(name, f"{ended}: {lines[-1]}" if lines else ended)
    answer = json.loads(answers[-1])
    tuples = {name: tuple(answer[name]) for name in ("half_dtypes", "tensor_cores")}
    return Backend(**answer | tuples)


def with_package(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Python can import this package."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}


def backends() -> tuple[Backend, ...]:
    """Tries every device family of tinygrad on this machine, which takes some seconds."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(probe, _FAMILIES))


def kernel_cache() -> Path:
    """The file in which tinygrad stores compiled kernels: `$CACHEDB`."""
    return Path(CACHEDB)


def _canonical(name: str) -> str:
    known = (*_FAMILIES, *_TEST_DEVICES)
    family, _, rest = name.upper().partition(":")
    if family not in known:
        suggestion = did_you_mean(family, known)
        devices = f"the devices are {listing(known, 'and')}"
        help = f"{suggestion} {devices}" if suggestion else devices
        fail("device", f"unknown device `{name}`", help=help)
    if not re.fullmatch(r"[A-Z]+(:\d+)?", name.upper()):
        help = f"set a renderer for the whole process: DEV={family}:{rest}"
        message = f"`{name}` is not a device name"
        fail("device", message, expected=f"`{family}` or `{family}:1`", help=help)
    return str(Device.canonicalize(name))


def _default(clang: str | None, compiler_error: ArchError | None) -> str:
    asked = bool(DEV.device)
    if not asked and clang and has_only_cpu():
        return "CPU"
    try:
        chosen = seam.default_device(clang)
    except Exception as error:
        if compiler_error:
            raise compiler_error from error
        fail("device", "tinygrad found no device", found=_one_line(error), cause=error)
    if chosen == "CL" and not asked and clang and seam.is_opencl_on_processor():
        # OpenCL on the CPU is not faster than the CPU device, and supports fewer dtypes.
        chosen = "CPU"
    return _canonical(chosen)


def _settings(family: str) -> dict[str, str]:
    """Environment variables for the first device of a family, unless the user has set them.

    For WebGPU: the Dawn library of PyPI's `dawn-python`, and Vulkan. For NVIDIA's GPUs: the
    compiler that PyTorch installs.
    """
    if family in ("CUDA", "NV"):
        return cuda_settings()
    if family != "WEBGPU":
        return {}
    settings = {}
    spec = importlib.util.find_spec("pydawn")
    if spec and spec.submodule_search_locations:
        suffix = "dylib" if sys.platform == "darwin" else "so"
        name = f"libwebgpu_dawn_{platform.machine()}.{suffix}"
        library = Path(spec.submodule_search_locations[0]) / "lib" / name
        if library.exists():
            settings["WEBGPU_PATH"] = str(library)
    # Otherwise Dawn may use its null adapter, which silently computes nothing.
    if sys.platform == "linux":
        settings["WEBGPU_BACKEND"] = "WGPUBackendType_Vulkan"
    return settings


@functools.cache
def _run_kernel(device: str, clang: str | None) -> None:
    """Opens a device and checks that it computes; NULL runs nothing and is only opened."""
    family = device.split(":")[0]
    try:
        if clang and family not in _TEST_DEVICES:
            seam.use_clang("CPU", clang)  # GPUs need the CPU device too
            if family == "CPU":
                seam.use_clang(device, clang)
        Device[device].renderer  # noqa: B018 (a property that loads the compiler)
        if family == "NULL":
            return
        if graph_runner.is_supported(device):
            found: Any = _run_c_kernel()
        else:
            with seam.default_is(device):
                found = (Tensor([1.0, 2.0, 3.0], device=device) * 2 + 1).tolist()
    except Exception as error:
        _fail_unusable(device, _one_line(error), error)
    if found != [3.0, 5.0, 7.0]:
        _fail_unusable(device, f"[1, 2, 3] * 2 + 1 gave {found}")


def _run_c_kernel() -> list[float]:
    """The same computation by a C kernel, which is compiled once for all processes."""
    numbers = (ctypes.c_float * 3)(1.0, 2.0, 3.0)
    program = compiled("probe")  # keeps the code loaded
    program.fxn(ctypes.c_uint64(ctypes.addressof(numbers)))
    return list(numbers)


def _fail_unusable(device: str, reason: str, cause: BaseException | None = None) -> NoReturn:
    name = device.split(":")[0]
    renderer = DEV.target(name).renderer
    family = _FAMILIES.get(name)
    help = family.help if family else None
    if renderer:
        help = f"DEV sets the renderer `{renderer}`; with DEV={name} tinygrad chooses it"
    message = f"the device `{device}` cannot be used"
    fail("device", message, found=reason, help=help, cause=cause)


def _check_kernel_cache() -> None:
    """Warns if tinygrad cannot store compiled kernels: it compiles them in each process."""
    folder = kernel_cache().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK) else "permission denied"
    except OSError as error:
        reason = _one_line(error)
    if reason and CACHELEVEL >= 1:
        warnings.warn(
            f"tinygrad cannot write its kernel cache in {folder}: {reason}; each process "
            "compiles its kernels again; set XDG_CACHE_HOME to a writable folder",
            stacklevel=2,
        )


def _one_line(error: BaseException) -> str:
    """An exception in one line; of a group, its exceptions."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_one_line(one) for one in error.exceptions)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _describe(name: str | None) -> dict[str, object]:
    """Runs in the process of `probe`: a `Backend` as plain data."""
    try:
        device = open_device(name)
    except ArchError as error:
        first = error.diagnostics[0]
        return asdict(_failed(name, first.found or first.message, first.help))
    opened = Device[device]
    model = getattr(opened, "device_name", None) or opened.arch or ""
    half = tuple(dtype for dtype in _HALF_DTYPES if supports(device, dtype))
    memory, cores = total_memory(device), tensor_core_dtypes(device)
    about = _about(device)
    return asdict(Backend(device, about, True, model, half, memory=memory, tensor_cores=cores))


def _failed(name: str | None, reason: str, help: str | None = None) -> Backend:
    return Backend(name or "", _about(name or ""), False, reason=reason, help=help)


def _about(device: str) -> str:
    family = _FAMILIES.get(device.split(":")[0])
    return family.about if family else ""
