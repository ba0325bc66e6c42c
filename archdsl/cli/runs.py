"""`archdsl runs`: lists training runs, and compares them."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from archdsl.cli.common import Subparsers, add_command, add_json
from archdsl.cli.progress_line import print_json
from archdsl.cli.table import columns

if TYPE_CHECKING:
    from archdsl.training.summary import Summary

_NONE = "-"


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "runs",
        "FOLDER ...",
        "archdsl runs runs/",
        "archdsl runs runs/a runs/b --json",
    )
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        nargs="+",
        help="the folder of a run, or a folder with such folders",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from archdsl.training.summary import differing, find_runs, summarize  # imports numpy

    folders = dict.fromkeys(run for each in args.folders for run in find_runs(Path(each)))
    runs = [summarize(each) for each in folders]
    if args.json:
        found = [{n: v for n, v in asdict(each).items() if n != "spec"} for each in runs]
        print_json({"runs": found, "differing": differing(runs)}, indent=2)
        return 0
    speed = "/".join(sorted({each.unit for each in runs})) + "/s"
    names = ("run", "step", "loss", "valid", "best", speed, "time", "state")
    print("\n".join(columns([names, *map(_row, runs)])))
    rows = differing(runs)
    if rows:
        print()
        heads = ("", *(each.folder for each in runs))
        print("\n".join(columns([heads, *((n, *map(_value, row)) for n, row in rows.items())])))
    return 0


def _row(run: Summary) -> tuple[str, ...]:
    best = _NONE if run.best_valid is None else f"{run.best_valid:.4f} at {run.best_step:,}"
    return (
        run.folder,
        f"{run.step:,}/{run.steps:,}",
        _number(run.loss, ".4f"),
        _number(run.valid, ".4f"),
        best,
        _number(run.speed, ",.0f"),
        _time(run.seconds),
        run.state,
    )


def _number(number: float | None, form: str) -> str:
    return _NONE if number is None else format(number, form)


def _value(value: object) -> str:
    match value:
        case None:
            return "none"
        case tuple() | list():
            return ", ".join(map(str, value)) or "none"
    return str(value)


def _time(seconds: float) -> str:
    """
    >>> _time(3725.4), _time(9.6)
    ('1:02:05', '0:09')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
