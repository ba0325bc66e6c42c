"""`archdsl translate`: text to text with an encoder-decoder, greedy or by beam search."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from archdsl.cli import checkpoints
from archdsl.cli.common import (
    Subparsers,
    add_command,
    add_json,
    compile_model,
    print_note,
    read_texts,
)
from archdsl.cli.progress_line import print_json, print_text
from archdsl.diagnostics import fail
from archdsl.formats import resolve
from archdsl.generation.beam_search import EarlyStopping, Search
from archdsl.generation.generation_config import SEARCH, read_generation_config
from archdsl.text.tokenizer import read_tokenizer
from archdsl.text.vocabulary_tokenizer import read_vocabulary
from archdsl.training.record_data import encode_source
from archdsl.training.trained import TrainedRun, find_run

if TYPE_CHECKING:
    from archdsl.model import Model

_SPECIAL_TOKENS = ("bos", "eos", "pad")
_EARLY_STOPPING: dict[str, EarlyStopping] = {"true": True, "false": False, "never": "never"}
_LONGEST = 512  # tokens of a translation, if no option and no generation config says more


class Translator(NamedTuple):
    """A model, its tokenizer, and the search. `piece` is the text of a token, also of a special
    one."""

    model: Model
    encode: Callable[[str], list[int]]
    decode: Callable[[Iterable[int]], str]
    piece: Callable[[int], str]
    search: Search


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "translate",
        "CHECKPOINT TEXT ...",
        "archdsl translate some/folder 'a text' --beams 5",
        "archdsl translate runs/g2p hello",
        "archdsl translate my.arch 'a text' --weights w.npz --vocab tokens.txt",
    )
    checkpoints.add_checkpoint(parser)
    parser.add_argument(
        "text", metavar="TEXT", nargs="+", help="source texts; `-` reads lines from stdin"
    )
    parser.add_argument(
        "--together",
        type=int,
        default=8,
        metavar="N",
        help="translate N sources in one batch (default: 8)",
    )
    add_json(parser, "source")
    add_tokenizer(parser)
    add_search(parser)
    parser.set_defaults(run=run)


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    """Adds the tokenizer of a checkpoint, and the vocabulary of a spec."""
    tokens = parser.add_argument_group("tokenizer")
    tokens.add_argument(
        "--tokenizer", metavar="PATH", help="of a checkpoint (default: CHECKPOINT)"
    )
    tokens.add_argument(
        "--vocab",
        metavar="PATH",
        help="of a spec: a list of tokens as .txt (one per line), .json, plain .pkl, or "
        "package:NAME/FILE",
    )
    for role, purpose in zip(_SPECIAL_TOKENS, ("start", "end", "padding"), strict=True):
        tokens.add_argument(
            f"--{role}",
            metavar="TOKEN",
            help=f"the {purpose} token in --vocab (default: the token with a usual name)",
        )


def add_search(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the beam search."""
    search = parser.add_argument_group(
        "search",
        "Defaults come from the checkpoint's generation_config.json; options given here\n"
        "override it.",
    )
    search.add_argument(
        "--beams", type=int, metavar="N", help="number of beams; 1 is greedy (spec: 1)"
    )
    search.add_argument(
        "--best",
        type=int,
        metavar="N",
        help="print the N best translations (spec: the number of beams)",
    )
    search.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="maximum tokens, start and end included (spec: the model's bound)",
    )
    search.add_argument(
        "--length-penalty",
        type=float,
        metavar="A",
        help="divide scores by ((N + length) / (N + 1)) ** A, where N is --length-offset "
        "(spec: 0)",
    )
    search.add_argument(
        "--length-offset",
        type=float,
        metavar="N",
        help="0 as in transformers, 5 as in Wu et al. 2016 (default: 0)",
    )
    search.add_argument(
        "--early-stopping",
        choices=_EARLY_STOPPING,
        help="as in transformers: stop when N beams have ended (true), when also the live "
        "beams score lower at their current length (false), or when they cannot score higher "
        "at any length (never) (spec: true)",
    )


def load_translator(args: argparse.Namespace, model: Model | None = None) -> Translator:
    """Loads the model of the arguments, if it is not given, its tokenizer and the search."""
    if checkpoints.is_spec(args.spec):
        found = _load_spec(args, model)
    elif trained := find_run(args.spec):
        found = _load_run(args, model, trained)
    else:
        found = _load_checkpoint(args, model)
    return found._replace(search=_override(found.search, args))


def run(args: argparse.Namespace) -> int:
    model, encode, decode, _, search = load_translator(args)
    from archdsl.tasks.translate import translate  # imports tinygrad

    sources = read_texts(args.text)
    found = translate(model, [encode(text) for text in sources], search, args.together)
    for text, hypotheses in zip(sources, found, strict=True):
        rows = [(decode(h.tokens), h) for h in hypotheses]
        if args.json:
            entries = [
                {
                    "text": target,
                    "score": h.score,
                    "penalised": h.penalised(search.penalty),
                    "finished": h.finished,
                }
                for target, h in rows
            ]
            print_json({"source": text, "hypotheses": entries})
            continue
        if len(sources) > 1:
            print_text(text)
        width = max(len(target) for target, _ in rows)
        for target, h in rows:
            end = "" if h.finished else "  (cut off at the maximum length)"
            print_text(f"{target:<{width}}  {h.score:9.4f}{end}")
    return 0


def _load_spec(args: argparse.Namespace, model: Model | None) -> Translator:
    """Compiles a spec, and reads its weights and its vocabulary."""
    _refuse(args, ("tokenizer",), "a checkpoint")
    if not args.vocab:
        fail(
            "argument-value",
            f"`{args.spec}` is a spec, which has no vocabulary",
            expected="--vocab PATH",
        )
    model = model or compile_model(args)
    from archdsl.tasks.translate import find_roles  # imports tinygrad

    bound = min(find_roles(model.graph).target_bound, _LONGEST)
    names = {role: getattr(args, role) for role in _SPECIAL_TOKENS}
    tokenizer = read_vocabulary(resolve(args.vocab), **names)
    if not args.weights:
        print_note("no --weights: the weights are random, and so is the output")
    encode = partial(tokenizer.encode, bos=True, eos=True)
    search = Search(tokenizer.bos, (tokenizer.eos,), bound)
    return Translator(model, encode, tokenizer.decode, tokenizer.tokens.__getitem__, search)


def _load_run(args: argparse.Namespace, model: Model | None, trained: TrainedRun) -> Translator:
    """Loads the model of a training run. Texts are encoded as in training."""
    _refuse(args, ("vocab", *_SPECIAL_TOKENS), "a spec")
    from archdsl.tasks.translate import find_roles  # imports tinygrad

    path = args.tokenizer or trained.tokenizer
    if path is None:
        fail(
            "tokenizer",
            f"the run `{trained.folder}` has no tokenizer",
            help="its data were no texts; `--tokenizer PATH` names one",
        )
    tokenizer = read_tokenizer(path)
    model = model or checkpoints.load_model(args)
    bound = min(find_roles(model.graph).target_bound, _LONGEST)
    if tokenizer.bos is None or not tokenizer.eos:
        fail(
            "tokenizer",
            f"`{tokenizer.origin}` has no start or no end token",
            expected="tokens with a usual name, such as `<bos>` and `<eos>`",
        )
    search = Search(tokenizer.bos, tokenizer.eos, bound)
    encode = partial(encode_source, tokenizer)
    return Translator(model, encode, tokenizer.decode, tokenizer.piece, search)


def _load_checkpoint(args: argparse.Namespace, model: Model | None) -> Translator:
    """Loads a published checkpoint, its tokenizer and its generation config."""
    _refuse(args, ("vocab", *_SPECIAL_TOKENS), "a spec")
    from archdsl.tasks.translate import find_roles  # imports tinygrad

    tokenizer = read_tokenizer(args.tokenizer or args.spec)
    model = model or checkpoints.load_model(args)
    config = read_generation_config(resolve(args.spec), SEARCH)
    search = config.search(min(find_roles(model.graph).target_bound, _LONGEST))
    return Translator(model, tokenizer.encode, tokenizer.decode, tokenizer.piece, search)


def _refuse(args: argparse.Namespace, names: Iterable[str], needed: str) -> None:
    for name in names:
        if getattr(args, name) is not None:
            fail(
                "argument-value",
                f"--{name} works only with {needed}",
                expected=f"{needed} as CHECKPOINT",
                found=f"`{args.spec}`",
            )


def _override(search: Search, args: argparse.Namespace) -> Search:
    """Returns the search with the options of the command line."""
    penalty: dict[str, Any] = {"alpha": args.length_penalty, "offset": args.length_offset}
    given = {name: getattr(args, name) for name in ("beams", "best", "max_length")}
    changes = {name: value for name, value in given.items() if value is not None}
    if args.early_stopping:
        changes["early_stopping"] = _EARLY_STOPPING[args.early_stopping]
    known = {name: value for name, value in penalty.items() if value is not None}
    return replace(search, **changes, penalty=replace(search.penalty, **known))
