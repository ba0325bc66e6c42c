"""`archdsl import`: a published checkpoint to a spec, and weights with the spec's names."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from archdsl.cli.checkpoints import add_ignore
from archdsl.cli.common import Subparsers, add_command, print_note
from archdsl.diagnostics import fail
from archdsl.formats import write_safetensors
from archdsl.formats.atomic import replacing
from archdsl.syntax.printer import format


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "import",
        "CHECKPOINT",
        "archdsl import some/folder -o my.arch --weights my.safetensors",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a folder with config.json and weights, a .gguf file, or package:NAME/PATH for "
        "either in an installed package",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE.arch",
        help="write the spec to a file (default: print it)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE.safetensors",
        help="write the weights, with the spec's names (default: only the spec)",
    )
    parser.add_argument(
        "--spec",
        metavar="FILE",
        help="the spec that can read the checkpoint (default: found in the standard library)",
    )
    add_ignore(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from archdsl.pretrained import describe  # imports tinygrad

    _check_paths(args)
    spec, weights = describe(args.checkpoint, args.spec, args.ignore)
    text = format(spec)
    if args.output is None:
        print(text, end="")
    with replacing(args.output) if args.output else nullcontext() as temporary:
        if temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        if args.weights:
            write_safetensors(args.weights, weights)
            print_note(f"wrote {args.weights}: {len(weights)} weights")
    if args.output:
        print_note(
            f"wrote {args.output}; `archdsl check {args.output}` prints its types and size"
        )
    return 0


def _check_paths(args: argparse.Namespace) -> None:
    """Reports paths that cannot be written or read, before any work."""
    if args.weights and not args.weights.endswith(".safetensors"):
        fail(
            "file",
            f"--weights {args.weights}: the weights are written as .safetensors",
            expected="a file name that ends in .safetensors",
        )
    if "" in (args.weights, args.output, args.spec, args.checkpoint):
        fail("file", "a path is empty", expected="the name of a file or a folder")
