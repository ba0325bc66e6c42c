"""`archdsl report`: one page of HTML that says what is known of a model."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from archdsl.analysis import analyse
from archdsl.cli.common import (
    Subparsers,
    add_command,
    add_device,
    add_json,
    add_spec,
    add_workload,
    parse_settings,
    positive_integer,
    print_note,
    print_step,
)
from archdsl.cli.progress_line import print_json
from archdsl.diagnostics import did_you_mean, fail
from archdsl.figure.fold import fold
from archdsl.figure.layout import layout
from archdsl.figure.svg import svg
from archdsl.formats.atomic import replacing
from archdsl.report.data import report_data
from archdsl.report.page import report_page

SUFFIXES = (".html", ".htm")
_OF_TIME = ("device", "dtype", "rows", "length", "new", "rounds")  # the options of --measure


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "report",
        "FILE[:VARIANT]",
        "archdsl report gpt2.arch:small -o gpt2.html",
        "archdsl report llama.arch:smollm2_135M --measure --length 256",
        exit_status="1 if the spec has errors, or a measured run fails",
    )
    add_spec(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        default="report.html",
        help="the page to write (default: %(default)s)",
    )
    add_json(output)
    parser.add_argument(
        "--blocks",
        metavar="LEVELS",
        type=positive_integer,
        default=2,
        help="levels of blocks in the table (default: %(default)s)",
    )
    parser.add_argument(
        "--no-program", action="store_true", help="leave out the program and its kernels"
    )
    time = parser.add_argument_group(
        "time", "Needs the memory of the model; its weights are random."
    )
    time.add_argument(
        "--measure",
        action="store_true",
        help="run the model on this machine, and compare the expected with the measured time",
    )
    add_device(time)
    add_workload(time)
    defaults = {name: parser.get_default(name) for name in _OF_TIME}
    parser.set_defaults(run=run, without_measure=defaults)


def run(args: argparse.Namespace) -> int:
    if Path(args.output).suffix.lower() not in SUFFIXES:
        fail(
            "argument-value",
            f"-o {args.output}: the suffix does not name a page of HTML",
            expected=" or ".join(SUFFIXES),
            help=did_you_mean(Path(args.output).suffix, SUFFIXES),
        )
    given = {
        name for name, default in args.without_measure.items() if getattr(args, name) != default
    }
    if given and not args.measure:
        fail(
            "argument-value",
            f"--{min(given)} is an option of a measured run, and nothing is measured",
            help="add --measure",
        )
    settings = parse_settings(args)
    graph = analyse(args.spec, settings=settings).graph
    data = report_data(graph, args.blocks, not args.no_program)
    if args.measure:
        data["measured"] = _measure(args, settings)
    if args.json:
        print_json(data, indent=2)
    else:
        figure = svg(layout(fold(graph)))
        with replacing(args.output) as path:
            path.write_text(report_page(data, figure, _command(args)), encoding="utf-8")
        print_note(f"wrote {args.output}")
    failed = [
        each["failed"]
        for workload in data.get("measured", {}).get("workloads", ())
        for each in workload["candidates"]
        if each.get("failed")
    ]
    for each in failed:
        print_note(f"the measured run failed: {each}")
    return 1 if failed else 0


def _measure(args: argparse.Namespace, settings: Any) -> dict[str, Any]:
    from archdsl.bench.candidates import Subject  # imports tinygrad
    from archdsl.report.measured import measure_times

    subject = Subject(args.spec, settings, device=args.device, dtype=args.dtype)
    found = measure_times(subject, args.rows, args.length, args.new, args.rounds, print_step)
    print_step("")
    return found


def _command(args: argparse.Namespace) -> str:
    """The command line of the model, for the page."""
    settings = [word for each in args.set for word in ("--set", each)]
    return shlex.join(["archdsl", "report", args.spec, *settings])
