"""The list of commands, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from archdsl.cli.progress_line import print_text
from archdsl.cli.table import wrap
from archdsl.diagnostics import fail
from archdsl.semantics.model_parameters import Setting

if TYPE_CHECKING:
    from archdsl.model import Model

GROUPS = {
    "write a spec": {
        "check": "verify a spec; print types, parameters, FLOPs and memory",
        "fmt": "format specs and keep their comments",
        "show": "print a stage: tree, typed graph, passes, program or weights",
        "expand": "print a model with all defaults, sizes and blocks written out",
        "diff": "print the differences of two models",
        "report": "write a page on a model: figure, cost, memory, kernels, time",
        "draw": "draw the figure of a model or a block: SVG, PNG, PDF, TikZ, HTML",
        "explain": "explain an error code, with examples",
        "lsp": "start the language server, for editors",
    },
    "run a model": {
        "run": "run one forward pass on arrays from .npy files",
        "generate": "continue a text; stream the new tokens",
        "chat": "chat with a model in the terminal",
        "translate": "translate text with an encoder-decoder",
        "classify": "classify images",
        "play": "write a spec in the browser; see its figure and cost; run it",
        "attend": "draw what the heads of a layer attend to",
        "embed": "turn texts into embedding vectors",
        "transcribe": "turn speech into text",
    },
    "train a model": {
        "train": "train a model on data; resume a run; print what a run needs",
        "runs": "list training runs, and compare them",
    },
    "convert published weights": {
        "import": "convert a published checkpoint to a spec and its weights",
        "export": "convert a spec and its weights to a published checkpoint",
        "merge": "add a low-rank adapter to the weights of a checkpoint",
        "audit": "list what a loader could do wrong with a checkpoint, silently",
    },
    "measure": {
        "score": "compute the perplexity of a text",
        "bench": "measure time and memory; compare with transformers if installed",
        "doctor": "list the devices of this machine, and what others need",
    },
    "connect a tool": {
        "completion": "print a script with which a shell completes commands",
        "mcp": "serve an agent over the Model Context Protocol",
    },
}
"""All commands by purpose, each with its one-line summary."""

FIRST_STEPS = (
    "archdsl check gpt.arch",
    "archdsl draw gpt.arch -o gpt.svg",
    "archdsl train gpt.arch --data texts/ --set depth=6 -o runs/gpt",
)
"""The first commands of a newcomer: see a model's facts, see its figure, train it."""

DEFAULT_TUNING = 120  # seconds, for --tune without a number

Subparsers = argparse._SubParsersAction  # argparse has no public name for this type


def add_command(
    commands: Subparsers[argparse.ArgumentParser],
    name: str,
    arguments: str,
    *examples: str,
    exit_status: str = "",
) -> argparse.ArgumentParser:
    """Adds a command. Its help has its summary first and its examples last."""
    summary = next(group[name] for group in GROUPS.values() if name in group)
    title = "example:" if len(examples) == 1 else "examples:"
    epilog = "\n".join([title, *(f"  {example}" for example in examples)])
    if exit_status:
        status = "\n".join(wrap(exit_status, "exit status: ", "  "))
        epilog = f"{status}\n\n{epilog}"
    return commands.add_parser(
        name,
        usage=f"archdsl {name} [OPTION ...] {arguments}".rstrip(),
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Adds the spec and `--set`."""
    parser.add_argument(
        "spec",
        metavar="FILE[:VARIANT]",
        help="a spec, and one of its models or variants; names of the standard library such as "
        "gpt2.arch:xl work from any folder",
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set a parameter of the spec's model, as in --set depth=24 (repeatable)",
    )


def add_json(parser: argparse._ActionsContainer, per: str = "") -> None:
    text = f"print one line of JSON for each {per}" if per else "print the result as JSON"
    parser.add_argument("--json", action="store_true", help=text)


def add_device(options: argparse._ActionsContainer, checkpoint: bool = False) -> None:
    """Adds the device and the dtype; a `checkpoint` has its own dtype by default."""
    options.add_argument(
        "--device",
        metavar="NAME",
        help="a tinygrad device, such as CPU, CUDA or CL; `archdsl doctor` lists them "
        "(default: $DEV, or the first device that runs)",
    )
    options.add_argument(
        "--dtype",
        metavar="DTYPE",
        default=None if checkpoint else "float32",
        help="of the weights: float32, float16 or bfloat16 (default: "
        + ("that of the checkpoint; float32 for a spec)" if checkpoint else "%(default)s)"),
    )


def add_workload(options: argparse._ActionsContainer) -> None:
    """Adds the sizes of what is measured, and how often it is."""
    for name, default, about in (
        ("--rows", 1, "rows of the batch in the forward pass"),
        ("--length", 128, "tokens of the inputs and of the prompt"),
        ("--new", 16, "tokens to decode after the prompt"),
        ("--rounds", 9, "measured runs of each candidate"),
    ):
        options.add_argument(
            name,
            type=positive_integer,
            default=default,
            metavar="N",
            help=f"{about} (default: {default})",
        )


def add_runtime(parser: argparse.ArgumentParser, checkpoint: bool = False) -> None:
    """Adds the options of weights, device and kernels."""
    weights = parser.add_argument_group("weights of a spec")
    weights.add_argument(
        "--weights",
        metavar="PATH",
        help=".safetensors, .pt, .bin, .npz, .gguf or package:NAME/FILE "
        "(default: random weights)",
    )
    weights.add_argument(
        "--map",
        metavar="TITLE",
        help="the spec's `weights` block that matches the tensor names (default: the one that "
        "fits)",
    )
    weights.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of random weights (default: 0)"
    )
    device = parser.add_argument_group("device and kernels")
    add_device(device, checkpoint)
    device.add_argument(
        "--kernels",
        default="best",
        metavar="KIND",
        help="best: the fastest for the device; tinygrad: only tinygrad's "
        "(default: %(default)s)",
    )
    device.add_argument(
        "--quantize",
        metavar="KIND",
        help="int8: 8-bit matrices with a scale per 32 numbers; stored: keep the quantized "
        "matrices of the file (default: stored for a checkpoint without --dtype, else none)",
    )
    device.add_argument(
        "--tune",
        type=_seconds,
        nargs="?",
        const=DEFAULT_TUNING,
        metavar="SECONDS",
        help="search for faster tinygrad kernels for at most SECONDS, and store them for later "
        f"runs (SECONDS without a value: {DEFAULT_TUNING}; default: no search)",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected seconds above 0, as in --tune 60; found `{text}`"
        )
    return seconds


def positive_integer(text: str) -> int:
    """Parses an argument that must be 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0; found `{text}`")
    return int(text)


def read_texts(arguments: Sequence[str]) -> list[str]:
    """Returns the texts of a command line; `-` stands for the non-empty lines of stdin."""
    found: list[str] = []
    for each in arguments:
        if each == "-":
            found += [line.rstrip("\n") for line in sys.stdin if line.strip()]
        else:
            found.append(each)
    return found


def parse_settings(args: argparse.Namespace) -> dict[str, Setting]:
    """Parses `--set` to numbers, booleans and names."""
    found: dict[str, Setting] = {}
    for each in args.set:
        name, equals, text = each.partition("=")
        if not equals or not name.strip().isidentifier() or not text.strip():
            fail(
                "argument-value",
                f"--set {each}: not a setting",
                expected="--set NAME=VALUE, as in --set depth=24",
            )
        if name.strip() in found:
            fail("duplicate-name", f"--set {name.strip()} is given twice")
        found[name.strip()] = _parse_value(text.strip())
    return found


def compile_model(args: argparse.Namespace) -> Model:
    """Compiles the spec of the arguments, and loads `--weights` if given."""
    from archdsl.model import build  # imports tinygrad

    check_map(args)
    dtype = args.dtype or "float32"
    options = (args.device, dtype, args.seed, args.kernels, args.quantize, args.tune)
    model = build(args.spec, None, parse_settings(args), *options)
    if args.weights:
        model.load(args.weights, args.map)
    return model


def check_map(args: argparse.Namespace) -> None:
    """Refuses `--map` without the weights that it is for."""
    if args.map and not args.weights:
        fail(
            "argument-value", "--map names the tensors of --weights", help="add --weights PATH"
        )


def _parse_value(text: str) -> Setting:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def print_step(step: str) -> None:
    """Shows a step of a measurement in one line of a terminal; "" clears it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{step}", end="", file=sys.stderr, flush=True)


def print_note(message: str) -> None:
    """Prints a note on stderr; stdout has only the result."""
    print_text(message, file=sys.stderr)
