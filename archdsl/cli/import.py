"""`archdsl import`: a published checkpoint to a spec, and weights with the spec's names."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING

from archdsl.cli.checkpoints import add_reading
from archdsl.cli.common import (
    Subparsers,
    add_command,
    parse_settings,
    print_note,
)
from archdsl.diagnostics import fail, listing
from archdsl.formats import write_safetensors
from archdsl.formats.atomic import replacing
from archdsl.formats.other_files import carry, folder_for, metadata
from archdsl.syntax.printer import format

if TYPE_CHECKING:  # imports tinygrad
    from archdsl.pretrained import Described


_SHOWN = 4  # tensors that a note lists


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
        help="a folder with config.json and weights, a .gguf file, nanoGPT's ckpt.pt, or "
        "package:NAME/PATH for one in an installed package",
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
        help="write the weights, with the spec's names, and beside them the checkpoint's other "
        "files, in the folder FILE.files (default: only the spec)",
    )
    add_reading(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from archdsl.pretrained import describe  # imports tinygrad

    _check_paths(args)
    found = describe(args.checkpoint, args.spec, args.ignore, parse_settings(args))
    text = format(found.spec)
    if args.output is None:
        print(text, end="")
    with replacing(args.output) if args.output else nullcontext() as temporary:
        if temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        if args.weights:
            _write(args.weights, found, args.checkpoint)
    if args.output:
        print_note(
            f"wrote {args.output}; `archdsl check {args.output}` prints its types and size"
        )
    return 0


def _write(weights: str, found: Described, checkpoint: str) -> None:
    """Writes the weights, and the other files of the checkpoint beside them."""
    named = None
    if found.files:
        folder = folder_for(weights)
        carry(found.files, folder)
        named = metadata(folder)
        print_note(f"wrote {folder}: {listing(found.files, 'and')}")
    write_safetensors(weights, found.weights, named)
    print_note(f"wrote {weights}: {len(found.weights)} weights")
    if not found.files:
        print_note(f"left out: what else is in {checkpoint}, such as its tokenizer")
    if found.left_out:
        print_note(f"left out: {listing(found.left_out, 'and')}")
    if found.ignored:
        shown = list(found.ignored[:_SHOWN])
        shown += [f"{len(found.ignored) - _SHOWN} more"] if len(found.ignored) > _SHOWN else []
        print_note(f"left out: tensors that the spec does not use: {', '.join(shown)}")


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
