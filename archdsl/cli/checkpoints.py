"""The CHECKPOINT argument: a published checkpoint, or a spec with weights."""

from __future__ import annotations

import argparse
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from archdsl.cli.common import add_runtime, add_settings, compile_model, parse_settings
from archdsl.diagnostics import ArchError, fail
from archdsl.formats import resolve
from archdsl.formats.other_files import folder_of
from archdsl.training.trained import find_run

if TYPE_CHECKING:
    from archdsl.model import Model


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the checkpoint, and the options of weights, device and kernels."""
    parser.add_argument(
        "spec",
        metavar="CHECKPOINT",
        help="a folder with config.json and weights, the folder of a training run, a .gguf "
        "file, nanoGPT's ckpt.pt, package:NAME/PATH for one in an installed package, or a spec "
        "FILE[:VARIANT] with --weights",
    )
    add_settings(parser)
    add_ignore(parser)
    add_runtime(parser, checkpoint=True)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds the options of how to read a published checkpoint: its spec, settings and config."""
    parser.add_argument(
        "--spec",
        metavar="FILE",
        help="the spec that can read the checkpoint (default: found in the standard library)",
    )
    add_settings(parser)
    add_ignore(parser)


def add_ignore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="FIELD",
        help="a field of config.json that the spec does not know and the model does not depend "
        "on (may be repeated)",
    )


def load_model(args: argparse.Namespace) -> Model:
    """Loads the model of the checkpoint, with its weights."""
    if is_spec(args.spec):
        if not args.weights:
            fail(
                "argument-value",
                f"`{args.spec}` is a spec, which has no weights",
                expected="--weights PATH",
                help="or name a published checkpoint instead of a spec",
            )
        if args.ignore:
            fail(
                "argument-value",
                "--ignore works only with a published checkpoint",
                expected="a folder with config.json, or a .gguf file",
                found=f"the spec `{args.spec}`",
            )
        return compile_model(args)
    for name in ("weights", "map"):
        if getattr(args, name):
            fail(
                "argument-value",
                f"--{name} works only with a spec",
                expected="a spec FILE[:VARIANT]",
                found=f"the checkpoint `{args.spec}`",
            )
    from archdsl.pretrained import from_pretrained  # imports tinygrad

    return from_pretrained(
        args.spec,
        None,
        args.device,
        args.dtype,
        0,
        args.kernels,
        args.quantize,
        args.tune,
        args.ignore,
        parse_settings(args),
    )


def find_files(args: argparse.Namespace) -> str | None:
    """Returns the path with the tokenizer and the configs, or None if there is none.

    It is the checkpoint, or the folder that an import wrote beside the weights of a spec. A
    missing folder is an error, unless the arguments name a tokenizer.
    """
    if not is_spec(args.spec):
        run = find_run(args.spec)
        return str(run.folder if run else args.spec)
    if not args.weights or not resolve(args.weights).exists():
        return None
    named = getattr(args, "tokenizer", None)
    with suppress(ArchError) if named else nullcontext():
        folder = folder_of(resolve(args.weights), ", or pass `--tokenizer PATH`")
        return str(folder) if folder else None
    return None


def find_tokenizer(args: argparse.Namespace) -> str | None:
    """Returns the path of the tokenizer, or None if there is none."""
    if not is_spec(args.spec) and (run := find_run(args.spec)):
        return str(run.tokenizer) if run.tokenizer else None
    return find_files(args)


def is_spec(path: str) -> bool:
    """Whether a path names a spec, with or without a variant.

    >>> is_spec("whisper.arch:tiny_en"), is_spec("package:name/folder")
    (True, False)
    """
    return path.endswith(".arch") or ".arch:" in path
