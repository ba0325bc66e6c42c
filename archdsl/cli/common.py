"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from archdsl.cli.waiting import put
from archdsl.diagnostics import fail
from archdsl.semantics.models import Setting

if TYPE_CHECKING:
    from archdsl.model import Model

TUNING = 120  # seconds, where none are given

Subparsers = argparse._SubParsersAction  # argparse names the type nowhere else


def command(
    commands: Subparsers[argparse.ArgumentParser], name: str, about: str, example: str
) -> argparse.ArgumentParser:
    """A command's parser, with an example below its help."""
    return commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_spec(parser: argparse.ArgumentParser) -> None:
    """The spec and its settings."""
    parser.add_argument("spec", metavar="FILE[:VARIANT]", help="a spec, and which model of it")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="replace a parameter of the model (repeatable)",
    )


def add_machine(parser: argparse.ArgumentParser, own: bool = False) -> None:
    """Where and how a model runs; `own`: a checkpoint in its own dtype where none is given."""
    parser.add_argument("--device", help="a device of tinygrad's, such as CPU, CUDA or CL")
    parser.add_argument(
        "--dtype",
        default=None if own else "float32",
        help="float32, float16 or bfloat16 (default: "
        + ("a checkpoint's own, a spec's float32)" if own else "%(default)s)"),
    )
    parser.add_argument(
        "--kernels",
        default="best",
        metavar="WHOSE",
        help="the best that the device has, or tinygrad's alone (default: %(default)s)",
    )
    parser.add_argument(
        "--quantize",
        metavar="KIND",
        help="int8: matrices of 8 bits, a scale for each 32 numbers; stored: as a file has them"
        " (default for a checkpoint where no --dtype is given)",
    )
    parser.add_argument(
        "--tune",
        type=_seconds,
        nargs="?",
        const=TUNING,
        metavar="SECONDS",
        help="search for quicker kernels of tinygrad's, for so long at most "
        f"(default: {TUNING}), and keep what is found for later runs",
    )
    parser.add_argument(
        "--weights", metavar="PATH", help=".safetensors, .pt, .bin, .npz or package:NAME/FILE"
    )
    parser.add_argument("--map", metavar="TITLE", help="the `weights` block that names them")
    parser.add_argument("--seed", type=int, default=0, help="of fresh weights (default: 0)")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"`{text}` are not seconds above 0, as in --tune 60")
    return seconds


def count(text: str) -> int:
    """A number of things, as an argument's type."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number above 0")
    return int(text)


def texts(given: Sequence[str]) -> list[str]:
    """Texts of a command line; `-` is the lines of standard input that are not empty."""
    found: list[str] = []
    for each in given:
        if each == "-":
            found += [line.rstrip("\n") for line in sys.stdin if line.strip()]
        else:
            found.append(each)
    return found


def settings(args: argparse.Namespace) -> dict[str, Setting]:
    """`--set` as numbers, truth values and names."""
    found: dict[str, Setting] = {}
    for each in args.set:
        name, equals, text = each.partition("=")
        if not equals or not name.strip().isidentifier() or not text.strip():
            fail("argument-value", f"--set {each}", expected="--set NAME=VALUE, as in depth=24")
        if name.strip() in found:
            fail("duplicate-name", f"--set {name.strip()} is given twice")
        found[name.strip()] = _value(text.strip())
    return found


def compiled(args: argparse.Namespace) -> Model:
    """The model that the arguments describe, with the weights of `--weights` if any."""
    from archdsl.model import build  # imports tinygrad

    dtype = args.dtype or "float32"
    how = (args.device, dtype, args.seed, args.kernels, args.quantize, args.tune)
    model = build(args.spec, None, settings(args), *how)
    if args.weights:
        model.load(args.weights, args.map)
    return model


def _value(text: str) -> Setting:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def say(message: str) -> None:
    """A remark that is not the command's result."""
    put(message, file=sys.stderr)
