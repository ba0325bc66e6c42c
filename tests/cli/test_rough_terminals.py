"""Commands in odd surroundings: closed streams, other encodings, damaged arrays, terminals."""

from __future__ import annotations

import errno
import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from archdsl.cli import main
from archdsl.cli.output import OutputError, checked_output
from archdsl.formats.npz import read_npy
from tests.cli.test_commands import process

SPEC = "# café →\nmodel M(D = 8) {\n  input x: float[D]\n  output y: float[D] = x -> relu\n}\n"


def header(shape: object, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is not a .npy file"),
        (b"hello", "it is not a .npy file"),
        (b"\x93NUM", "it is not a .npy file"),
        (b"\x93NUMPY\x09\x00", "its version is not supported"),
        (b"PK\x03\x04garbage", "it is an archive"),
        (header((10**18,)), "declares 4,000,000,000,000,000,000 bytes, and it has 0"),
        (header((4,)) + b"abc", "declares 16 bytes, and it has 3"),
        (header((-1, 2)), "not a valid shape"),
        (header((2,), "|O") + b"\x80\x04N.", "it has Python objects"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x3f{{{", "EOF"),
        (b"\x93NUMPY\x01\x00\x04\x00{{'a", "its header is damaged"),
    ],
)
def test_an_array_that_is_damaged(
    data: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    (tmp_path / "a.arch").write_text(SPEC)
    assert main(["run", str(tmp_path / "a.arch"), "--input", f"x={tmp_path}/x.npy"]) == 1
    assert reason in capsys.readouterr().err


def test_an_array_of_any_layout(tmp_path: Path) -> None:
    values = np.arange(6).reshape(2, 3)
    for array in (values, np.asfortranarray(values), values.astype(">i8"), values[0, 0]):
        np.save(tmp_path / "x.npy", array)
        assert (read_npy(tmp_path / "x.npy") == array).all()


def test_an_output_without_unicode(tmp_path: Path) -> None:
    (tmp_path / "é.arch").write_text(SPEC.replace("relu", "rleu"))
    done = process("show", "--emit", "ast", "gpt.arch", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    done = process("check", str(tmp_path / "é.arch"), env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "\\xe9.arch:4:29: error[unknown-name]" in done.stderr


def test_a_terminal_shows_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    with checked_output():
        sys.stdout.write("a\tb\x1b[31m\u202e\n")
    assert stream.getvalue() == "a\tb\\x1b[31m\\u202e\n"


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_only_the_output_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdout", FullDisk())
    with pytest.raises(OutputError, match="No space left"), checked_output():
        sys.stdout.write("a")
    with pytest.raises(FileNotFoundError), checked_output():
        (tmp_path / "missing").read_text()


@pytest.mark.parametrize("threads", ["0", "many", "-3", ""])
def test_a_number_of_threads(
    threads: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NUM_CPU_THREADS", threads)
    assert main(["run", "gpt.arch"]) == 1
    err = capsys.readouterr().err
    assert "error[device]: the environment variable NUM_CPU_THREADS" in err


def test_an_argument_with_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["\x1b[31m"])
    assert "there is no command `\\x1b[31m`" in capsys.readouterr().err
