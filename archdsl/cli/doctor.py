"""`archdsl doctor`: the devices of this machine, what is missing, and how to install it."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archdsl.cache import cache_folder
from archdsl.cli.common import Subparsers, add_command, add_json
from archdsl.diagnostics import ArchError
from archdsl.execution.memory import machine_memory

if TYPE_CHECKING:
    from archdsl.backend.target import Backend
    from archdsl.backend.toolchain import Compiler

_WIDTH = 96


@dataclass(frozen=True)
class Folder:
    """A folder that must be writable; `problem` is None when it is."""

    path: str
    problem: str | None


@dataclass(frozen=True)
class Report:
    """The report of `doctor`; memory is in bytes."""

    python: str
    system: str
    archdsl: str
    tinygrad: str
    compiler: Compiler | None
    compiler_problem: tuple[str, ...]
    cores: int
    memory: int | None
    cache: Folder
    kernels: Folder
    default: Backend
    backends: tuple[Backend, ...]


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "doctor",
        "",
        "archdsl doctor",
        "archdsl doctor --json > machine.json",
        exit_status="1 if no device runs",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the report; returns 0 if any backend runs, 1 if none does."""
    report = examine()
    if args.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print("\n".join(lines(report)))
    return 0 if any(backend.runs for backend in report.backends) else 1


def examine() -> Report:
    """Examines this machine. Trying every backend takes some seconds."""
    from archdsl.backend import target, toolchain  # imports tinygrad

    compiler: Compiler | None = None
    problem: tuple[str, ...] = ()
    try:
        compiler = toolchain.ensure_compiler()
    except ArchError as error:
        first = error.diagnostics[0]
        problem = (first.message, f"help: {first.help}")
    return Report(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        archdsl=_version("archdsl"),
        tinygrad=_version("tinygrad"),
        compiler=compiler,
        compiler_problem=problem,
        cores=_cores(),
        memory=_memory(),
        cache=_folder(cache_folder()),
        kernels=_folder(target.kernel_cache().parent),
        default=target.probe(None),
        backends=target.backends(),
    )


def lines(report: Report) -> Iterator[str]:
    """Yields the lines of the printed report."""
    yield _row("Python", f"{report.python} on {report.system}")
    yield _row("archdsl", report.archdsl)
    yield _row("tinygrad", report.tinygrad)
    yield from _compiler_rows(report)
    yield _row("cores", str(report.cores))
    yield _row("memory", f"{report.memory / 2**30:.1f} GiB" if report.memory else "unknown")
    yield from _folder_rows("cache", report.cache)
    yield from _folder_rows("kernels", report.kernels)
    yield ""
    for backend in sorted(report.backends, key=lambda backend: not backend.runs):
        yield from _backend_rows(backend)
    yield ""
    running = sum(backend.runs for backend in report.backends)
    yield f"{running} of {len(report.backends)} devices run."
    if report.default.runs:
        yield f"Without --device, models run on {report.default.name}."
    else:
        yield f"Without --device, no model runs: {report.default.reason}"


def _compiler_rows(report: Report) -> Iterator[str]:
    compiler = report.compiler
    if compiler is None:
        yield _row("compiler", "missing")
        yield from (_row("", line) for line in report.compiler_problem)
        return
    yield _row("compiler", f"clang {compiler.version} from {compiler.origin}: {compiler.path}")
    if not compiler.bfloat16:
        yield _row("", "too old for bfloat16 on the CPU")
        yield _row("", 'help: `pip install "archdsl[cpu]"` installs a newer one')


def _folder_rows(label: str, folder: Folder) -> Iterator[str]:
    if folder.problem is None:
        yield _row(label, f"{folder.path} (writable)")
    else:
        yield _row(label, f"cannot write {folder.path}: {folder.problem}")
        yield _row("", "help: set XDG_CACHE_HOME to a writable folder")


def _backend_rows(backend: Backend) -> Iterator[str]:
    if backend.runs:
        model = f" ({backend.model})" if backend.model else ""
        yield _row(backend.name, f"runs  {backend.about}{model}")
        yield _row("", f"      {', '.join(('float32', *backend.half_dtypes))}")
        return
    yield _row(backend.name, f"no    {backend.about}")
    yield from textwrap.wrap(
        f"why:  {backend.reason}", _WIDTH, initial_indent=" " * 18, subsequent_indent=" " * 24
    )
    # Not wrapped, because people copy the command.
    if backend.help:
        yield _row("", f"      help: {backend.help}")


def _row(label: str, text: str) -> str:
    return f"{label:<12}{text}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int | None:
    """Returns the bytes of the memory of the machine or the container, or None if the system
    does not report it."""
    try:
        return machine_memory()
    except (AttributeError, ValueError, OSError):
        return None


def _folder(path: Path) -> Folder:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return Folder(str(path), None)
    except OSError as error:
        return Folder(str(path), error.strerror)
