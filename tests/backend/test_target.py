"""Devices: their names, errors when opening them, and what runs on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tinygrad import Device, Tensor
from tinygrad.device import ALL_DEVICES
from tinygrad.helpers import DEV

from archdsl.backend import target
from archdsl.backend.target import Backend, open_device, probe, supports
from archdsl.backend.toolchain import ensure_compiler
from archdsl.diagnostics import ArchError, Diagnostic

ROOT = Path(__file__).parents[2]
NO_COMPILER = ArchError(Diagnostic("device", "no clang", help="install one"))


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resets what a test sets in the module."""
    for name in ("CC", "DEV", "WEBGPU_PATH", "WEBGPU_BACKEND"):
        if name in os.environ:
            monkeypatch.setenv(name, os.environ[name])
        else:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise NO_COMPILER

    monkeypatch.setattr(target, "ensure_compiler", fail)


def message(name: str | None) -> str:
    with pytest.raises(ArchError) as caught:
        open_device(name)
    return str(caught.value)


def running(name: str, *absences: str) -> Backend:
    """A probe that must succeed, unless its reason is a driver's being absent."""
    backend = probe(name)
    reason = backend.reason or ""
    if any(absence in reason for absence in absences):
        pytest.skip(f"no {name} here: {reason}")
    assert backend.runs, reason
    return backend


@pytest.mark.parametrize(
    ("name", "canonical"), [("cpu", "CPU"), ("CPU:0", "CPU"), ("cpu:1", "CPU:1")]
)
def test_names_are_made_canonical(name: str, canonical: str) -> None:
    try:
        ensure_compiler()
    except ArchError:
        pytest.skip("no clang on this machine")
    assert open_device(name) == canonical
    assert Tensor([1.0], device=canonical).tolist() == [1.0]


def test_an_unknown_name() -> None:
    assert message("cud") == (
        "error[device]: unknown device `cud`\n"
        "  = help: did you mean `CUDA`? the devices are `CPU`, `CL`, `WEBGPU`, `CUDA`, `NV`, "
        "`AMD`, `HIP`, `METAL`, `QCOM`, `DSP`, `PYTHON` and `NULL`"
    )


@pytest.mark.parametrize("name", ["", "disk", "NPY", "gpu0", "/dev/null"])
def test_names_that_are_no_devices(name: str) -> None:
    assert message(name).startswith(f"error[device]: unknown device `{name}`\n")


def test_a_renderer_is_no_device() -> None:
    assert message("cpu:llvm") == (
        "error[device]: `cpu:llvm` is not a device name\n"
        "  = expected: `CPU` or `CPU:1`\n"
        "  = help: set a renderer for the whole process: DEV=CPU:LLVM"
    )


def test_every_family_of_tinygrads_is_known() -> None:
    known = message("nothing like it")
    assert [name for name in ALL_DEVICES if f"`{name}`" not in known] == []


def test_a_device_that_is_not_there() -> None:
    if Path("/dev/kgsl-3d0").exists():
        pytest.skip("an Adreno GPU is here")
    assert message("QCOM:0") == (
        "error[device]: the device `QCOM` cannot be used\n"
        "  = found: No such file or directory: /dev/kgsl-3d0\n"
        "  = help: needs an Adreno GPU, at /dev/kgsl-3d0"
    )


def test_the_stand_ins_need_no_compiler(no_compiler: None) -> None:
    assert open_device("python") == "PYTHON"
    assert open_device("null") == "NULL"


def test_the_cpu_needs_one(no_compiler: None) -> None:
    assert message("CPU") == str(NO_COMPILER)


def test_dev_chooses_where_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DEV, "value", "PYTHON")
    assert open_device() == "PYTHON"
    assert open_device("NULL") == "NULL"


def test_dev_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DEV, "value", "PITHON")
    assert "unknown device `PITHON`\n  = help: did you mean `PYTHON`?" in message(None)


def test_a_renderer_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DEV, "value", "QCOM:LVM")
    assert message(None).endswith(
        "help: DEV sets the renderer `LVM`; with DEV=QCOM tinygrad chooses it"
    )


def test_a_dev_that_tinygrad_cannot_read() -> None:
    code = "import archdsl.backend.target"
    environment = {**os.environ, "DEV": "A:B:C:D", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "ArchError: error[device]: tinygrad cannot read its environment" in ran.stderr


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """tinygrad finds no device: none is set, none was found before."""
    monkeypatch.setattr(DEV, "value", "")
    monkeypatch.delitem(vars(Device), "_select_device", raising=False)
    monkeypatch.setattr("tinygrad.device.ALL_DEVICES", [])
    monkeypatch.setenv("CUDA_PATH", "/nowhere")  # by which this may be no machine without a GPU


def test_where_tinygrad_finds_nothing(no_device: None) -> None:
    assert message(None) == (
        "error[device]: tinygrad found no device\n  = found: no usable devices"
    )


def test_where_only_the_compiler_was_missing(no_compiler: None, no_device: None) -> None:
    assert message(None) == str(NO_COMPILER)


def test_wrong_results_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: [x + 2 for x in right(self)])
    found = message("PYTHON:5")  # which has not been tried yet
    assert "found: [1, 2, 3] * 2 + 1 gave [5.0, 7.0, 9.0]" in found


def test_a_kernel_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(target, "CACHEDB", str(tmp_path / "file" / "cache.db"))
    with pytest.warns(UserWarning, match=r"compiles its kernels again; set XDG_CACHE_HOME"):
        assert open_device("PYTHON") == "PYTHON"


def test_supports() -> None:
    assert supports("PYTHON", "float32")
    with pytest.raises(ArchError, match=r"unknown dtype `floot16`\n.*did you mean `float16`"):
        supports("PYTHON", "floot16")


def test_bfloat16_is_the_compilers_to_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        compiler = ensure_compiler()
    except ArchError:
        pytest.skip("no clang on this machine")
    assert open_device("CPU") == "CPU"
    for answer in (True, False):
        other = replace(compiler, bfloat16=answer)
        monkeypatch.setattr(target, "ensure_compiler", lambda other=other: other)
        assert supports("CPU", "bfloat16") is answer
    assert supports("CPU", "float16")


def test_a_probe_hears_the_reason() -> None:
    backend = probe("cud")
    assert not backend.runs
    assert backend.reason == "unknown device `cud`"
    assert backend.help is not None


def test_a_probe_of_a_named_device_does_not_hear_of_dev(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEV", "PYTHON:NOPE")
    assert probe("PYTHON").runs
    assert not probe(None).runs


def script(folder: Path, body: str) -> str:
    """A program that replaces Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_probe_finds_its_answer_among_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = f'echo "{{driver: 1"; "{sys.executable}" "$@"; echo "driver: goodbye"'
    monkeypatch.setattr(sys, "executable", script(tmp_path, python))
    backend = probe("PYTHON")
    assert (backend.name, backend.runs) == ("PYTHON", True)
    assert "bfloat16" in backend.half_dtypes


@pytest.mark.parametrize(
    ("driver", "seconds", "reason"),
    [
        ("kill -ABRT $$", 60, "its process ended with status -6"),
        ("echo no such ioctl >&2; exit 1", 60, "ended with status 1: no such ioctl"),
        ("exec sleep 60", 0.5, "no answer in 0.5 s"),
    ],
)
def test_a_probe_survives_the_driver(
    driver: str, seconds: float, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path, driver))
    backend = probe("CL", seconds)
    assert not backend.runs
    assert backend.reason is not None
    assert reason in backend.reason


def test_backends_are_every_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "probe", lambda name: Backend(name, "", False))
    found = [backend.name for backend in target.backends()]
    assert len(found) == len(set(found))
    assert set(found) >= set(ALL_DEVICES)


def test_opencl_runs() -> None:
    backend = running("CL", "failed to load library opencl", "OpenCL Error -1001")
    assert backend.model
    # The portable OpenCL for processors (PoCL) has no half precision on x86.
    if backend.model.startswith("pthread") and "x86" in os.uname().machine:
        assert "float16" not in backend.half_dtypes


def test_webgpu_runs_with_no_setting() -> None:
    pytest.importorskip("pydawn", reason="dawn-python is not installed")
    assert running("WEBGPU", "No supported adapters").name == "WEBGPU"


def test_webgpus_null_adapter_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pydawn", reason="dawn-python is not installed")
    monkeypatch.setenv("WEBGPU_BACKEND", "WGPUBackendType_Null")
    backend = probe("WEBGPU")
    assert not backend.runs
    assert backend.reason is not None
    assert backend.reason.startswith("[1, 2, 3] * 2 + 1 gave")


@pytest.mark.long
@pytest.mark.parametrize(("given", "chosen"), [({}, "CPU"), ({"DEV": "CL"}, "CL")])
def test_the_processor_is_not_taken_through_opencl_unless_asked_for(
    given: dict[str, str], chosen: str
) -> None:
    code = (
        "from archdsl.backend.target import open_device, probe\n"
        "from archdsl.backend.tinygrad_seam import is_opencl_on_processor\n"
        "assert probe('CL').runs and is_opencl_on_processor()\n"
        "print(open_device())\n"
    )
    if not probe("CL").runs:
        pytest.skip("no OpenCL device: apt-get install pocl-opencl-icd")
    environment = {k: v for k, v in os.environ.items() if k != "DEV"} | given
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == chosen, done.stderr


def test_a_search_in_the_process_of_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archdsl.backend.tinygrad_seam.beam_width", lambda: 2)
    with pytest.raises(ArchError, match=r"BEAM=2: tinygrad searches[\s\S]*--tune 60"):
        open_device("CUDA")
    assert open_device("CPU") == "CPU"
