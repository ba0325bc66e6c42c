"""The tokenizer that a GGUF file carries in its metadata, as ggml's docs/gguf.md has it.

The names under `tokenizer.ggml` are llama.cpp's, and so is what they mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from archdsl.diagnostics import fail, listing
from archdsl.formats import read_checkpoint
from archdsl.text.special_tokens import Published, add_ends, template, with_roles
from archdsl.text.subword_models import (
    CUTS,
    byte_level,
    library_package,
    pairs,
    sentence_pieces,
)

_T = TypeVar("_T", str, int, float)

_ORDINARY, _UNKNOWN, _CONTROL, _WRITTEN, _UNUSED = 1, 2, 3, 4, 5
"""The format's numbers for what a token is; `_WRITTEN` ones are always taken whole."""


def read_gguf(path: Path) -> Published:
    """The tokenizer in a GGUF file's metadata, of the kind `gpt2` or `llama`."""
    metadata = dict(read_checkpoint(path).config or {})
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        fail(
            "tokenizer",
            f"{path}: the file has no tokenizer of a kind that is read",
            expected="`tokenizer.ggml.model` to be `gpt2` or `llama`",
            found=f"`{kind}`" if kind is not None else "no such field",
        )
    cuts = metadata.get("tokenizer.ggml.pre")
    types = _types(metadata, path)
    library = (_gguf_bytes if kind == "gpt2" else _gguf_pieces)(metadata, types, path)
    keys = {"bos": ("bos",), "eos": ("eos", "eot", "eom"), "pad": ("padding",)}
    numbers = {
        role: [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in each]
        for role, each in keys.items()
    }
    chat = metadata.get("tokenizer.chat_template")
    ids = {token: number for number, token in enumerate(types)}
    published = with_roles(library, {}, numbers, path, template(chat, path), ids)
    # What llama.cpp does where a file does not say.
    usual = kind == "llama" or CUTS.get(str(cuts)) == CUTS["llama-bpe"]
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", usual and published.bos is not None)
    add_eos = metadata.get("tokenizer.ggml.add_eos_token", False)
    add_ends(published, add_bos, add_eos, path)
    return published


def _gguf_bytes(metadata: Mapping[str, object], types: Mapping[str, int], path: Path) -> Any:
    cuts = metadata.get("tokenizer.ggml.pre")
    if not isinstance(cuts, str) or cuts not in CUTS:
        fail(
            "tokenizer",
            f"{path}: it is not known how this vocabulary cuts a text",
            expected=f"`tokenizer.ggml.pre` to be {listing(CUTS)}",
            found=f"`{cuts}`" if cuts is not None else "no such field",
            help="use the `tokenizer.json` that is published with the model",
        )
    merges = pairs(_field(metadata, "merges", str, path), path)
    library = byte_level({token: n for n, token in enumerate(types)}, merges, cuts, path)
    return _with_added(library, types)


def _gguf_pieces(metadata: Mapping[str, object], types: Mapping[str, int], path: Path) -> Any:
    scores = _field(metadata, "scores", float, path)
    if len(scores) != len(types):
        fail("tokenizer", f"{path}: {len(types)} tokens and {len(scores)} scores")
    of_text = (_ORDINARY, _WRITTEN, _UNUSED)
    library = sentence_pieces(
        {
            token: x
            for (token, kind), x in zip(types.items(), scores, strict=True)
            if kind in of_text
        },
        {token: number for number, token in enumerate(types)},
        next((token for token, kind in types.items() if kind == _UNKNOWN), None),
        metadata.get("tokenizer.ggml.add_space_prefix", True) is True,
        path,
    )
    return _with_added(library, types)


def _with_added(library: Any, types: Mapping[str, int]) -> Any:
    """The library with the tokens that are found in a text before it is cut."""
    added = library_package().AddedToken
    control = [token for token, kind in types.items() if kind == _CONTROL]
    library.add_special_tokens([added(token, normalized=False) for token in control])
    written = [token for token, kind in types.items() if kind == _WRITTEN]
    library.add_tokens([added(token, normalized=False) for token in written])
    return library


def _types(metadata: Mapping[str, object], path: Path) -> dict[str, int]:
    """What each token is, by the token, in the order of their numbers."""
    tokens = _field(metadata, "tokens", str, path)
    types = _field(metadata, "token_type", int, path)
    if len(types) != len(tokens):
        fail("tokenizer", f"{path}: {len(tokens)} tokens and {len(types)} types of tokens")
    if len({*tokens}) != len(tokens):
        token, count = Counter(tokens).most_common(1)[0]
        fail("tokenizer", f"{path}: the token {token!r:.80} stands {count} times")
    return dict(zip(tokens, types, strict=True))


def _field(metadata: Mapping[str, object], name: str, of: type[_T], path: Path) -> list[_T]:
    values: Any = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list) or not {*map(type, values)} <= {of}:
        kind = {str: "texts", int: "whole numbers", float: "numbers"}[of]
        fail("tokenizer", f"{path}: `tokenizer.ggml.{name}` is not a list of {kind}")
    return values
