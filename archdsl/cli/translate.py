"""`archdsl translate`: text to text with an encoder-decoder, greedy or by beam search."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from archdsl.cli import checkpoints
from archdsl.cli.common import Subparsers, command, compiled, say, texts
from archdsl.cli.waiting import put
from archdsl.diagnostics import fail

if TYPE_CHECKING:
    from archdsl.generation.beam_search import EarlyStopping, Search
    from archdsl.model import Model

_ENDS = ("bos", "eos", "pad")
_EARLY_STOPPING: dict[str, EarlyStopping] = {"true": True, "false": False, "never": "never"}


class _Translator(NamedTuple):
    """A model, how text becomes its tokens and they text, and how targets are looked for."""

    model: Model
    encode: Callable[[str], list[int]]
    decode: Callable[[Iterable[int]], str]
    search: Search


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "translate",
        "turn text into text with an encoder-decoder",
        "archdsl translate some/folder 'a text' --beams 5\n"
        "  archdsl translate my.arch 'a text' --weights w.npz --vocab tokens.txt --beams 5",
    )
    checkpoints.add_checkpoint(parser)
    parser.add_argument("text", nargs="+", help="sources; `-` is the lines of standard input")
    parser.add_argument(
        "--tokenizer", metavar="PATH", help="a checkpoint's (default: what its folder has)"
    )
    parser.add_argument(
        "--vocab",
        metavar="PATH",
        help="a spec's tokens: a line each (.txt), .json, a plain .pkl, or package:NAME/FILE",
    )
    for end in _ENDS:
        parser.add_argument(
            f"--{end}", metavar="TOKEN", help="its name in --vocab, where it is not a usual one"
        )
    of = parser.add_argument_group(
        "search", "A checkpoint's folder says how it is made; what is given here counts more."
    )
    of.add_argument("--beams", type=int, metavar="N", help="1 is greedy (a spec's default)")
    of.add_argument(
        "--best", type=int, metavar="N", help="print the N best (default: a spec's beams, or 1)"
    )
    of.add_argument("--max-length", type=int, metavar="TOKENS", help="with both ends")
    of.add_argument(
        "--length-penalty",
        type=float,
        metavar="A",
        help="divide a score by ((N + length) / (N + 1)) ** A (a spec's default: 0)",
    )
    of.add_argument(
        "--length-offset", type=float, metavar="N", help="(default: 0; Wu et al. 2016: 5)"
    )
    of.add_argument(
        "--early-stopping",
        choices=_EARLY_STOPPING,
        help="stop when N sequences have ended (true), when also the live ones score lower "
        "at their current length (false), or when they cannot score higher at any length "
        "(never)",
    )
    parser.add_argument(
        "--together", type=int, default=8, metavar="N", help="sources in a batch (default: 8)"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each source")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    model, encode, decode, search = (
        _of_spec(args) if checkpoints.is_spec(args.spec) else _of_folder(args)
    )
    from archdsl.tasks.translate import translate

    search = _asked(search, args)
    sources = texts(args.text)
    found = translate(model, [encode(text) for text in sources], search, args.together)
    for text, hypotheses in zip(sources, found, strict=True):
        rows = [(decode(h.tokens), h) for h in hypotheses]
        if args.json:
            told = [
                {
                    "text": target,
                    "score": h.score,
                    "penalised": h.penalised(search.penalty),
                    "finished": h.finished,
                }
                for target, h in rows
            ]
            put(json.dumps({"source": text, "hypotheses": told}))
            continue
        if len(sources) > 1:
            put(text)
        width = max(len(target) for target, _ in rows)
        for target, h in rows:
            end = "" if h.finished else "  (cut off)"
            put(f"{target:<{width}}  {h.score:9.4f}{end}")
    return 0


def _of_spec(args: argparse.Namespace) -> _Translator:
    """By a spec, a file of weights and one of tokens."""
    _only(args, ("tokenizer",), "goes with a checkpoint, not a spec")
    if not args.vocab:
        fail(
            "argument-value",
            f"`{args.spec}` is a spec, which has no tokens",
            expected="--vocab PATH",
        )
    model = compiled(args)
    from archdsl.formats import resolve
    from archdsl.generation.beam_search import Search
    from archdsl.tasks.translate import roles
    from archdsl.text.vocabulary_tokenizer import read_vocabulary

    bound = roles(model.graph).target_bound
    given = {end: getattr(args, end) for end in _ENDS}
    tokenizer = read_vocabulary(resolve(args.vocab), **given)
    if not args.weights:
        say("no --weights: the weights are drawn at random, and so is the text")
    encode = partial(tokenizer.encode, bos=True, eos=True)
    search = Search(tokenizer.bos, (tokenizer.eos,), bound)
    return _Translator(model, encode, tokenizer.decode, search)


def _of_folder(args: argparse.Namespace) -> _Translator:
    """By a published folder alone."""
    _only(args, ("vocab", *_ENDS), "goes with a spec, not a checkpoint")
    from archdsl.formats import resolve
    from archdsl.generation.generation_config import SEARCH, read_generation_config
    from archdsl.tasks.translate import roles
    from archdsl.text.tokenizer import read_tokenizer

    tokenizer = read_tokenizer(args.tokenizer or args.spec)
    model = checkpoints.opened(args)
    config = read_generation_config(resolve(args.spec), SEARCH)
    search = config.search(roles(model.graph).target_bound)
    return _Translator(model, tokenizer.encode, tokenizer.decode, search)


def _only(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    for name in names:
        if getattr(args, name) is not None:
            fail("argument-value", f"--{name} {why}")


def _asked(search: Search, args: argparse.Namespace) -> Search:
    """The search with what the arguments say of it."""
    penalty: dict[str, Any] = {"alpha": args.length_penalty, "offset": args.length_offset}
    given = {name: getattr(args, name) for name in ("beams", "best", "max_length")}
    changes = {name: value for name, value in given.items() if value is not None}
    if args.early_stopping:
        changes["early_stopping"] = _EARLY_STOPPING[args.early_stopping]
    known = {name: value for name, value in penalty.items() if value is not None}
    return replace(search, **changes, penalty=replace(search.penalty, **known))
