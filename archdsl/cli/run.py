"""`archdsl run`: one forward pass, from arrays in files to arrays in a file."""

from __future__ import annotations

import argparse
from typing import Any

from archdsl.cli.common import Subparsers, add_machine, add_spec, command, compiled
from archdsl.diagnostics import fail


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "run",
        "compute one forward pass",
        "archdsl run gpt.arch --input tokens=tokens.npy --output out.npz",
    )
    add_spec(parser)
    parser.add_argument(
        "--input",
        metavar="NAME=FILE.npy",
        action="append",
        default=[],
        help="an input with its batch axis first (repeatable)",
    )
    parser.add_argument("--output", metavar="FILE.npz", help="where the outputs go")
    add_machine(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    model = compiled(args)
    given = dict(_array(each) for each in args.input)
    outputs = {name: out.numpy() for name, out in model(**given).items()}
    for name, out in outputs.items():
        print(f"{name}: {list(out.shape)} mean {out.mean():.6g} std {out.std():.6g}")
    if args.output:
        from archdsl.formats import write_npz

        write_npz(args.output, outputs)
    return 0


def _array(argument: str) -> tuple[str, Any]:
    import numpy as np

    name, equals, path = argument.partition("=")
    if not equals:
        fail("argument-value", f"--input {argument}", expected="--input NAME=FILE.npy")
    try:
        return name, np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        fail("file", f"`{path}` cannot be read: {reason}", cause=error)
