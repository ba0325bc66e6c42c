"""What `generate`, `chat` and `score` have in common: a model with its tokenizer, and how the
next token is chosen."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from archdsl.cli import checkpoints
from archdsl.diagnostics import ArchError, fail

if TYPE_CHECKING:
    from archdsl.generation.generation_config import GenerationConfig
    from archdsl.generation.sampling import Sampling
    from archdsl.model import Model
    from archdsl.text.tokenizer import TextTokenizer

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
    """How the next token is chosen, and how many there are at most; `tokens` and `temperature`
    count where neither the command nor the checkpoint says."""
    parser.conflict_handler = "resolve"  # `--seed` is of weights alone elsewhere
    parser.set_defaults(usual_tokens=tokens, usual_temperature=temperature)
    of = parser.add_argument_group(
        "choice of tokens",
        "A checkpoint's generation_config.json says how tokens are chosen, as in\n"
        "transformers: the likeliest where it does not say do_sample. What is given here\n"
        "counts more.",
    )
    of.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help=f"(default: the checkpoint's, or {tokens})",
    )
    of.add_argument(
        "--temperature",
        type=float,
        help=f"0 is greedy (default: the checkpoint's, or {temperature})",
    )
    of.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="of the K likeliest alone (default: the checkpoint's, or all)",
    )
    of.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="of those that reach P together (default: the checkpoint's, or all)",
    )
    of.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="of P times the likeliest or more (default: the checkpoint's, or all)",
    )
    of.add_argument(
        "--repetition-penalty",
        type=float,
        metavar="R",
        help="over 1 makes tokens seen before rarer (default: the checkpoint's, or 1)",
    )
    of.add_argument(
        "--ignore-generation-config",
        action="store_true",
        help="as if the checkpoint did not say how tokens are chosen",
    )
    of.add_argument("--seed", type=int, default=0, help="same seed, same text (default: 0)")


class Choice(NamedTuple):
    """What a checkpoint says of decoding, and how tokens are chosen after all."""

    config: GenerationConfig
    sampling: Sampling


def choice(args: argparse.Namespace) -> Choice:
    """What `add_sampling` was given, and else what the checkpoint says."""
    from archdsl.formats import resolve
    from archdsl.generation import generation_config as configs

    config = configs.GenerationConfig()
    if not args.ignore_generation_config:
        config = configs.read_generation_config(resolve(args.spec), configs.TEXT)
    sampling = config.sampling(
        args.usual_temperature,
        args.temperature,
        args.top_k,
        args.top_p,
        args.min_p,
        args.repetition_penalty,
    )
    return Choice(config, sampling)


def asked(
    args: argparse.Namespace,
    choice: Choice,
    tokenizer: TextTokenizer,
    limit: int | None,
    stop_tokens: Iterable[int] = (),
) -> dict[str, Any]:
    """Returns the arguments of `stream_text`. `limit` is the length of the model's context,
    `stop_tokens` are end tokens in addition to the checkpoint's."""
    config = choice.config
    ends = (*tokenizer.eos, *config.eos_token_id, *stop_tokens)
    most, longest = _lengths(args, config, limit)
    return {
        "max_new_tokens": most,
        "max_length": longest,
        "sampling": choice.sampling,
        "seed": args.seed,
        "stop_tokens": ends,
        "stop_strings": config.stop_strings,
        "processors": config.processors(ends),
    }


def _lengths(
    args: argparse.Namespace, config: GenerationConfig, limit: int | None
) -> tuple[int, int | None]:
    """How many tokens are made at most, and how many there are then with the prompt, where that
    is said."""
    for most in (args.max_new_tokens, config.max_new_tokens):
        if most is not None:
            return most, None
    if config.max_length is None:
        return args.usual_tokens, None
    longest = min(config.max_length, limit or config.max_length)
    return longest, longest


def opened(args: argparse.Namespace) -> tuple[Model, TextTokenizer]:
    """The model and the tokenizer of the arguments."""
    if checkpoints.is_spec(args.spec) and not args.tokenizer:
        fail(
            "argument-value",
            f"`{args.spec}` is a spec, which has no tokenizer",
            expected="--tokenizer PATH",
        )
    from archdsl.text.tokenizer import read_tokenizer

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
