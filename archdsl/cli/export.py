"""`archdsl export`: a spec and its weights to a published checkpoint."""

from __future__ import annotations

import argparse

from archdsl.analysis import analyse
from archdsl.cli.checkpoints import add_ignore
from archdsl.cli.common import Subparsers, add_command, add_spec, parse_settings, print_note

_GIGA = 10**9


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "export",
        "FILE[:VARIANT] --weights PATH --to FOLDER",
        "archdsl export my.arch --weights my.safetensors --to some/folder",
    )
    add_spec(parser)
    parser.add_argument(
        "--weights",
        required=True,
        metavar="PATH",
        help="a weights file, with the spec's names or those of a `weights` block",
    )
    parser.add_argument(
        "--to", required=True, metavar="FOLDER", help="the checkpoint: a new or empty folder"
    )
    parser.add_argument(
        "--map", metavar="TITLE", help="the `weights` block to write (default: the first)"
    )
    parser.add_argument(
        "--shard",
        type=_gigabytes,
        default=5.0,
        metavar="GB",
        help="maximum size of a file, in 10^9 bytes (default: 5)",
    )
    parser.add_argument(
        "--files",
        metavar="FOLDER",
        help="the folder with the config, the tokenizer and the other files of the checkpoint; "
        "none: write only the weights and a config (default: the folder that `archdsl import` "
        "wrote beside the weights, if it did)",
    )
    add_ignore(parser)
    parser.set_defaults(run=run)


def _gigabytes(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0
    if not 0 < size < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a size above 0; found `{text}`")
    return size


def run(args: argparse.Namespace) -> int:
    from archdsl.pretrained import export  # imports tinygrad

    analysis = analyse(args.spec, settings=parse_settings(args))
    size = int(args.shard * _GIGA)
    count, others = export(
        analysis, args.weights, args.to, args.map, size, args.files, args.ignore
    )
    more = f", and {others} other file{'s' * (others > 1)}" if others else ""
    print_note(f"wrote {args.to}: config.json, {count} tensors{more}")
    return 0
