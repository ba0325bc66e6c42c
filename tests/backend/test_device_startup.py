"""The CPU device opens quickly, with the same results as tinygrad's search."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tinygrad import Device
from tinygrad.runtime.support.c import DLL

import archdsl
from archdsl.backend import device_startup, program_store
from archdsl.backend.tinygrad_cpu import find_library

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux opens this way")


@pytest.mark.parametrize("name", ["c", "m", "gcc_s", "OpenCL", "stdc++", "no-such-library"])
def test_a_library_is_found_where_tinygrad_finds_it(name: str) -> None:
    assert find_library(name, [name]) == DLL.findlib(name, [name])


def test_a_variable_says_where_a_library_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libours.so.2").write_bytes(b"\x7fELF")
    (tmp_path / "libours.so").write_bytes(b"a linker's script")
    monkeypatch.setenv("OURS_PATH", str(tmp_path))
    assert find_library("ours", ["ours"]) == str(tmp_path / "libours.so.2")
    monkeypatch.setenv("OURS_PATH", str(tmp_path / "libours.so"))
    assert find_library("ours", ["ours"]) == str(tmp_path / "libours.so")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without devices, whose OpenCL is PoCL."""
    (tmp_path / "pocl.icd").write_text("libpocl.so.2")
    monkeypatch.setattr(device_startup, "_OPENCL", str(tmp_path))
    monkeypatch.setattr(device_startup, "_NODES", ())
    monkeypatch.setattr(device_startup, "_GRAPHICS", ())
    monkeypatch.setattr(device_startup, "_device_attributes", lambda folder, name: iter(()))
    libraries = {"OpenCL": "libOpenCL.so"}
    monkeypatch.setattr(device_startup, "find_library", lambda name, paths: libraries.get(name))
    for name in (*device_startup._VARIABLES, *Device._devices):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_bare_machine_has_its_processor_alone(bare: Path) -> None:
    assert device_startup.has_only_cpu()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_NODES", ("null",)),
        ("_GRAPHICS", ("null",)),
        ("_device_attributes", lambda folder, name: iter(["0x8086", "0x10de"])),
        ("_device_attributes", lambda folder, name: iter(["0781", "add1"])),
        ("find_library", lambda name, paths: "libcuda.so.1"),
    ],
)
def test_a_machine_with_more_is_left_to_tinygrad(
    name: str, value: object, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_startup, name, value)
    assert not device_startup.has_only_cpu()


def test_another_driver_of_opencl_is_left_to_tinygrad(bare: Path) -> None:
    (bare / "intel.icd").write_text("libigdrcl.so")
    assert not device_startup.has_only_cpu()


@pytest.mark.parametrize("name", ["REMOTE", "CUDA", "OCL_ICD_VENDORS"])
def test_a_setting_of_tinygrads_is_left_to_it(
    name: str, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    assert not device_startup.has_only_cpu()


def test_a_device_that_is_asked_for_is_not_chosen_away() -> None:
    script = """
from archdsl.backend import target
target.has_only_cpu = lambda: True
print(target.open_device())
"""
    for asked, opened in (("NULL", "NULL"), (None, "CPU")):
        environment = {name: value for name, value in os.environ.items() if name != "DEV"}
        environment |= {"PYTHONPATH": str(Path(archdsl.__file__).parents[1])}
        environment |= {"DEV": asked} if asked else {}
        command = [sys.executable, "-c", script]
        done = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        )
        assert done.stdout.strip() == opened


@pytest.mark.long
def test_the_programs_of_the_device_are_lowered_once(tmp_path: Path) -> None:
    script = """
from archdsl.backend import device_startup
from archdsl.backend.target import open_device
lowered = []
plain = device_startup.ops_cpu.do_to_program
device_startup.ops_cpu.do_to_program = lambda *given: (lowered.append(1), plain(*given))[1]
open_device("CPU")
assert device_startup.ops_cpu.do_to_program.__name__ == "<lambda>"
from tinygrad import Tensor
assert (Tensor([1, 2], device="CPU") + 1).tolist() == [2, 3]
print(len(lowered))
"""
    environment = {
        **os.environ,
        "ARCHDSL_PROGRAMS": "1",
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(archdsl.__file__).parents[1]),
    }

    def lowered() -> int:
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        return int(done.stdout)

    assert lowered() == 4
    assert lowered() == 0
    (entry,) = (tmp_path / "archdsl" / program_store.STORE.name).iterdir()
    entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    assert lowered() == 4
