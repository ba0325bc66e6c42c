"""Texts as vectors: an encoder's hidden states, pooled over a text's tokens.

How they are pooled, how long a text may be and whether vectors get length one is read from
the files of sentence-transformers where a checkpoint has them (Reimers and Gurevych 2019,
section 3); tokens are left to `texts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.formats import resolve
from archdsl.formats.host import reading
from archdsl.formats.strict_json import read_object
from archdsl.graph.nodes import Graph, Input
from archdsl.model import Model
from archdsl.progress import each
from archdsl.text.tokenizer import TextTokenizer

Vectors: TypeAlias = NDArray[np.float32]

POOLS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
}
"""Ways to make one vector of a text's hidden states [T, D], by name."""

_BATCH = 32
_STEP = 16  # lengths are rounded up to multiples of it where padding is known

# The files of sentence-transformers.
_MODULES = "modules.json"
_TRANSFORMER = "sentence_bert_config.json"
_GENERAL = "config_sentence_transformers.json"


@dataclass(frozen=True)
class Pooling:
    """How a text becomes a vector: a key of `POOLS`, and whether to length one.

    A text is cut to `limit` tokens, special ones counted, where that is not None; `lower`
    makes its letters small, and `prompt` stands before each.
    """

    pool: str = "mean"
    normalise: bool = True
    limit: int | None = None
    lower: bool = False
    prompt: str = ""


def read_pooling(folder: str | Path, pool: str | None = None) -> Pooling:
    """What the files of sentence-transformers in a folder say; the mean, normalised, where
    there are none. `pool` is taken instead of theirs.

    Raises `ArchError` "config" where they ask for what is not computed here.
    """
    place = resolve(str(folder))
    if not (place / _MODULES).is_file():
        return Pooling(pool or "mean")
    with reading(place / _MODULES, "a list of modules"):
        modules = {
            str(each["type"]).rpartition(".")[2]: place / each["path"]
            for each in json.loads((place / _MODULES).read_bytes())
        }
    others = sorted(modules.keys() - {"Transformer", "Pooling", "Normalize"})
    if others or "Pooling" not in modules:
        fail(
            "config",
            f"{place / _MODULES}: not a transformer whose states are pooled",
            expected="Transformer, Pooling, and Normalize or nothing",
            found=listing(modules, "and"),
        )
    words = _object(modules.get("Transformer", place) / _TRANSFORMER)
    general = _object(place / _GENERAL)
    name, prompts = general.get("default_prompt_name"), general.get("prompts") or {}
    if name is not None and name not in prompts:
        fail(
            "config",
            f"{place / _GENERAL}: the default prompt `{name}` is not among its prompts",
            expected=listing(prompts) or "an entry under `prompts`",
            help=did_you_mean(name, prompts) or "add it under `prompts`, or remove the default",
        )
    return Pooling(
        pool or _pool(modules["Pooling"] / "config.json"),
        "Normalize" in modules,
        words.get("max_seq_length"),
        bool(words.get("do_lower_case")),
        "" if name is None else prompts[name],
    )


@dataclass(frozen=True)
class Encoder:
    """The parts of a model that turns texts into hidden states, float [T, D]."""

    tokens: Input
    others: tuple[Input, ...]
    hidden: str
    bound: int


def encoder(graph: Graph) -> Encoder:
    """Which is which; raises `ArchError` for a model that does not encode texts.

    Of several inputs the tokens are those that say what pads them, and the others are zero, as
    BERT's segments of a single text are. Of several outputs the one called `hidden` counts.
    """
    bounds = {v.name: v.bound for v in graph.varying}
    whole = [i for i in graph.inputs if i.type.dtype == "int" and len(i.type.axes) == 1]
    tokens = next((i for i in whole if i.pad is not None), next(iter(whole), None))
    problem = "its inputs are not tokens"
    if tokens is not None and len(whole) == len(graph.inputs):
        types = graph.types()
        length = tokens.type.axes[0].size
        # What the loss takes for chances of a next token is no vector of this one.
        chances = dict(graph.loss.inputs).get("logits") if graph.loss else None
        states = [
            name
            for name, ref in graph.outputs
            if ref != chances and [a.size == length for a in types[ref].axes] == [True, False]
        ]
        others = tuple(i for i in whole if i is not tokens)
        alike = all(i.type.axes[0].size == length for i in others)
        if alike and (len(states) == 1 or "hidden" in states):
            hidden = states[0] if len(states) == 1 else "hidden"
            return Encoder(tokens, others, hidden, length.at(bounds))
        if alike:
            problem = f"of its outputs {len(states)} are a vector for each token"
    fail(
        "model",
        f"`{graph.name}` does not turn texts into vectors: {problem}",
        expected="inputs `int[T]`, and one output `float[T, D]` or one called `hidden`",
    )


def tokenised(
    tokenizer: TextTokenizer, texts: Sequence[str], pooling: Pooling, bound: int
) -> tuple[list[list[int]], list[int]]:
    """The tokens of each text, and the numbers of the texts that had to be cut.

    A text loses its last tokens, and keeps the special ones behind them.
    """
    limit = min(pooling.limit or bound, bound)
    special = set(tokenizer.encode(""))
    found, cut = [], []
    for number, text in enumerate(texts):
        text = pooling.prompt + text
        ids = tokenizer.encode(text.lower() if pooling.lower else text)
        if not ids:
            fail("tokenizer", f"text {number + 1} has no tokens", found=repr(text))
        if len(ids) > limit:
            cut.append(number)
            end = len(list(takewhile(special.__contains__, reversed(ids))))
            ids = ids[: limit - end] + ids[len(ids) - end :]
        found.append(ids)
    return found, cut


def embed(model: Model, rows: Sequence[Sequence[int]], pooling: Pooling) -> Vectors:
    """The vectors [N, D] of texts of tokens.

    Texts of about the same length are computed together; padding has no part in a vector.
    """
    parts = encoder(model.graph)
    batches = _batches(rows, parts)
    vectors: dict[int, NDArray[Any]] = {}
    for numbers in each(batches, "embedding", "batches", len(batches)):
        longest = max(len(rows[n]) for n in numbers)
        size = longest
        if parts.tokens.pad is not None:
            size = min(-(-longest // _STEP) * _STEP, parts.bound)
        # A batch that is not full is filled up, so that all are of one size.
        height = _BATCH if len(rows) > _BATCH and parts.tokens.pad is not None else len(numbers)
        tokens = np.full((height, size), parts.tokens.pad or 0, np.int64)
        for row, number in zip(tokens, (numbers * height)[:height], strict=True):
            row[: len(rows[number])] = rows[number]
        given = {other.name: np.zeros_like(tokens) for other in parts.others}
        states = model(**{parts.tokens.name: tokens}, **given)[parts.hidden].numpy()
        for state, number in zip(states, numbers, strict=False):
            told = state[: len(rows[number])].astype(np.float32)
            vectors[number] = POOLS[pooling.pool](told)
    found = np.array([vectors[number] for number in range(len(rows))], np.float32)
    return unit(found) if pooling.normalise else found


def unit(vectors: Vectors) -> Vectors:
    """The vectors [N, D] at length one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def similarity(vectors: Vectors) -> NDArray[np.float32]:
    """The cosine of each of the vectors [N, D] with each, [N, N]."""
    units = unit(vectors)
    return np.asarray(units @ units.T)


def _batches(rows: Sequence[Sequence[int]], parts: Encoder) -> list[list[int]]:
    """The numbers of the rows that are computed together; one by one without padding."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    step = _BATCH if parts.tokens.pad is not None else 1
    return [order[start : start + step] for start in range(0, len(order), step)]


def _object(path: Path) -> Mapping[str, Any]:
    return read_object(path, "a config") if path.is_file() else {}


def _pool(path: Path) -> str:
    """The one way of pooling that a config turns on."""
    found = read_object(path, "a config of pooling")
    ways = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    on = [name for name, value in found.items() if name.startswith("pooling_mode") and value]
    if len(on) != 1 or on[0] not in ways or found.get("include_prompt") is False:
        fail(
            "config",
            f"{path}: texts are pooled in a way that is not computed here",
            expected=listing(ways),
            found=listing(on, "and") or "none",
            help="`--pool mean` and `--pool cls` are other vectors than those it was made for",
        )
    return ways[on[0]]
