"""`archdsl export`: a model as a published checkpoint, config and weights."""

from __future__ import annotations

import argparse

from archdsl.cli.common import Subparsers, add_spec, command, say, settings

_GIGA = 10**9


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "export",
        "write a model as a published checkpoint",
        "archdsl export my.arch --weights my.safetensors --to some/folder",
    )
    add_spec(parser)
    parser.add_argument(
        "--weights", required=True, metavar="PATH", help="under the spec's names or a map's"
    )
    parser.add_argument("--to", required=True, metavar="FOLDER", help="a new or empty folder")
    parser.add_argument("--map", metavar="TITLE", help="the `weights` block that says how")
    parser.add_argument(
        "--shard", type=_size, default=5.0, metavar="GB", help="of a file (default: 5)"
    )
    parser.set_defaults(run=run)


def _size(text: str) -> float:
    size = float(text)
    if not 0 < size < float("inf"):
        raise argparse.ArgumentTypeError("a size above 0")
    return size


def run(args: argparse.Namespace) -> int:
    from archdsl.analysis import analyse
    from archdsl.pretrained import export

    analysis = analyse(args.spec, settings=settings(args))
    count = export(analysis, args.weights, args.to, args.map, int(args.shard * _GIGA))
    say(f"wrote {args.to}: config.json and {count} tensors")
    return 0
