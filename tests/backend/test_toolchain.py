"""The search for a clang, with fake and real compilers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from archdsl.backend import toolchain
from archdsl.backend.toolchain import Compiler, ensure_compiler
from archdsl.diagnostics import ArchError

ROOT = Path(__file__).parents[2]
WITHOUT_BFLOAT16 = "read -r line; case $line in *__bf16*) exit 1;; esac"


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no compiler at all: an empty PATH, an empty cache and no ziglang."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def program(path: Path, version: str, body: str = "exit 0") -> str:
    """A compiler that prints a version and compiles nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tell = f'case $1 in --version) echo "{version}"; exit 0;; esac'
    path.write_text(f"#!/bin/sh\n{tell}\n{body}\n")
    path.chmod(0o755)
    return str(path)


def pretend_ziglang(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(
        folder / "zig", "no version without clang", body='shift; echo "clang version 22.1.8"'
    )
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def searched() -> str:
    """The path of the compiler, as a new process finds it."""
    toolchain._chosen.cache_clear()
    return ensure_compiler().path


def message() -> str:
    with pytest.raises(ArchError) as caught:
        ensure_compiler()
    return str(caught.value)


def test_no_compiler_says_what_to_install() -> None:
    assert message() == (
        "error[device]: no clang was found, which tinygrad needs for the CPU\n"
        '  = help: `pip install "archdsl[cpu]"` or `apt-get install clang`'
    )
    assert os.environ["CC"] == ""


def test_clang_on_the_path(tmp_path: Path) -> None:
    path = program(tmp_path / "bin/clang", "Debian clang version 18.1.8 (1)")
    assert ensure_compiler() == Compiler(path, "18.1.8", "PATH", bfloat16=True)
    assert os.environ["CC"] == ""


def test_plain_clang_before_numbered_ones(tmp_path: Path) -> None:
    path = program(tmp_path / "bin/clang", "clang version 17.0.0")
    program(tmp_path / "bin/clang-18", "clang version 18.0.0")
    assert ensure_compiler().path == path


def test_the_highest_number_and_nothing_that_only_looks_like_it(tmp_path: Path) -> None:
    for name in ("clang-9", "clang-18", "clang-tidy-20", "clang-cpp-21", "clang-format"):
        program(tmp_path / "bin" / name, f"{name} clang version 1.0.0")
    assert ensure_compiler().path == str(tmp_path / "bin/clang-18")


def test_a_clang_that_compiles_nothing_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "bin/clang", "clang version 19.0.0", body="exit 1")
    path = program(tmp_path / "bin/clang-17", "clang version 17.0.0")
    assert ensure_compiler().path == path


def test_a_clang_without_bfloat16_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin/clang", "clang version 14.0.6", body=WITHOUT_BFLOAT16)
    pretend_ziglang(tmp_path / "ziglang", monkeypatch)
    assert ensure_compiler().origin == "ziglang"


def test_a_clang_without_bfloat16_serves_where_there_is_no_other(tmp_path: Path) -> None:
    path = program(tmp_path / "bin/clang", "clang version 14.0.6", body=WITHOUT_BFLOAT16)
    assert ensure_compiler() == Compiler(path, "14.0.6", "PATH", bfloat16=False)


def test_cc_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin/clang", "clang version 19.0.0")
    old = program(tmp_path / "elsewhere/clang", "clang version 14.0.6", body=WITHOUT_BFLOAT16)
    monkeypatch.setenv("CC", old)
    assert ensure_compiler() == Compiler(old, "14.0.6", "CC", bfloat16=False)


def test_cc_that_is_gcc_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin/clang", "clang version 19.0.0")
    program(tmp_path / "bin/gcc", "gcc (Debian 12.2.0-14) 12.2.0")
    monkeypatch.setenv("CC", "gcc")
    assert message() == (
        "error[device]: CC names `gcc`, which is not a clang that tinygrad can use: "
        "gcc (Debian 12.2.0-14) 12.2.0\n"
        "  = help: unset CC, or set it to the path of a clang"
    )
    assert os.environ["CC"] == "gcc"


def test_the_real_gcc_is_no_clang(monkeypatch: pytest.MonkeyPatch) -> None:
    gcc = shutil.which("gcc", path=os.defpath)
    if gcc is None:
        pytest.skip("no gcc on this machine")
    monkeypatch.setenv("CC", gcc)
    assert "not a clang that tinygrad can use: gcc" in message()


def test_cc_that_is_nowhere_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "clnag")
    assert "CC names `clnag`, which is not a clang that tinygrad can use: no such" in message()


def test_our_own_choice_is_not_taken_for_the_users(tmp_path: Path) -> None:
    program(tmp_path / "bin/clang", "clang version 19.0.0")
    assert ensure_compiler() == ensure_compiler()


def test_a_known_compiler_is_not_run_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    path = program(tmp_path / "bin/clang", "clang version 18.0.0", body=f"echo ran >>{log}")
    first = ensure_compiler()
    ran = log.read_text()
    another_process(monkeypatch)
    assert ensure_compiler() == first
    assert log.read_text() == ran

    program(Path(path), "clang version 19.0.0")
    os.utime(path, ns=(1, 1))
    another_process(monkeypatch)
    assert ensure_compiler().version == "19.0.0"


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process searches each PATH once: the rest uses only the cache on disk."""
    monkeypatch.setenv("PATH", os.environ["PATH"] + os.pathsep)


@pytest.mark.parametrize("record", ["", "[]", '{"clang": 3}', "{"])
def test_a_spoilt_record_is_made_again(record: str, tmp_path: Path) -> None:
    path = program(tmp_path / "bin/clang", "clang version 18.0.0")
    records = toolchain.cache_folder() / "compilers.json"
    records.parent.mkdir(parents=True)
    records.write_text(record.replace("clang", path))
    assert ensure_compiler().version == "18.0.0"
    assert json.loads(records.read_text())[path][1:] == ["18.0.0", True]


def test_ziglang_becomes_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_ziglang(tmp_path / "it's a folder" / "ziglang", monkeypatch)
    compiler = ensure_compiler()
    assert (compiler.version, compiler.origin) == ("22.1.8", "ziglang")
    assert Path(compiler.path).parent == tmp_path / "cache/archdsl"
    assert len(Path(compiler.path).read_text().splitlines()) == 2
    names = sorted(path.name for path in toolchain.cache_folder().iterdir())
    assert names == ["compilers.json", Path(compiler.path).name]


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    pretend_ziglang(tmp_path / "ziglang", monkeypatch)
    script = Path(searched())
    assert script.is_relative_to(tempfile.gettempdir())
    assert not script.is_relative_to(tmp_path)
    assert os.access(script, os.X_OK)
    with monkeypatch.context() as patch:
        patch.setattr(toolchain, "_temporary_folder", lambda: SimpleNamespace(name="/dev/null"))
        toolchain._chosen.cache_clear()
        assert "set XDG_CACHE_HOME or TMPDIR to a writable folder" in message()
    toolchain._chosen.cache_clear()
    path = program(tmp_path / "bin/clang", "clang version 18.0.0")
    assert ensure_compiler().path == path


@pytest.mark.long
def test_ziglang_compiles_what_tinygrad_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    pytest.importorskip("ziglang", reason="ziglang is not installed")
    code = (
        "import sys\n"
        "from archdsl.backend.toolchain import ensure_compiler\n"
        "compiler = ensure_compiler()\n"
        "assert 'tinygrad' not in sys.modules\n"
        "from archdsl.backend.target import open_device, supports\n"
        "assert supports(open_device('CPU'), 'bfloat16')\n"
        "from tinygrad import Tensor, dtypes\n"
        "x = Tensor([1.0, 2.0, 3.0], device='CPU')\n"
        "for dtype in (dtypes.float32, dtypes.float16, dtypes.bfloat16):\n"
        "    print((x.cast(dtype) * 3 + 1).exp2().sum().float().item())\n"
        "print(compiler.origin, compiler.bfloat16)\n"
    )
    environment = {
        "PATH": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert ran.stderr == ""
    assert ran.stdout.split() == ["1168.0", "1168.0", "1168.0", "ziglang", "True"]


def test_a_script_that_was_changed_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_ziglang(tmp_path / "ziglang", monkeypatch)
    script = Path(searched())
    text = script.read_text()
    script.write_text("#!/bin/sh\nexit 1\n")
    assert Path(searched()).read_text() == text
    script.chmod(0o777)
    assert Path(searched()).stat().st_mode & 0o777 == 0o755


def test_no_script_is_run_from_a_folder_that_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_ziglang(tmp_path / "ziglang", monkeypatch)
    script = Path(searched())
    script.parent.chmod(0o777)
    with pytest.warns(UserWarning, match="other users may write to it"):
        other = Path(searched())
    assert other.parent != script.parent
    assert other.parent.stat().st_mode & 0o777 == 0o700
