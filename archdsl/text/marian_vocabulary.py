"""The tokenizer of Marian folders: SentencePiece models of both languages, and vocabularies.

`vocab.json` has the ids of all tokens; with `separate_vocabs`, those of the source, and
`target_vocab.json` those of the target. Texts are split by the source's model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from archdsl.diagnostics import fail
from archdsl.files import read_bytes
from archdsl.formats.strict_json import parse_object
from archdsl.text.sentencepiece_file import UNKNOWN, read_sentencepiece
from archdsl.text.subword_models import reading, using
from archdsl.text.unigram import build_unigram

_FILES = ("source.spm", "vocab.json")
_SPECIAL = {"eos": "</s>", "pad": "<pad>", "unk": "<unk>"}
_LANGUAGE = re.compile(r">>.*?<<", re.DOTALL)


def is_marian(place: Path) -> bool:
    """Whether a folder has the files of Marian's tokenizer, and no `tokenizer.json`."""
    has_all = all((place / name).is_file() for name in _FILES)
    return has_all and not (place / "tokenizer.json").is_file()


class MarianVocabulary:
    """Texts of the source language to tokens, and tokens of the target language to texts.

    A text may begin with the token of a language, such as `>>fr<<`. `source` has the id of each
    token of a text, and `tokens` the token of each id of the target.
    """

    def __init__(self, folder: Path):
        self.origin = str(folder)
        path = folder / "tokenizer_config.json"
        settings = _object(path) if path.is_file() else {}
        source = _vocabulary(folder / "vocab.json")
        two = bool(settings.get("separate_vocabs", False))
        target = _vocabulary(folder / "target_vocab.json") if two else source
        self.source = source
        self.tokens = {number: token for token, number in target.items()}
        named = {
            role: settings.get(f"{role}_token") or usual for role, usual in _SPECIAL.items()
        }
        self._special = {role: _text(token, path) for role, token in named.items()}
        for role, token in self._special.items():
            if token not in source or (token not in target and role != "pad"):
                fail("tokenizer", f"{folder}: the vocabulary has no token {token!a}")
        self._library = _library(folder / "source.spm")
        self.end = target[self._special["eos"]]
        self.pad = target.get(self._special["pad"])

    def encode(self, text: str, end: bool = True) -> list[int]:
        """Returns the ids of a text, with `end` and of the end token."""
        names = sorted(self._special.values(), key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, names))})", text)
        unknown = self.source[self._special["unk"]]
        tokens = [token for part in parts for token in self._pieces(part)]
        ids = [self.source.get(token, unknown) for token in tokens]
        return ids + [self.source[self._special["eos"]]] * end

    def _pieces(self, part: str) -> list[str]:
        """The pieces of a part of a text, or the part if it is a special token."""
        if part in self._special.values():
            return [part]
        code = _LANGUAGE.match(part)
        with using(self.origin):
            rest = part[code.end() :] if code else part
            pieces: list[str] = self._library.encode(rest, add_special_tokens=False).tokens
        return [code.group(), *pieces] if code else pieces

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Returns the text of ids of the target; an id without a token has no text."""
        text, special = "", set(self._special.values())
        for number in map(int, ids):
            token = self.tokens.get(number, "")
            if token in special:
                text += "" if skip_special else f"{token} "
            else:
                text += token
        return text.replace("▁", " ").strip()

    def special(self) -> dict[int, str]:
        """Returns the end, padding and unknown token: their names by id."""
        return {self.source[token]: token for token in self._special.values()}


def _library(path: Path) -> Any:
    model = read_sentencepiece(path)
    unknown = next((n for n, (_, _, kind) in enumerate(model.pieces) if kind == UNKNOWN), None)
    if unknown is None:
        fail("tokenizer", f"{path}: the model has no unknown token")
    pieces = [(token, score) for token, score, _ in model.pieces]
    return build_unigram(pieces, unknown, model.charsmap, path)


def _vocabulary(path: Path) -> Mapping[str, int]:
    found = _object(path)
    if not found or not all(type(n) is int and 0 <= n < 1 << 32 for n in found.values()):
        fail("tokenizer", f"{path}: the vocabulary does not map tokens to ids")
    return found


def _object(path: Path) -> dict[str, Any]:
    with reading(path):
        return parse_object(read_bytes(path))


def _text(token: object, path: Path) -> str:
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        fail("tokenizer", f"{path}: a special token is not a text", found=repr(token)[:80])
    return text
