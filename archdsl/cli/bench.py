"""`archdsl bench`: a model's time and memory on this machine, beside its reference's."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile

from archdsl.cli.common import Subparsers, add_spec, command, count, say, settings


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "bench",
        "time a model on this machine, beside transformers where that is installed",
        "archdsl bench gpt2.arch:small --length 128",
    )
    add_spec(parser)
    parser.add_argument("--device", help="a device of tinygrad's, such as CPU, CUDA or CL")
    parser.add_argument(
        "--dtype", default="float32", help="float32, float16 or bfloat16 (default: %(default)s)"
    )
    for name, default, about in (
        ("--rows", 1, "of a batch, for the forward pass"),
        ("--length", 128, "of the inputs, and of the prompt"),
        ("--new", 16, "tokens that are decoded behind the prompt"),
        ("--rounds", 9, "times that each takes its turn"),
    ):
        parser.add_argument(
            name,
            type=count,
            default=default,
            metavar="N",
            help=f"{about} (default: {default})",
        )
    parser.add_argument("--json", action="store_true", help="every time taken, as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from archdsl.bench import candidates
    from archdsl.bench.results import measure, report, table

    with tempfile.TemporaryDirectory() as folder:
        made = candidates.subject(folder, args.spec, settings(args), args.device, args.dtype)
        if not made.published:
            say(f"`{made.graph().name}` has no published form: nothing is timed beside it")
        found = []
        for workload in candidates.workloads(made, args.rows, args.length, args.new):
            found.append(measure(workload, args.rounds, _progress))
            _progress("")
            if not args.json:
                print(table(found[-1]), flush=True)
    if args.json:
        print(json.dumps(report(found), indent=2))
    return 1 if any(each.failed for result in found for each in result.timed) else 0


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)
