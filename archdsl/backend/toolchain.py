"""Finds a clang, the C compiler that tinygrad's CPU device needs.

By default, tinygrad runs the program in the environment variable `CC`, or `clang`; no other
compiler accepts its flags. PyPI's `ziglang` contains a clang for machines without one. This
module does not import tinygrad: `target.py` opens the device with the compiler found here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from archdsl.cache import cache_folder, is_ours, make_folder, trusted
from archdsl.diagnostics import fail
from archdsl.frozen import Frozen

INSTALL = '`pip install "archdsl[cpu]"` or `apt-get install clang`'

_MACHINE = platform.machine().lower()
_ARCH = {"amd64": "x86_64", "aarch64": "arm64"}.get(_MACHINE, _MACHINE)
_TARGET = f"{_ARCH}-none-unknown-elf"
_FLOAT32 = "void k(float *x) { x[0] = __builtin_sqrtf(x[0]); }"
_BFLOAT16 = "void k(__bf16 *x) { x[0] = (__bf16)((float)x[0] * 2.0f); }"


class Compiler(Frozen):
    """A clang that has compiled a kernel with tinygrad's flags.

    `path` is absolute, `version` is as clang prints it ("15.0.6"), and `origin` is where it was
    found: "CC", "PATH" or "ziglang". Old versions, such as 15, have no `bfloat16` arithmetic.
    """

    path: str
    version: str
    origin: str
    bfloat16: bool


def ensure_compiler() -> Compiler:
    """Returns the clang that compiles for the CPU.

    `CC` has priority; it is an error if it is not a usable clang. Otherwise the candidates are
    `clang`, `clang-NN` (highest first) and the clang of PyPI's `ziglang`: the first one that
    compiles bfloat16, or else the first one that works. The results of the checks are cached
    on disk until the file of the compiler changes.

    Raises ArchError (`device`) if there is no clang, with what to install.
    """
    return _chosen(os.environ.get("CC", ""), os.environ.get("PATH", ""), cache_folder())


@functools.cache
def _chosen(named: str, path: str, cache: Path) -> Compiler:
    """Returns the compiler for these environment variables, searched once."""
    return _named(named) if named else _found()


def _named(name: str) -> Compiler:
    path = shutil.which(name)
    compiler = _inspect(os.path.abspath(path), "CC") if path else None
    if compiler is None:
        said = _first_line(path) if path else "no such program"
        message = f"CC names `{name}`, which is not a clang that tinygrad can use: {said}"
        fail("device", message, help="unset CC, or set it to the path of a clang")
    return compiler


def _found() -> Compiler:
    usable = []
    for path, origin in _candidates():
        compiler = _inspect(path, origin)
        if compiler and compiler.bfloat16:
            return compiler
        if compiler:
            usable.append(compiler)
    if not usable:
        message = "no clang was found, which tinygrad needs for the CPU"
        fail("device", message, help=INSTALL)
    return usable[0]


def _candidates() -> Iterator[tuple[str, str]]:
    """Yields the path and origin of every clang, the best first."""
    if plain := shutil.which("clang"):
        yield os.path.abspath(plain), "PATH"
    numbered: dict[int, str] = {}
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for path in Path(folder).glob("clang-*") if folder else ():
            match = re.fullmatch(r"clang-(\d+)", path.name)
            if match and os.access(path, os.X_OK):
                numbered.setdefault(int(match[1]), os.path.abspath(path))
    for number in sorted(numbered, reverse=True):
        yield numbered[number], "PATH"
    spec = importlib.util.find_spec("ziglang")
    if spec and spec.submodule_search_locations:
        yield str(_zig_script(Path(spec.submodule_search_locations[0]) / "zig")), "ziglang"


def _zig_script(zig: Path) -> Path:
    """A script that runs `zig clang`: a compiler must be one program without arguments."""
    key = hashlib.sha256(f"{zig} {zig.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    text = f'#!/bin/sh\nexec {shlex.quote(str(zig))} clang "$@"\n'
    try:
        script = _tools_folder() / f"zig-clang-{key}"
        if not _is_as_written(script, text):
            _write(script, text, mode=0o755)
    except OSError:  # a full disk, or a cache that cannot be written
        try:
            script = Path(_temporary_folder().name) / f"zig-clang-{key}"
            _write(script, text, mode=0o755)
        except OSError as error:
            fail(
                "device",
                f"cannot write the script for ziglang's clang, neither in {cache_folder()} nor "
                f"in {tempfile.gettempdir()}: {error.strerror}",
                help="set XDG_CACHE_HOME or TMPDIR to a writable folder",
                cause=error,
            )
    return script


def _is_as_written(script: Path, text: str) -> bool:
    """Whether a script belongs to this user and has exactly this text, so it is safe to run."""
    try:
        same = script.read_text() == text and os.access(script, os.X_OK)
        return same and not script.is_symlink() and is_ours(script)
    except (OSError, ValueError):
        return False


def _tools_folder() -> Path:
    """The folder for programs: the cache, or a temporary one if others may write there."""
    folder = cache_folder()
    return folder if trusted(folder) else Path(_temporary_folder().name)


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="archdsl-")


def _inspect(path: str, origin: str) -> Compiler | None:
    """The compiler at a path; None if tinygrad cannot use it."""
    try:
        stamp = os.stat(path).st_mtime_ns
    except OSError:
        return None
    records = _records()
    match records.get(path):
        case [int(known), str(version), bool(bfloat16)] if known == stamp:
            return Compiler(path, version, origin, bfloat16)
    found = re.search(r"clang version (\S+)", _output([path, "--version"]) or "")
    if not found or not _compiles(path, _FLOAT32):
        return None
    compiler = Compiler(path, found[1], origin, _compiles(path, _BFLOAT16))
    records[path] = [stamp, compiler.version, compiler.bfloat16]
    # If the record cannot be written, the next search only takes longer.
    with contextlib.suppress(OSError):
        _write(_records_path(), json.dumps(records, indent=1) + "\n", mode=0o644)
    return compiler


def _records_path() -> Path:
    return cache_folder() / "compilers.json"


def _records() -> dict[str, object]:
    try:
        if not is_ours(_records_path()):
            return {}
        records = json.loads(_records_path().read_text())
    except (OSError, ValueError):
        return {}
    return records if isinstance(records, dict) else {}


def _compiles(path: str, source: str) -> bool:
    flags = ["-c", "-x", "c", "-O2", "-fPIC", "-ffreestanding", "-nostdlib", "-fno-ident"]
    command = [path, *flags, f"--target={_TARGET}", "-", "-o", os.devnull]
    return _output(command, source) is not None


def _first_line(path: str) -> str:
    said = (_output([path, "--version"]) or "").strip()
    return said.splitlines()[0] if said else "a program without a version"


def _output(command: list[str], given: str = "") -> str | None:
    """Runs a program; returns its standard output, or None if it failed."""
    try:
        ran = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None


def _write(path: Path, text: str, mode: int) -> None:
    """Writes a file atomically, so that several processes may write it."""
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
