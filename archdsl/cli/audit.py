"""`archdsl audit`: what a loader could do wrong with a checkpoint without a word."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from archdsl.cli.checkpoints import add_ignore
from archdsl.cli.common import Subparsers, add_command, add_json
from archdsl.cli.progress_line import print_json
from archdsl.cli.table import wrap

if TYPE_CHECKING:
    from archdsl.audit.findings import Finding


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "audit",
        "CHECKPOINT",
        "archdsl audit some/folder",
        "archdsl audit model.gguf --json",
        exit_status="1 if a finding is `wrong`, or if the checkpoint cannot be read",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a folder with config.json and weights, a .gguf file, or package:NAME/PATH for "
        "either in an installed package; all weights are read",
    )
    add_ignore(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from archdsl.audit.findings import WRONG
    from archdsl.audit.report import audit  # imports tinygrad

    found = audit(args.checkpoint, args.ignore)
    if args.json:
        print_json([finding.as_dict() for finding in found], indent=2)
    else:
        print("\n".join(lines(args.checkpoint, found)))
    return 1 if any(finding.level == WRONG for finding in found) else 0


def lines(checkpoint: str, found: list[Finding]) -> Iterator[str]:
    """Yields the lines of the printed table."""
    for finding in found:
        yield f"{finding.level:<8}{finding.where}"
        yield from wrap(finding.what, " " * 8, " " * 10)
        yield from wrap(f"archdsl {finding.archdsl}", " " * 8, " " * 10)
    counts = Counter(finding.level for finding in found)
    total = ", ".join(f"{count} {level}" for level, count in counts.items())
    yield f"{checkpoint}: {total or 'nothing found'}"
