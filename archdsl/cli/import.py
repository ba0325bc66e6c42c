"""`archdsl import`: a published checkpoint as a spec, its weights under the spec's names."""

from __future__ import annotations

import argparse

from archdsl.cli.common import Subparsers, command, say


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
    from archdsl.runtime.pretrained import describe
    from archdsl.syntax.printer import format

    spec, weights = describe(args.checkpoint, args.spec)
    text = format(spec)
    if args.weights:
        write_safetensors(args.weights, weights)
        say(f"wrote {args.weights}: {len(weights)} weights")
    if args.output is None:
        print(text, end="")
        return 0
    with replacing(args.output) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    say(f"wrote {args.output}: `archdsl check {args.output}` tells what it is")
    return 0
