"""Unigram tokenizers as in T5: the pieces with the largest sum of scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archdsl.text.subword_models import import_tokenizers, reading


def build_unigram(
    pieces: Sequence[tuple[str, float]], unknown: int, charsmap: bytes, origin: Path
) -> Any:
    """Builds a unigram model (Kudo 2018, "Subword regularization"); `▁` begins a word.

    `pieces` are the tokens with their scores, in the order of the ids. `charsmap` has the
    replacements of characters before a text is split, as SentencePiece compiles them; empty
    means none. A character that is no piece becomes the token `unknown`.
    """
    tokenizers = import_tokenizers()
    with reading(origin):
        model = tokenizers.models.Unigram(list(pieces), unknown, False)
        library = tokenizers.Tokenizer(model)
        if charsmap:
            library.normalizer = tokenizers.normalizers.Precompiled(charsmap)
    pre = tokenizers.pre_tokenizers
    library.pre_tokenizer = pre.Sequence(
        [pre.WhitespaceSplit(), pre.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    library.decoder = tokenizers.decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return library
