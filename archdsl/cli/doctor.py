"""`archdsl doctor`: the devices of this machine, what is missing, and how to install it; with a
spec, on which of them the model fits."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archdsl.cache import cache_folder
from archdsl.cli.common import (
    Subparsers,
    add_command,
    add_json,
    add_settings,
    parse_settings,
)
from archdsl.cli.progress_line import print_json
from archdsl.cli.table import wrap
from archdsl.diagnostics import ArchError, fail
from archdsl.execution.memory import machine_memory

if TYPE_CHECKING:
    from archdsl.backend.target import Backend
    from archdsl.backend.toolchain import Compiler
    from archdsl.execution.fit import Fit, Need
    from archdsl.graph.nodes import Graph


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
        "[FILE[:VARIANT]]",
        "archdsl doctor",
        "archdsl doctor --json > machine.json",
        "archdsl doctor gpt2.arch:xl",
        exit_status="1 if no device runs, or the model of the spec fits on none",
    )
    parser.add_argument(
        "spec",
        nargs="?",
        metavar="FILE[:VARIANT]",
        help="also on which devices the model of this spec fits, in which dtype, and to which "
        "length",
    )
    add_settings(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the report; returns 0 if any backend runs, 1 if none does."""
    if args.spec is not None:
        return _run_spec(args)
    if args.set:
        fail("argument-value", "--set without a spec", help="archdsl doctor gpt2.arch --set …")
    report = examine()
    if args.json:
        print_json(asdict(report), indent=2)
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
        cores = f"; tensor cores for {' and '.join(backend.tensor_cores)}"
        dtypes = ", ".join(("float32", *backend.half_dtypes))
        yield _row("", f"      {dtypes}{cores if backend.tensor_cores else ''}")
        yield _row("", f"      {_amount(backend.memory)}")
        return
    yield _row(backend.name, f"no    {backend.about}")
    for label, text in (("why", backend.reason), ("help", backend.help)):
        if text:
            yield from wrap(text, f"{'':<18}{label + ':':<6}")


def _row(label: str, text: str) -> str:
    return "\n".join(wrap(text, f"{label:<12}"))


def _amount(memory: int | None) -> str:
    return "memory unknown" if memory is None else f"{memory / 2**30:.1f} GiB of memory"


# -- a model on these devices --


@dataclass(frozen=True)
class DeviceFit:
    """A model on a device in one dtype; `fit` is None where the memory is unknown."""

    device: str
    memory: int | None
    dtype: str
    fit: Fit | None
    need: Need


def _run_spec(args: argparse.Namespace) -> int:
    """Prints where the model of a spec fits; returns 0 if it fits on any device."""
    from archdsl.analysis import analyse
    from archdsl.backend import target  # imports tinygrad
    from archdsl.graph.cost import parameter_count

    graph = analyse(args.spec, settings=parse_settings(args)).graph
    found = fits(graph, [each for each in target.backends() if each.runs])
    weights = parameter_count(graph)
    if args.json:
        data = {"spec": args.spec, "model": graph.name, "parameters": weights}
        print_json(data | {"devices": [asdict(each) for each in found]}, indent=2)
    else:
        print(f"{graph.name}: {weights:,} weights; memory in GiB, that of one sequence")
        print()
        print("\n".join(fit_lines(found)))
    return 0 if any(each.fit is None or each.fit.fits for each in found) else 1


def fits(graph: Graph, backends: Sequence[Backend]) -> list[DeviceFit]:
    """The model on each device, in each dtype that the device can compute in."""
    from archdsl.execution import fit

    found = []
    for each in backends:
        memory = each.memory
        if memory and each.name == "CPU":
            memory = min(memory, machine_memory())
        for dtype in ("float32", *each.half_dtypes):
            placed = fit.fit(graph, dtype, memory) if memory else None
            longest = max((axis.bound for axis in graph.varying), default=1)
            needed = placed.need if placed else fit.need(graph, dtype, longest)
            found.append(DeviceFit(each.name, memory, dtype, placed, needed))
    return found


def fit_lines(found: Sequence[DeviceFit]) -> Iterator[str]:
    """Yields a table with a line for each device and dtype."""
    row = "{:<8}{:>8}  {:<8}{:>9}{:>9}{:>13}  {}"
    yield row.format("device", "memory", "dtype", "weights", "cache", "activations", "fits")
    for each in found:
        sizes = (each.need.weights, each.need.cache, each.need.activations)
        memory = _gib(each.memory) if each.memory else "unknown"
        yield row.format(each.device, memory, each.dtype, *map(_gib, sizes), _verdict(each))


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f}"


def _verdict(each: DeviceFit) -> str:
    fit = each.fit
    if fit is None:
        return "unknown"
    if not fit.fits:
        return f"no, it needs {_gib(each.need.bytes)}"
    if fit.limit is None:
        return "yes"
    whole = "" if fit.length == fit.limit else f" of {fit.limit:,}"
    return f"to {fit.length:,}{whole}"


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
