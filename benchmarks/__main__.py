"""The command: runs workloads, prints the results and writes them to files."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from archdsl.bench.results import WorkloadResult, format_result, measure, report
from benchmarks import NAMES


def main(argv: list[str] | None = None) -> int:
    """Runs the workloads; returns 1 if a candidate failed."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["device"]:
        from benchmarks.device.command import main as device

        return device(argv[1:])
    args = _parser().parse_args(argv)
    found: list[WorkloadResult] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks") as folder:
        for name in args.names or NAMES:
            own = Path(folder) / name
            own.mkdir()
            for workload in import_module(f"benchmarks.{name}").workloads(own, args.quick):
                if args.only and args.only not in workload.name:
                    continue
                left = tuple(c for c in workload.candidates if c.name not in args.without)
                workload = replace(workload, candidates=left)
                found.append(measure(workload, args.rounds, _progress))
                print(format_result(found[-1]), flush=True)
                if args.json:  # partial results, in case of an interruption
                    args.json.write_text(json.dumps(report(found), indent=2) + "\n")
    if args.picture:
        from benchmarks.picture import draw

        draw(found, args.picture)
    return 1 if any(each.failed for result in found for each in result.timings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, only to test that it runs"
    )
    parser.add_argument(
        "--only", metavar="TEXT", help="only workloads with this text in the name"
    )
    parser.add_argument(
        "--without",
        metavar="NAME",
        action="append",
        default=[],
        help="leave out this candidate (repeatable)",
    )
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="(default: 11)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measured times")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="write a chart (.svg or .png)"
    )
    return parser


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
