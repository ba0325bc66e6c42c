"""`archdsl bench`: time and memory of a model on this machine, compared with transformers."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator

from archdsl.cli.common import (
    Subparsers,
    add_command,
    add_device,
    add_spec,
    add_workload,
    parse_settings,
    print_note,
    print_step,
)
from archdsl.cli.progress_line import print_json
from archdsl.cli.table import whole, wrap


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "bench",
        "FILE[:VARIANT]",
        "archdsl bench gpt2.arch:small --length 128",
        "archdsl bench llama.arch:smollm2_135M --new 64 --json > times.json",
        exit_status="1 if a candidate fails",
    )
    add_spec(parser)
    add_device(parser)
    add_workload(parser)
    parser.add_argument("--json", action="store_true", help="print all measured times as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from archdsl.bench import candidates  # imports tinygrad
    from archdsl.bench.results import format_result, measure, report

    with tempfile.TemporaryDirectory() as folder:
        model = candidates.save_subject(
            folder, args.spec, parse_settings(args), args.device, args.dtype
        )
        if not model.published:
            print_note(
                f"`{model.graph().name}` cannot be exported for transformers: no comparison"
            )
        results = []
        for workload in candidates.workloads(model, args.rows, args.length, args.new):
            results.append(measure(workload, args.rounds, print_step))
            print_step("")
            if not args.json:
                print("\n".join(_wrapped(format_result(results[-1]))), flush=True)
    if args.json:
        print_json(report(results), indent=2)
    return 1 if any(each.failed for result in results for each in result.timings) else 0


def _wrapped(text: str) -> Iterator[str]:
    """Wraps the lines of a result between its figures, which two spaces separate."""
    for line in text.splitlines():
        parts = line.strip().split("  ")
        yield from wrap("  ".join(map(whole, parts)), line[: -len(line.lstrip())], " " * 6)
