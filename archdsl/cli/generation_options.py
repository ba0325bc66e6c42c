"""The options of `generate`, `chat` and `score`: the model, its tokenizer, and sampling."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from archdsl.cli import checkpoints
from archdsl.diagnostics import ArchError, fail
from archdsl.formats import resolve
from archdsl.generation.generation_config import TEXT, GenerationConfig, read_generation_config
from archdsl.generation.sampling import Sampling
from archdsl.text.tokenizer import TextTokenizer, read_tokenizer

if TYPE_CHECKING:
    from archdsl.model import Model

T = TypeVar("T")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the checkpoint and its tokenizer."""
    checkpoints.add_checkpoint(parser)
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="a folder, tokenizer.json, .tiktoken or .gguf file, a list of tokens (.txt, one "
        "per line), or package:NAME/PATH (default: CHECKPOINT)",
    )


def add_sampling(parser: argparse.ArgumentParser, tokens: int, temperature: float) -> None:
    """Adds the sampling options. `tokens` and `temperature` are the defaults if neither the
    command line nor the checkpoint sets them."""
    parser.conflict_handler = "resolve"  # replaces `--seed` of random weights
    parser.set_defaults(default_tokens=tokens, default_temperature=temperature)
    group = parser.add_argument_group(
        "sampling",
        "Defaults come from the checkpoint's generation_config.json, as in\n"
        "transformers: greedy unless do_sample is true. Options here override it.",
    )
    group.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help=f"stop after N new tokens (default: the checkpoint's, or {tokens})",
    )
    group.add_argument(
        "--temperature",
        type=float,
        metavar="X",
        help="divide the logits by X; 0 is greedy "
        f"(default: the checkpoint's, or {temperature})",
    )
    group.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="sample from the K most likely tokens; 0: from all (default: the checkpoint's, or "
        "all)",
    )
    group.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="sample from the fewest tokens with a total probability of P, 0 to 1 "
        "(default: the checkpoint's, or all)",
    )
    group.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="sample from tokens at least P times as likely as the most likely one, 0 to 1 "
        "(default: the checkpoint's, or all)",
    )
    group.add_argument(
        "--repetition-penalty",
        type=float,
        metavar="R",
        help="above 1 makes earlier tokens less likely (default: the checkpoint's, or 1)",
    )
    group.add_argument(
        "--ignore-generation-config",
        action="store_true",
        help="ignore generation_config.json",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of sampling; the same seed gives the same text (default: 0)",
    )


class DecodingOptions(NamedTuple):
    """The generation config of a checkpoint, and the sampling after the command line."""

    config: GenerationConfig
    sampling: Sampling


def read_decoding_options(args: argparse.Namespace) -> DecodingOptions:
    """Combines the arguments of `add_sampling` with the checkpoint's generation config."""
    config = GenerationConfig()
    if not args.ignore_generation_config:
        config = read_generation_config(
            resolve(checkpoints.find_files(args) or args.spec), TEXT
        )
    sampling = config.sampling(
        args.default_temperature,
        args.temperature,
        args.top_k,
        args.top_p,
        args.min_p,
        args.repetition_penalty,
    )
    return DecodingOptions(config, sampling)


def generation_arguments(
    args: argparse.Namespace,
    options: DecodingOptions,
    tokenizer: TextTokenizer,
    limit: int | None,
    stop_tokens: Iterable[int] = (),
) -> dict[str, Any]:
    """Returns the arguments of `stream_text`. `limit` is the length of the model's context,
    `stop_tokens` are end tokens in addition to the checkpoint's."""
    config = options.config
    ends = (*tokenizer.eos, *config.eos_token_id, *stop_tokens)
    max_new_tokens, max_length = _lengths(args, config, limit)
    return {
        "max_new_tokens": max_new_tokens,
        "max_length": max_length,
        "sampling": options.sampling,
        "seed": args.seed,
        "stop_tokens": ends,
        "stop_strings": config.stop_strings,
        "processors": config.processors(ends),
    }


def _lengths(
    args: argparse.Namespace, config: GenerationConfig, limit: int | None
) -> tuple[int, int | None]:
    """Returns `max_new_tokens` and `max_length`."""
    for count in (args.max_new_tokens, config.max_new_tokens):
        if count is not None:
            return count, None
    if config.max_length is None:
        return args.default_tokens, None
    longest = min(config.max_length, limit or config.max_length)
    return longest, longest


def load_model_and_tokenizer(args: argparse.Namespace) -> tuple[Model, TextTokenizer]:
    """Loads the model and the tokenizer of the arguments."""
    tokenizer = read_tokenizer(tokenizer_path(args))  # first, because it fails faster
    return checkpoints.load_model(args), tokenizer


def tokenizer_path(args: argparse.Namespace) -> str:
    """Returns the path of the tokenizer of the arguments; `ArchError` if there is none."""
    source: str | None = args.tokenizer or checkpoints.find_tokenizer(args)
    if source is None:
        kind = "spec" if checkpoints.is_spec(args.spec) else "run without texts"
        fail(
            "argument-value",
            f"`{args.spec}` is a {kind}, which has no tokenizer",
            expected="--tokenizer PATH",
        )
    return source


def buffer_first(items: Iterator[T], count: int) -> Iterator[T]:
    """Yields the items; the first `count` are computed before the first one is yielded.

    Their kernels are compiled meanwhile, so the output does not stop after its first token.

    >>> numbers = iter(range(4))
    >>> next(buffer_first(numbers, 2)), next(numbers)
    (0, 2)
    """
    first: list[T] = []
    try:
        first.extend(islice(items, count))
    except ArchError:
        yield from first
        raise
    yield from first
    yield from items
