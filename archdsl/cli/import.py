"""`archdsl import`: a published checkpoint as a spec, its weights under the spec's names."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from archdsl.cli.common import Subparsers, command, say
from archdsl.diagnostics import fail


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "import",
        "write the spec of a published checkpoint",
        "archdsl import some/folder -o my.arch --weights my.safetensors",
    )
    parser.add_argument(
        "checkpoint",
        help="a folder with config.json and weights, a .gguf file, or package:NAME/inner",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the spec (default: print it)")
    parser.add_argument("--weights", metavar="FILE", help="the weights too, as .safetensors")
    parser.add_argument("--spec", help="the spec that knows it (default: one of the library)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from archdsl.formats import write_safetensors
    from archdsl.formats.atomic import replacing
    from archdsl.pretrained import describe
    from archdsl.syntax.printer import format

    _check(args)
    spec, weights = describe(args.checkpoint, args.spec)
    text = format(spec)
    if args.output is None:
        print(text, end="")
    with replacing(args.output) if args.output else nullcontext() as temporary:
        if temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        if args.weights:
            write_safetensors(args.weights, weights)
            say(f"wrote {args.weights}: {len(weights)} weights")
    if args.output:
        say(f"wrote {args.output}: `archdsl check {args.output}` tells what it is")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses what would be lost or could not be read again."""
    problem = None
    if args.weights and not args.weights.endswith(".safetensors"):
        problem = f"--weights {args.weights}: the weights are written as .safetensors"
    if "" in (args.weights, args.output, args.spec, args.checkpoint):
        problem = "an empty path names nothing"
    if problem:
        fail("file", problem)
