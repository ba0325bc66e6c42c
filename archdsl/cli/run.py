"""`archdsl run`: one forward pass on arrays from .npy files."""

from __future__ import annotations

import argparse
from typing import Any

from archdsl.cli.common import (
    Subparsers,
    add_command,
    add_json,
    add_runtime,
    add_spec,
    compile_model,
)
from archdsl.cli.progress_line import print_json
from archdsl.diagnostics import fail
from archdsl.formats import write_npz
from archdsl.formats.npz import read_npy


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "run",
        "FILE[:VARIANT] --input NAME=FILE.npy ...",
        "archdsl run gpt.arch --input tokens=tokens.npy --output out.npz",
        "archdsl run gpt.arch --input tokens=tokens.npy --json",
    )
    add_spec(parser)
    parser.add_argument(
        "--input",
        metavar="NAME=FILE.npy",
        action="append",
        default=[],
        help="an array for an input of the model, with the batch axis first (repeatable)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE.npz",
        help="write all outputs (default: only print shape, mean and std of each)",
    )
    add_json(parser)
    add_runtime(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    model = compile_model(args)
    given = dict(_read_array(each) for each in args.input)
    outputs = {name: out.numpy() for name, out in model(**given).items()}
    if args.json:
        print_json({name: _summary(out) for name, out in outputs.items()}, indent=2)
    else:
        for name, out in outputs.items():
            print("{}: {shape} mean {mean:.6g} std {std:.6g}".format(name, **_summary(out)))
    if args.output:
        write_npz(args.output, outputs)
    return 0


def _summary(out: Any) -> dict[str, Any]:
    return {"shape": list(out.shape), "mean": float(out.mean()), "std": float(out.std())}


def _read_array(argument: str) -> tuple[str, Any]:
    name, equals, path = argument.partition("=")
    if not equals:
        fail(
            "argument-value",
            f"--input {argument}: not an input",
            expected="--input NAME=FILE.npy, as in --input tokens=tokens.npy",
        )
    try:
        return name, read_npy(path)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        fail("file", f"cannot read `{path}`: {reason}", cause=error)
