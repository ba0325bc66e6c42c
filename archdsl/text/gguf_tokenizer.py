"""The tokenizer in the metadata of a GGUF file, as in ggml's docs/gguf.md.

The names under `tokenizer.ggml` and their meaning are llama.cpp's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from archdsl.diagnostics import fail, listing
from archdsl.formats import read_checkpoint
from archdsl.text.special_tokens import (
    PublishedTokenizer,
    assign_roles,
    parse_template,
    set_end_tokens,
)
from archdsl.text.subword_models import (
    PRE_TOKENIZERS,
    build_byte_level,
    build_sentencepiece,
    import_tokenizers,
    parse_merges,
)

_T = TypeVar("_T", str, int, float)

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
"""The token types of the format. User-defined tokens are never split."""


def read_gguf(path: Path) -> PublishedTokenizer:
    """Reads the tokenizer of a GGUF file, of model `gpt2` or `llama`."""
    metadata = dict(read_checkpoint(path).config or {})
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        fail(
            "tokenizer",
            f"{path}: the file has no supported tokenizer",
            expected="`tokenizer.ggml.model` to be `gpt2` or `llama`",
            found=f"`{kind}`" if kind is not None else "no such field",
        )
    pre = metadata.get("tokenizer.ggml.pre")
    types = _types(metadata, path)
    library = (_build_byte_level if kind == "gpt2" else _build_sentence_pieces)(
        metadata, types, path
    )
    keys = {"bos": ("bos",), "eos": ("eos", "eot", "eom"), "pad": ("padding",)}
    numbers = {
        role: [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in each]
        for role, each in keys.items()
    }
    chat = metadata.get("tokenizer.chat_template")
    ids = {token: number for number, token in enumerate(types)}
    published = assign_roles(library, {}, numbers, path, parse_template(chat, path), ids)
    # The defaults of llama.cpp.
    default = kind == "llama" or PRE_TOKENIZERS.get(str(pre)) == PRE_TOKENIZERS["llama-bpe"]
    add_bos = metadata.get(
        "tokenizer.ggml.add_bos_token", default and published.bos is not None
    )
    add_eos = metadata.get("tokenizer.ggml.add_eos_token", False)
    set_end_tokens(published, add_bos, add_eos, path)
    return published


def _build_byte_level(
    metadata: Mapping[str, object], types: Mapping[str, int], path: Path
) -> Any:
    pre = metadata.get("tokenizer.ggml.pre")
    if not isinstance(pre, str) or pre not in PRE_TOKENIZERS:
        fail(
            "tokenizer",
            f"{path}: the pre-tokenizer is not supported",
            expected=f"`tokenizer.ggml.pre` to be {listing(PRE_TOKENIZERS)}",
            found=f"`{pre}`" if pre is not None else "no such field",
            help="use the `tokenizer.json` that is published with the model",
        )
    merges = parse_merges(_field(metadata, "merges", str, path), path)
    library = build_byte_level({token: n for n, token in enumerate(types)}, merges, pre, path)
    return _add_special(library, types)


def _build_sentence_pieces(
    metadata: Mapping[str, object], types: Mapping[str, int], path: Path
) -> Any:
    scores = _field(metadata, "scores", float, path)
    if len(scores) != len(types):
        fail(
            "tokenizer",
            f"{path}: the numbers of tokens and scores differ",
            found=f"{len(types)} tokens, {len(scores)} scores",
        )
    text_types = (_NORMAL, _USER_DEFINED, _UNUSED)
    library = build_sentencepiece(
        {
            token: x
            for (token, kind), x in zip(types.items(), scores, strict=True)
            if kind in text_types
        },
        {token: number for number, token in enumerate(types)},
        next((token for token, kind in types.items() if kind == _UNKNOWN), None),
        metadata.get("tokenizer.ggml.add_space_prefix", True) is True,
        path,
    )
    return _add_special(library, types)


def _add_special(library: Any, types: Mapping[str, int]) -> Any:
    """Adds the tokens that are matched before a text is split."""
    added = import_tokenizers().AddedToken
    control = [token for token, kind in types.items() if kind == _CONTROL]
    library.add_special_tokens([added(token, normalized=False) for token in control])
    user_defined = [token for token, kind in types.items() if kind == _USER_DEFINED]
    library.add_tokens([added(token, normalized=False) for token in user_defined])
    return library


def _types(metadata: Mapping[str, object], path: Path) -> dict[str, int]:
    """Returns the type of each token, in the order of the ids."""
    tokens = _field(metadata, "tokens", str, path)
    types = _field(metadata, "token_type", int, path)
    if len(types) != len(tokens):
        fail(
            "tokenizer",
            f"{path}: the numbers of tokens and token types differ",
            found=f"{len(tokens)} tokens, {len(types)} token types",
        )
    if len({*tokens}) != len(tokens):
        token, count = Counter(tokens).most_common(1)[0]
        fail("tokenizer", f"{path}: the token {token!r:.80} occurs {count} times")
    return dict(zip(tokens, types, strict=True))


def _field(metadata: Mapping[str, object], name: str, of: type[_T], path: Path) -> list[_T]:
    values: Any = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list) or not {*map(type, values)} <= {of}:
        kind = {str: "texts", int: "whole numbers", float: "numbers"}[of]
        fail("tokenizer", f"{path}: `tokenizer.ggml.{name}` is not a list of {kind}")
    return values
