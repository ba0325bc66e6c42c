"""`archdsl merge`: a published checkpoint and an adapter to a published checkpoint."""

from __future__ import annotations

import argparse

from archdsl.cli.checkpoints import add_reading
from archdsl.cli.common import (
    Subparsers,
    add_command,
    parse_settings,
    print_note,
)
from archdsl.diagnostics import fail, listing

_DTYPES = ("float32", "float16", "bfloat16")


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "merge",
        "CHECKPOINT ADAPTER -o FOLDER",
        "archdsl merge some/folder my/adapter -o merged",
        "archdsl merge model.gguf my/adapter -o merged.gguf",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a folder with config.json and weights, a .gguf file, or package:NAME/PATH for "
        "one in an installed package",
    )
    parser.add_argument(
        "adapter",
        metavar="ADAPTER",
        help="a folder with adapter_config.json and adapter_model.safetensors, as PEFT and "
        "`archdsl train` write it",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="PATH",
        help="a new folder, or a .gguf file if CHECKPOINT is one",
    )
    parser.add_argument(
        "--dtype",
        metavar="DTYPE",
        help="of the weights, or of the matrices in a .gguf file: float32, float16 or bfloat16 "
        "(default: that of CHECKPOINT; float16 if it is a .gguf file)",
    )
    parser.add_argument(
        "--files",
        metavar="FOLDER",
        help="the folder with the tokenizer and the other files of the checkpoint; none: write "
        "only the weights and a config (default: CHECKPOINT, if it is a folder)",
    )
    add_reading(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.dtype not in (None, *_DTYPES):
        fail(
            "argument-value",
            f"weights cannot be of dtype {args.dtype}",
            expected=listing(_DTYPES),
        )
    from archdsl.pretrained import merge  # imports tinygrad

    changed, count = merge(
        args.checkpoint,
        args.adapter,
        args.output,
        args.dtype,
        args.spec,
        args.files,
        args.ignore,
        parse_settings(args),
    )
    print_note(f"wrote {args.output}: {count} tensors, of which the adapter changed {changed}")
    return 0
