"""The argument of the commands that do a model's job: a published checkpoint, or a spec."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import archdsl
from archdsl.cli.common import add_machine, compiled
from archdsl.diagnostics import fail

if TYPE_CHECKING:
    from archdsl.model import Model


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The checkpoint, and where and how it runs."""
    parser.add_argument(
        "spec",
        metavar="CHECKPOINT",
        help="a folder with config.json and weights, package:NAME/FOLDER, or a spec "
        "FILE[:VARIANT] with --weights",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="replace a parameter of a spec's model (repeatable)",
    )
    add_machine(parser, own=True)


def opened(args: argparse.Namespace) -> Model:
    """The model of the checkpoint, with its weights."""
    if is_spec(args.spec):
        if not args.weights:
            fail(
                "argument-value",
                f"`{args.spec}` is a spec, which has no weights",
                help="give them by --weights, or name the folder of a checkpoint",
            )
        return compiled(args)
    for name in ("weights", "map", "set"):
        if getattr(args, name):
            fail("argument-value", f"--{name} goes with a spec, not a checkpoint")
    return archdsl.from_pretrained(
        args.spec,
        device=args.device,
        dtype=args.dtype,
        kernels=args.kernels,
        quantize=args.quantize,
        tune=args.tune,
    )


def is_spec(path: str) -> bool:
    """Whether a path is a spec's, perhaps with a variant.

    >>> is_spec("whisper.arch:tiny_en"), is_spec("package:name/folder")
    (True, False)
    """
    return path.endswith(".arch") or ".arch:" in path
