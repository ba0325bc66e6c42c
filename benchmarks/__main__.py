"""The command: chooses workloads, runs their races, prints and writes what was found."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from archdsl.bench.results import Standing, measured, report, table
from benchmarks import NAMES


def main(argv: list[str] | None = None) -> int:
    """Runs the races; the exit status is 1 where a contestant failed."""
    args = _parser().parse_args(argv)
    found: list[Standing] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks") as folder:
        for name in args.names or NAMES:
            own = Path(folder) / name
            own.mkdir()
            for workload in import_module(f"benchmarks.{name}").workloads(own, args.quick):
                if args.only and args.only not in workload.name:
                    continue
                left = tuple(c for c in workload.contestants if c.name not in args.without)
                workload = replace(workload, contestants=left)
                found.append(measured(workload, args.rounds, _progress))
                print(table(found[-1]), flush=True)
                if args.json:  # what there is so far, should the rest be interrupted
                    args.json.write_text(json.dumps(report(found), indent=2) + "\n")
    if args.picture:
        from benchmarks.picture import draw

        draw(found, args.picture)
    return 1 if any(each.failed for standing in found for each in standing.timed) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--only", metavar="TEXT", help="races that have this in their names")
    parser.add_argument(
        "--without",
        metavar="NAME",
        action="append",
        default=[],
        help="leave it out",
    )
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="(default: 11)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every time taken")
    parser.add_argument("--picture", type=Path, metavar="FILE", help=".svg or .png")
    return parser


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
