"""`python -m benchmarks device`: runs the parts, and writes each line as it ends."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from archdsl.diagnostics import ArchError
from benchmarks.device import diagnosed, fast, right, tuned
from benchmarks.device.runner import Line, Unit, run_units

# The share of the time at which each part ends; what a part leaves is the next one's.
ENDS = {
    "limits": 0.1,
    "right": 0.36,
    "fast": 0.6,
    "torch": 0.7,
    "tuned": 0.93,
    "diagnosed": 0.99,
}
MINUTES = {False: 8.0, True: 2.0}
TUNE = {False: 60.0, True: 8.0}


def main(argv: list[str] | None = None) -> int:
    """Returns 1 if a result is wrong or missing, 2 if the device cannot be used."""
    args = _parser().parse_args(argv)
    if args.write_references:
        right.write_references(args.write_references)
        return 0
    start, minutes = time.monotonic(), args.minutes or MINUTES[args.quick]
    output = args.output or Path(f"device-{args.device.replace(':', '')}.jsonl")
    lines: list[Line] = []
    with output.open("w", encoding="utf-8") as file:

        def report(line: Line) -> None:
            lines.append(line)
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
            print(shown(line), flush=True)

        deadlines = {name: start + 60 * minutes * share for name, share in ENDS.items()}
        for name, units in _parts(args, lines, output, deadlines):
            begin = time.monotonic()
            if name != "limits" and "error" in lines[0]:
                return 2
            scale = minutes / MINUTES[args.quick]  # a slow machine gives each unit more time
            found = [replace(each, seconds=each.seconds * scale) for each in units()]
            jobs = max(1, (os.cpu_count() or 1) // 4) if name == "right" else 1
            run_units(found, report, deadlines[name], jobs)
            report({"part": name, "name": "end", "seconds": round(time.monotonic() - begin, 1)})
    print(f"{len(lines)} lines in {output}, {time.monotonic() - start:.0f} s")
    return 1 if any("error" in line or line.get("right") is False for line in lines) else 0


def _parts(
    args: argparse.Namespace,
    lines: list[Line],
    output: Path,
    deadlines: Mapping[str, float],
) -> Iterable[tuple[str, Callable[[], Iterable[Unit]]]]:
    """The parts in order; the units of a part follow from the lines before it."""
    device, quick = args.device.upper(), args.quick

    def limits() -> Iterable[Unit]:
        names = {"device": "measured", "PyTorch": "torch_measured"}
        if find_spec("torch") is None:
            del names["PyTorch"]
        module, options = "benchmarks.device.limits", {"device": device}
        return [Unit("limits", name, module, each, options) for name, each in names.items()]

    def limit() -> Line:
        """What the lines of the first part say together."""
        found = [line for line in lines if line["part"] == "limits" and "error" not in line]
        return {name: value for line in found for name, value in line.items()}

    def tuning_seconds() -> float:
        """Half of what is left of the part: the model is compiled and timed twice as well."""
        return round(min(TUNE[quick], (deadlines["tuned"] - time.monotonic()) / 2), 1)

    folder = output.with_suffix("").with_name(f"{output.stem}-kernels")
    parts: dict[str, Callable[[], Iterable[Unit]]] = {
        "right": lambda: right.units(device, _references(args), quick),
        "fast": lambda: fast.units(limit(), quick),
        "torch": lambda: fast.torch_units(limit(), quick),
        "tuned": lambda: tuned.units(limit(), tuning_seconds(), quick),
        "diagnosed": lambda: diagnosed.units(limit(), folder, quick),
    }
    yield "limits", limits
    for name in args.parts or parts:
        yield name, parts[name]


def _references(args: argparse.Namespace) -> str | None:
    """The file of right results, where the CPU cannot compute them."""
    from archdsl.backend.toolchain import ensure_compiler

    beside = Path(__file__).with_name("references.npz")
    if args.references or beside.exists():
        return str(args.references or beside)
    try:
        ensure_compiler()
    except ArchError as error:
        sys.exit(
            f"error: {error.diagnostics[0].message}, and the right results are computed there\n"
            "  = help: write them on a machine with clang, and bring the file along: "
            "`python -m benchmarks device --write-references references.npz`"
        )
    return None


def shown(line: Line) -> str:
    """A line of the results for people: its name, and its most important numbers."""
    start = f"{line['part']:<10}{line['name']:<52}"
    if "error" in line:
        return f"{start} ERROR {line['error']}"
    if "skipped" in line:
        return f"{start}skipped: {line['skipped']}"
    if "right" in line:
        sign = "right" if line["right"] else "WRONG"
        return f"{start}{sign}  {line['difference']:.1e} (allowed {line['allowed']:.0e})"
    numbers = (
        f"{name} {value:.4g}"
        for name, value in line.items()
        if isinstance(value, int | float) and name != "seconds" and not isinstance(value, bool)
    )
    return start + ", ".join(numbers or [f"{line['seconds']} s"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks device",
        description="Measures what a device can do with our models: right, fast, tuned, "
        "diagnosed. Takes at most 8 minutes.",
    )
    parser.add_argument("--device", default="CPU", help="tinygrad's name, such as CUDA or CL")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, in at most 2 minutes"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the results, a line of JSON each (default: device-DEVICE.jsonl)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="N",
        help="for all parts (default: 8, with --quick 2); what does not fit is left out",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=tuple(ENDS)[1:],
        metavar="PART",
        help=f"only these parts: {', '.join(tuple(ENDS)[1:])}",
    )
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="right results, for a machine without clang "
        "(default: references.npz beside this program, if there is one)",
    )
    parser.add_argument(
        "--write-references", type=Path, metavar="FILE", help="write that file, and end"
    )
    return parser
