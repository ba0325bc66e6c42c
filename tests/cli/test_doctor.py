"""The report of `archdsl doctor`, for an invented machine and for this one."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from archdsl.analysis import analyse
from archdsl.backend import target, toolchain
from archdsl.backend.target import Backend
from archdsl.backend.toolchain import Compiler
from archdsl.cli import doctor
from archdsl.cli.doctor import Folder, Report
from archdsl.cli.table import WIDTH
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.execution.fit import ROOM, fit, need

CPU = Backend(
    "CPU",
    "this processor",
    True,
    "x86_64,native",
    ("float16", "bfloat16"),
    memory=16 * 2**30,
)
CUDA = Backend(
    "CUDA",
    "NVIDIA GPUs, through CUDA",
    True,
    "sm_90",
    ("float16",),
    memory=4 * 2**30,
    tensor_cores=("bfloat16", "float16"),
)
NV = Backend(
    "NV",
    "NVIDIA GPUs, without CUDA",
    False,
    reason="No such file or directory: /dev/nvidiactl; "
    "NV:0 does not exist (0 devices available)",
    help="needs an NVIDIA GPU and its driver: `apt-get install nvidia-driver`",
)
REPORT = Report(
    python="3.11.2",
    system="Linux x86_64",
    archdsl="0.1.0",
    tinygrad="0.14.0",
    compiler=Compiler("/usr/bin/clang-19", "19.1.7", "PATH", bfloat16=True),
    compiler_problem=(),
    cores=8,
    memory=16 * 2**30,
    cache=Folder("/home/ada/.cache/archdsl", None),
    kernels=Folder("/home/ada/.cache/tinygrad", None),
    default=CPU,
    backends=(NV, CPU),
)
TEXT = """\
Python      3.11.2 on Linux x86_64
archdsl     0.1.0
tinygrad    0.14.0
compiler    clang 19.1.7 from PATH: /usr/bin/clang-19
cores       8
memory      16.0 GiB
cache       /home/ada/.cache/archdsl (writable)
kernels     /home/ada/.cache/tinygrad (writable)

CPU         runs  this processor (x86_64,native)
                  float32, float16, bfloat16
                  16.0 GiB of memory
NV          no    NVIDIA GPUs, without CUDA
                  why:  No such file or directory: /dev/nvidiactl; NV:0 does not
                        exist (0 devices available)
                  help: needs an NVIDIA GPU and its driver:
                        `apt-get install nvidia-driver`

1 of 2 devices run.
Without --device, models run on CPU.
"""


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser("archdsl")
    doctor.add(parser.add_subparsers())
    return parser.parse_args(["doctor", *arguments])


def show(report: Report, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(doctor, "examine", lambda: report)
    args = parse(*arguments)
    status = args.run(args)
    assert isinstance(status, int)
    return status


def test_the_whole_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(REPORT, monkeypatch) == 0
    assert capsys.readouterr().out == TEXT
    assert max(map(len, TEXT.splitlines())) <= WIDTH


def test_each_problem_has_a_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poor = replace(
        REPORT,
        compiler=None,
        compiler_problem=("there is no clang", "help: install clang"),
        memory=None,
        cache=Folder("/home/ada/.cache/archdsl", "Read-only file system"),
        default=NV,
        backends=(NV,),
    )
    assert show(poor, monkeypatch) == 1
    shown = capsys.readouterr().out
    assert (
        "compiler    missing\n            there is no clang\n            help: install clang\n"
    ) in shown
    assert "memory      unknown\n" in shown
    assert (
        "cache       cannot write /home/ada/.cache/archdsl: Read-only file system\n"
        "            help: set XDG_CACHE_HOME to a writable folder\n"
    ) in shown
    assert "0 of 1 devices run.\nWithout --device, no model runs: No such file" in shown


def test_an_old_clang_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Compiler("/usr/bin/clang", "14.0.6", "PATH", bfloat16=False)
    assert show(replace(REPORT, compiler=old), monkeypatch) == 0
    assert "too old for bfloat16 on the CPU\n            help: `pip" in capsys.readouterr().out


def test_json_holds_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(REPORT, monkeypatch, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data) == set(Report.__dataclass_fields__)
    assert data["compiler"]["version"] == "19.1.7"
    assert data["memory"] == 16 * 2**30
    assert [backend["runs"] for backend in data["backends"]] == [False, True]


def test_a_device_says_what_it_is_good_for() -> None:
    shown = "\n".join(doctor.lines(replace(REPORT, backends=(CUDA,))))
    assert (
        "CUDA        runs  NVIDIA GPUs, through CUDA (sm_90)\n"
        "                  float32, float16; tensor cores for bfloat16 and float16\n"
        "                  4.0 GiB of memory\n"
    ) in shown
    unknown = replace(CUDA, memory=None, tensor_cores=())
    shown = "\n".join(doctor.lines(replace(REPORT, backends=(unknown,))))
    assert "float32, float16\n                  memory unknown\n" in shown


def test_where_a_spec_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = replace(CUDA, name="WEBGPU", memory=None, half_dtypes=())
    monkeypatch.setattr(target, "backends", lambda: (CUDA, unknown, NV))
    args = parse("gpt2.arch:xl", "--set", "context=2048")
    assert args.run(args) == 0
    assert capsys.readouterr().out == FITS


FITS = """\
GPT2: 1,559,249,600 weights; memory in GiB, that of one sequence

device    memory  dtype     weights    cache  activations  fits
CUDA        4.00  float32      5.81     0.00         0.00  no, it needs 6.11
CUDA        4.00  float16      2.90     0.59         0.08  to 2,048
WEBGPU   unknown  float32      5.81     1.17         0.08  unknown
"""


def test_a_spec_that_fits_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(target, "backends", lambda: (replace(CUDA, memory=2**30),))
    args = parse("gpt2.arch:xl", "--json")
    assert args.run(args) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["model"], data["parameters"]) == ("GPT2", 1_557_611_200)
    assert [(each["dtype"], each["fit"]["fits"]) for each in data["devices"]] == [
        ("float32", False),
        ("float16", False),
    ]


def test_a_spec_on_a_small_device_has_a_shorter_context() -> None:
    graph = analyse("gpt2.arch", settings={"context": 16384}).graph
    whole = need(graph, "float16", 16384)
    memory = int((whole.weights + whole.activations + whole.cache / 2) / ROOM)
    found = fit(graph, "float16", memory)
    assert found.length is not None
    assert found.fits
    assert 6000 < found.length < 12000
    assert need(graph, "float16", found.length).bytes <= ROOM * memory
    assert need(graph, "float16", found.length + 1).bytes > ROOM * memory
    assert not fit(graph, "float16", whole.weights).fits


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    assert "archdsl doctor --json" in capsys.readouterr().out


def test_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> Compiler:
        raise ArchError(Diagnostic("device", "no clang", help="install one"))

    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(toolchain, "ensure_compiler", fail)
    monkeypatch.setattr(target, "probe", lambda name: CPU)
    monkeypatch.setattr(target, "backends", lambda: (target.probe("CPU"),))
    report = doctor.examine()
    assert report.compiler_problem == ("no clang", "help: install one")
    assert report.cache.problem == "Not a directory"
    assert report.kernels == Folder(str(target.kernel_cache().parent), None)
    assert report.tinygrad.startswith("0.14")
    assert report.cores >= 1
    assert report.memory is None or report.memory > 2**20
    assert report.backends == (CPU,)
