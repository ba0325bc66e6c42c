"""The tokenizer in the metadata of a GGUF file, as in ggml's docs/gguf.md.

The names under `tokenizer.ggml` and their meaning are llama.cpp's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sized
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
    build_wordpiece,
    import_tokenizers,
    parse_merges,
)
from archdsl.text.unigram import build_unigram

_T = TypeVar("_T", str, int, float)

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
"""The token types of the format. User-defined tokens are never split."""

_CHARSMAP = "tokenizer.ggml.precompiled_charsmap"


def read_gguf(path: Path) -> PublishedTokenizer:
    """Reads the tokenizer of a GGUF file, of a model that `_BUILD` has."""
    metadata = dict(read_checkpoint(path).config or {})
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in _BUILD:
        fail(
            "tokenizer",
            f"{path}: the file has no supported tokenizer",
            expected=f"`tokenizer.ggml.model` to be {listing(map(str, _BUILD))}",
            found=f"`{kind}`" if kind is not None else "no such field",
        )
    pre = metadata.get("tokenizer.ggml.pre")
    types = _types(metadata, path)
    library = _BUILD[kind](metadata, types, path)
    keys = {"bos": ("bos",), "eos": ("eos", "eot", "eom"), "pad": ("padding",)}
    numbers = {
        role: [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in each]
        for role, each in keys.items()
    }
    chat = metadata.get("tokenizer.chat_template")
    ids = (
        library.get_vocab() if kind == "bert" else {t: number for number, t in enumerate(types)}
    )
    published = assign_roles(library, {}, numbers, path, parse_template(chat, path), ids)
    if kind == "bert":  # it has a start and an end token of its own
        return published
    # The defaults of llama.cpp.
    default = kind == "llama" or PRE_TOKENIZERS.get(str(pre)) == PRE_TOKENIZERS["llama-bpe"]
    add_bos = metadata.get(
        "tokenizer.ggml.add_bos_token", default and published.bos is not None
    )
    add_eos = metadata.get("tokenizer.ggml.add_eos_token", kind == "t5")
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
    scores = _scores(metadata, types, path)
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


def _build_word_pieces(
    metadata: Mapping[str, object], types: Mapping[str, int], path: Path
) -> Any:
    """Builds WordPiece from tokens with `▁` before the first piece of a word, not `##` before
    the others."""
    return build_wordpiece([_word_piece(token) for token in types], path)


def _word_piece(token: str) -> str:
    """A token as BERT's vocabulary writes it.

    >>> [_word_piece(token) for token in ("[CLS]", "▁hell", "o", "▁[", "▁")]
    ['[CLS]', 'hell', '##o', '[', '##▁']
    """
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[1:] if token.startswith("▁") and len(token) > 1 else f"##{token}"


def _build_unigram(metadata: Mapping[str, object], types: Mapping[str, int], path: Path) -> Any:
    scores = _scores(metadata, types, path)
    unknown = next((n for n, kind in enumerate(types.values()) if kind == _UNKNOWN), None)
    if unknown is None:
        fail(
            "tokenizer",
            f"{path}: the vocabulary cannot encode every text",
            expected="an unknown token",
            found="none",
        )
    for name in ("add_space_prefix", "remove_extra_whitespaces"):
        if metadata.get(f"tokenizer.ggml.{name}", True) is not True:
            fail(
                "tokenizer",
                f"{path}: `tokenizer.ggml.{name}` is not supported for a unigram model",
                expected="true",
                found=repr(metadata[f"tokenizer.ggml.{name}"])[:80],
            )
    # The score of an unknown character follows from the lowest one, of a normal token.
    normal = [x for x, kind in zip(scores, types.values(), strict=True) if kind == _NORMAL]
    lowest = min(normal, default=0.0)
    pieces = [(token, max(x, lowest)) for token, x in zip(types, scores, strict=True)]
    charsmap = (
        _field(metadata, "precompiled_charsmap", int, path) if _CHARSMAP in metadata else []
    )
    library = build_unigram(pieces, unknown, bytes(each % 256 for each in charsmap), path)
    library.add_special_tokens([pieces[unknown][0]])
    return _add_special(library, types)


def _scores(
    metadata: Mapping[str, object], types: Mapping[str, int], path: Path
) -> list[float]:
    scores = _field(metadata, "scores", float, path)
    _check_count(path, types, "scores", scores)
    return scores


def _check_count(path: Path, tokens: Sized, what: str, values: Sized) -> None:
    """Refuses a list that has not one value for each token."""
    if len(values) != len(tokens):
        fail(
            "tokenizer",
            f"{path}: the numbers of tokens and {what} differ",
            found=f"{len(tokens)} tokens, {len(values)} {what}",
        )


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
    _check_count(path, tokens, "token types", types)
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


_BUILD: dict[object, Callable[[Mapping[str, object], Mapping[str, int], Path], Any]] = {
    "gpt2": _build_byte_level,
    "llama": _build_sentence_pieces,
    "bert": _build_word_pieces,
    "t5": _build_unigram,
}
