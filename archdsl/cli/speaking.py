"""What `generate`, `chat` and `score` have in common: a model with its tokenizer, and how the
next token is chosen."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from archdsl.cli import checkpoints
from archdsl.diagnostics import ArchError, fail

if TYPE_CHECKING:
    from archdsl.runtime.model import Model
    from archdsl.runtime.sampling import Sampling
    from archdsl.runtime.texts import TextTokenizer

T = TypeVar("T")


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model and its tokenizer, and where it runs."""
    checkpoints.add_checkpoint(parser)
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="tokenizer.json, a folder, .tiktoken, .gguf, a plain list of tokens (.txt, a line "
        "each) or package:NAME/inner (default: CHECKPOINT)",
    )


def add_sampling(parser: argparse.ArgumentParser, tokens: int, temperature: float) -> None:
    """How the next token is chosen, and how many there are at most."""
    parser.conflict_handler = "resolve"  # `--seed` is of weights alone elsewhere
    of = parser.add_argument_group("choice of tokens")
    of.add_argument(
        "--max-new-tokens",
        type=int,
        default=tokens,
        metavar="N",
        help="(default: %(default)s)",
    )
    of.add_argument(
        "--temperature",
        type=float,
        default=temperature,
        help="0 is greedy (default: %(default)s)",
    )
    of.add_argument("--top-k", type=int, metavar="K", help="of the K likeliest alone")
    of.add_argument("--top-p", type=float, metavar="P", help="of those that reach P together")
    of.add_argument("--min-p", type=float, metavar="P", help="of P times the likeliest or more")
    of.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="R",
        help="over 1 makes tokens seen before rarer (default: 1)",
    )
    of.add_argument("--seed", type=int, default=0, help="same seed, same text (default: 0)")


def sampling(args: argparse.Namespace) -> Sampling:
    """What `add_sampling` was given."""
    from archdsl.runtime.sampling import Sampling

    return Sampling(
        args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty
    )


def opened(args: argparse.Namespace) -> tuple[Model, TextTokenizer]:
    """The model and the tokenizer of the arguments."""
    if checkpoints.is_spec(args.spec) and not args.tokenizer:
        fail(
            "argument-value",
            f"`{args.spec}` is a spec, which has no tokenizer",
            expected="--tokenizer PATH",
        )
    from archdsl.runtime.texts import read_tokenizer

    tokenizer = read_tokenizer(args.tokenizer or args.spec)  # it is the quicker one to fail
    return checkpoints.opened(args), tokenizer


def begun(pieces: Iterator[T], count: int) -> Iterator[T]:
    """The pieces, the first `count` of them together: those that wait for a compiler.

    >>> made = iter(range(4))
    >>> next(begun(made, 2)), next(made)
    (0, 2)
    """
    first: list[T] = []
    try:
        first.extend(islice(pieces, count))
    except ArchError:
        yield from first
        raise
    yield from first
    yield from pieces
