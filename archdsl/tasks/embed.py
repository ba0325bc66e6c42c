"""Text embeddings: the hidden states of an encoder, pooled over the tokens of a text.

The pooling, the maximum length and the normalisation come from the sentence-transformers files
of the checkpoint, if it has them (Reimers and Gurevych 2019, section 3).
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
from archdsl.files import read_bytes
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
    "lasttoken": lambda states: states[-1],
    "max": lambda states: states.max(0),
    "mean_sqrt_len_tokens": lambda states: states.sum(0) / np.sqrt(len(states)),
    "weightedmean": lambda states: np.average(states, 0, np.arange(1, len(states) + 1)),
}
"""Functions from the hidden states [T, D] of a text to one vector, by sentence-transformers'
names."""

# The flags of sentence-transformers before 5.4, which has the field `pooling_mode` instead.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_OTHER_FIELDS = ("word_embedding_dimension", "embedding_dimension", "include_prompt")

_BATCH = 32
_LENGTH_STEP = 16  # if the model has padding, lengths are rounded up to a multiple

# The files of sentence-transformers.
_MODULES = "modules.json"
_TRANSFORMER = "sentence_bert_config.json"
_GENERAL = "config_sentence_transformers.json"
_TOKENIZER = "tokenizer_config.json"
_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}


@dataclass(frozen=True)
class Pooling:
    """How a text becomes a vector.

    - `pool`: a key of `POOLS`.
    - `normalise`: whether vectors are scaled to length 1.
    - `limit`: texts are truncated to so many tokens, special tokens included.
    - `lower`: whether texts are converted to lower case.
    - `prompt`: a text that is added before each text.
    """

    pool: str = "mean"
    normalise: bool = True
    limit: int | None = None
    lower: bool = False
    prompt: str = ""


def read_pooling(folder: str | Path, pool: str | None = None) -> Pooling:
    """Reads the sentence-transformers files of a folder.

    Without these files, the pooling is the normalised mean. `pool` overrides the files.
    Raises `ArchError` "config" for modules and options that are not supported.
    """
    place = resolve(str(folder))
    if not (place / _MODULES).is_file():
        return Pooling(pool or "mean")
    with reading(place / _MODULES, "a list of modules"):
        modules = {
            str(each["type"]).rpartition(".")[2]: _inside(place, each["path"])
            for each in json.loads(read_bytes(place / _MODULES))
        }
    others = sorted(modules.keys() - {"Transformer", "Pooling", "Normalize"})
    if others or "Pooling" not in modules:
        fail(
            "config",
            f"{place / _MODULES}: these modules are not supported",
            expected="Transformer, Pooling, and optionally Normalize",
            found=listing(modules, "and"),
        )
    home = modules.get("Transformer", place)
    transformer = _read_optional(home / _TRANSFORMER)
    _check_transformer(home / _TRANSFORMER, transformer)
    prompt = _read_prompt(place / _GENERAL)
    return Pooling(
        pool or _read_pool(modules["Pooling"] / "config.json"),
        "Normalize" in modules,
        _read_limit(home, transformer),
        bool(transformer.get("do_lower_case")),
        prompt,
    )


@dataclass(frozen=True)
class Encoder:
    """The tokens of a text encoder, its output of hidden states [T, D], and its bound."""

    tokens: Input
    hidden: str
    bound: int


def find_encoder(graph: Graph) -> Encoder:
    """Finds the parts of a text encoder; raises `ArchError` for a model of another kind.

    The tokens are the input with a padding token, if there are several inputs. The other
    inputs have a default, such as BERT's segments. Of several outputs, `hidden` is used.
    """
    bounds = graph.bounds
    integers = [i for i in graph.inputs if i.type.dtype == "int" and len(i.type.axes) == 1]
    tokens = next((i for i in integers if i.pad is not None), next(iter(integers), None))
    problem = "its inputs are not all tokens"
    if tokens is not None and len(integers) == len(graph.inputs):
        types = graph.types()
        length = tokens.type.axes[0].size
        # The logits of the loss are not hidden states.
        logits = {dict(term.loss.inputs).get("logits") for term in graph.losses}
        states = [
            name
            for name, ref in graph.outputs
            if ref not in logits
            and [a.size == length for a in types[ref].axes] == [True, False]
        ]
        others = [i.name for i in graph.required if i is not tokens]
        if not others and (len(states) == 1 or "hidden" in states):
            hidden = states[0] if len(states) == 1 else "hidden"
            return Encoder(tokens, hidden, length.at(bounds))
        problem = f"its input `{others[0]}` has no default" if others else ""
        if not others:
            problem = f"{len(states)} of its outputs are a vector for each token"
    fail(
        "model",
        f"`{graph.name}` is not a text encoder: {problem}",
        expected="inputs `int[T]`, and one output `float[T, D]` or one called `hidden`",
    )


def tokenize(
    tokenizer: TextTokenizer, texts: Sequence[str], pooling: Pooling, bound: int
) -> tuple[list[list[int]], list[int]]:
    """Returns the tokens of each text, and the indices of the truncated texts.

    Truncation keeps the special tokens at the end.
    """
    limit = min(pooling.limit or bound, bound)
    special = set(tokenizer.encode(""))
    found, truncated = [], []
    for number, text in enumerate(texts):
        text = pooling.prompt + text
        ids = tokenizer.encode(text.lower() if pooling.lower else text)
        if not ids:
            fail("tokenizer", f"text {number + 1} has no tokens", found=repr(text))
        if len(ids) > limit:
            truncated.append(number)
            end = len(list(takewhile(special.__contains__, reversed(ids))))
            ids = ids[: limit - end] + ids[len(ids) - end :]
        found.append(ids)
    return found, truncated


def embed(model: Model, rows: Sequence[Sequence[int]], pooling: Pooling) -> Vectors:
    """Returns the vectors [N, D] of texts, given as tokens.

    Texts of similar length share a batch. Padding does not change a vector.
    """
    parts = find_encoder(model.graph)
    batches = _batches(rows, parts)
    vectors: dict[int, NDArray[Any]] = {}
    for numbers in each(batches, "embedding", "batches", len(batches)):
        longest = max(len(rows[n]) for n in numbers)
        size = longest
        if parts.tokens.pad is not None:
            size = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, parts.bound)
        # The last batch is filled with copies, so that all batches have one size.
        height = _BATCH if len(rows) > _BATCH and parts.tokens.pad is not None else len(numbers)
        tokens = np.full((height, size), parts.tokens.pad or 0, np.int64)
        for row, number in zip(tokens, (numbers * height)[:height], strict=True):
            row[: len(rows[number])] = rows[number]
        states = model(**{parts.tokens.name: tokens})[parts.hidden].numpy()
        for state, number in zip(states, numbers, strict=False):
            own = state[: len(rows[number])].astype(np.float32)  # without padding
            vectors[number] = POOLS[pooling.pool](own)
    found = np.array([vectors[number] for number in range(len(rows))], np.float32)
    return normalise(found) if pooling.normalise else found


def normalise(vectors: Vectors) -> Vectors:
    """Returns the vectors [N, D], scaled to length 1."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def similarity(vectors: Vectors) -> NDArray[np.float32]:
    """Returns the cosine similarity of each pair of vectors [N, D], as [N, N]."""
    units = normalise(vectors)
    return np.asarray(units @ units.T)


def _batches(rows: Sequence[Sequence[int]], parts: Encoder) -> list[list[int]]:
    """Returns the row indices of each batch; without padding, each row is its own batch."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    step = _BATCH if parts.tokens.pad is not None else 1
    return [order[start : start + step] for start in range(0, len(order), step)]


def _read_optional(path: Path) -> Mapping[str, Any]:
    return read_object(path, "a config") if path.is_file() else {}


def _inside(folder: Path, path: str) -> Path:
    """A path that a file of the folder names; raises ValueError for one outside it."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"the path {path!r:.80} is not in the folder")
    return folder / path


def _read_prompt(path: Path) -> str:
    """Reads the text of the default prompt; empty if there is none."""
    found = _read_optional(path)
    name, prompts = found.get("default_prompt_name"), found.get("prompts") or {}
    if name is None:
        return ""
    texts = list(prompts.values()) if isinstance(prompts, dict) else [None]
    if not all(isinstance(each, str) for each in (name, *texts)):
        fail(
            "config",
            f"{path}: the prompts are not texts",
            expected='"prompts": {"query": "query: "}, "default_prompt_name": "query"',
            found=repr({"prompts": prompts, "default_prompt_name": name})[:200],
        )
    if name not in prompts:
        fail(
            "config",
            f"{path}: the default prompt `{name}` is not among its prompts",
            expected=listing(prompts) or "an entry under `prompts`",
            help=did_you_mean(name, prompts) or "add it under `prompts`, or remove the default",
        )
    return str(prompts[name])


def _read_pool(path: Path) -> str:
    """Reads the one pooling of a config: `pooling_mode`, a name or a list, or the old flags."""
    found = read_object(path, "a config of pooling")
    for name in found:
        if name not in (*_FLAGS, *_OTHER_FIELDS, "pooling_mode"):
            near = did_you_mean(name, ("pooling_mode", *_FLAGS))
            fail("config", f"{path}: the field `{name}` is unknown", help=near)
    # Flags that are all false mean the default, as in sentence-transformers 5.4.
    modes = found.get("pooling_mode", [way for flag, way in _FLAGS.items() if found.get(flag)])
    modes = (modes or ["mean"]) if isinstance(modes, list) else [modes]
    problem = None
    if found.get("include_prompt") is False:
        problem = "`include_prompt` is false, which is not supported"
    elif len(modes) > 1:
        problem = "several poolings are not supported"
    elif modes[0] not in [*POOLS]:  # it may be any JSON value
        problem = "unknown pooling"
    if problem:
        fail(
            "config",
            f"{path}: {problem}",
            expected=f"one of {listing(POOLS)}",
            found=listing(map(str, modes), "and"),
            help="`--pool mean` or `--pool cls` runs the model, but gives other vectors",
        )
    return str(modes[0])


def _read_limit(folder: Path, transformer: Mapping[str, Any]) -> int | None:
    """Reads the maximum length: `max_seq_length`, else the one of the tokenizer."""
    tokenizer = _read_optional(folder / _TOKENIZER)
    for found in (transformer.get("max_seq_length"), tokenizer.get("model_max_length")):
        if isinstance(found, int | float) and found >= 1:
            return int(found)
    return None


def _check_transformer(path: Path, found: Mapping[str, Any]) -> None:
    """Reports settings of sentence-transformers 5.4 with which vectors would differ."""
    modality = found.get("modality_config") or {}
    text = modality.get("text") if isinstance(modality, dict) else modality
    wanted = {
        "transformer_task": (found.get("transformer_task"), (None, "feature-extraction")),
        "module_output_name": (found.get("module_output_name"), (None, "token_embeddings")),
        "processing_kwargs": (found.get("processing_kwargs"), (None, {})),
        "modality_config": (text if "modality_config" in found else None, (None, _TEXT)),
    }
    for name, (value, known) in wanted.items():
        if value not in known:
            fail(
                "config",
                f"{path}: this `{name}` is not supported",
                expected=json.dumps(known[-1]),
                found=json.dumps(value)[:200],
            )
