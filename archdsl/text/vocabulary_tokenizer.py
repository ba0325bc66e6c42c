"""A tokenizer over a plain vocabulary: longest match first, without merges or normalisation."""

from __future__ import annotations

import io
import json
import os
import pickle
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from archdsl.diagnostics import ArchError, Diagnostic, Source, Span, did_you_mean, fail, listing
from archdsl.files import read_bytes

PURPOSES = {
    "bos": "the start token",
    "eos": "the end token",
    "pad": "the padding token",
}

USUAL_NAMES = {
    "bos": (
        "<sos>",
        "<s>",
        "<bos>",
        "[bos]",
        "<|bos|>",
        "<|startoftext|>",
        "<|begin_of_text|>",
    ),
    "eos": ("<eos>", "</s>", "[eos]", "<|eos|>", "<|endoftext|>", "<|end_of_text|>"),
    "pad": ("<pad>", "[pad]", "<|pad|>", "<|padding|>"),
    "other": ("<unk>", "[unk]", "<|unk|>", "<mask>", "[mask]", "[cls]", "[sep]"),
}
"""The usual names of special tokens by role, in lower case."""


class VocabularyTokenizer:
    """A vocabulary with a longest-match-first tokenizer.

    `tokens[i]` is the text of token i. Special tokens never match text; they are those of
    `USUAL_NAMES` in any case, and those given as `bos`, `eos` or `pad`. `ids_of` has the ids of
    each role, `origin` is the name in messages.

    Raises `ArchError` "tokenizer" for empty or repeated tokens, and for a given name that is
    not in the vocabulary.

    >>> tokenizer = VocabularyTokenizer(["<sos>", "<eos>", "C", "Cl", "O"])
    >>> tokenizer.encode("OCCl", bos=True, eos=True)
    [0, 4, 2, 3, 1]
    >>> tokenizer.decode([0, 4, 2, 3, 1])
    'OCCl'
    """

    def __init__(
        self,
        tokens: Sequence[str],
        *,
        bos: str | None = None,
        eos: str | None = None,
        pad: str | None = None,
        origin: str = "vocabulary",
    ):
        self.tokens = tuple(tokens)
        self.origin = origin
        ids = _number_tokens(self.tokens, origin)
        given = {"bos": bos, "eos": eos, "pad": pad}
        _check_names(given, ids, origin)
        self.ids_of = {role: _ids_in_role(role, name, ids) for role, name in given.items()}
        special = set(given.values())
        usual = {name for names in USUAL_NAMES.values() for name in names}
        self._normal = {
            token: number
            for token, number in ids.items()
            if token not in special and token.lower() not in usual
        }
        self._lengths = sorted({len(token) for token in self._normal}, reverse=True)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bos(self) -> int:
        """The id of the start token; `ArchError` if unknown."""
        return self._single_id("bos")

    @property
    def eos(self) -> int:
        """The id of the end token; `ArchError` if unknown."""
        return self._single_id("eos")

    @property
    def pad(self) -> int:
        """The id of the padding token; `ArchError` if unknown."""
        return self._single_id("pad")

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Returns the token ids of a text, with the start and end token if requested.

        Raises `ArchError` "tokenizer" at the first character that no token matches.
        """
        ids = [self.bos] if bos else []
        place = 0
        while place < len(text):
            token = self._longest_match(text, place)
            ids.append(self._normal[token])
            place += len(token)
        return [*ids, self.eos] if eos else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of the tokens before the first end token.

        Start and padding tokens are dropped. Other special tokens, such as `<unk>`, are kept
        by name, so that a gap in the text is visible. Raises `ArchError` "tokenizer" for an
        id that is not in the vocabulary.
        """
        numbers = [self.check_id(int(number)) for number in ids]
        # If one token is both start and end, the first one is a start.
        if numbers and numbers[0] in self.ids_of["bos"]:
            del numbers[0]
        shown = takewhile(lambda number: number not in self.ids_of["eos"], numbers)
        dropped = self.ids_of["bos"] + self.ids_of["pad"]
        return "".join(self.tokens[number] for number in shown if number not in dropped)

    def special(self) -> dict[int, str]:
        """Returns the tokens that never match text: their names by id."""
        return {n: token for n, token in enumerate(self.tokens) if token not in self._normal}

    def _single_id(self, role: str) -> int:
        """Returns the id of a role that has exactly one token."""
        numbers = self.ids_of[role]
        if len(numbers) == 1:
            return numbers[0]
        fail(
            "tokenizer",
            f"{PURPOSES[role]} of `{self.origin}` is not known",
            expected=f"one of {listing(USUAL_NAMES[role])}",
            found=listing((self.tokens[number] for number in numbers), "and") or "none of them",
            help=f"name the token with `{role}=…` (`--{role}` on the command line)",
        )

    def _longest_match(self, text: str, place: int) -> str:
        for length in self._lengths:
            token = text[place : place + length]
            if token in self._normal:
                return token
        character = text[place]
        alike = [token for token in self._normal if token.startswith(character)]
        fail(
            "tokenizer",
            f"no token of `{self.origin}` matches `{_escape(character)}`",
            Span(Source("text", text), place, place + 1),
            found=f"`{_escape(text[max(place - 10, 0) : place + 11])}`",
            help=f"tokens that start with it: {listing(alike[:6], 'and')}" if alike else None,
        )

    def check_id(self, number: int) -> int:
        """Returns the id; raises `ArchError` if no token has it."""
        if 0 <= number < len(self.tokens):
            return number
        expected = f"0 to {len(self.tokens) - 1}"
        fail(
            "tokenizer",
            f"no token of `{self.origin}` has the id {number}",
            expected=expected,
            found=str(number),
        )


def read_vocabulary(
    path: str | os.PathLike[str],
    *,
    bos: str | None = None,
    eos: str | None = None,
    pad: str | None = None,
) -> VocabularyTokenizer:
    """Reads a vocabulary file; its suffix defines the format.

    - `.txt`, `.vocab`: UTF-8, one token per line; the first line is token 0.
    - `.json`: a list of tokens, or an object from token to id.
    - `.pkl`, `.pickle`: the same, pickled as plain lists and dicts. Other objects are refused,
      so no code in the file can run.

    JSON and pickles may also have an `itos` list, a `stoi` object, or both, which must agree;
    other entries are ignored. `bos`, `eos` and `pad` name special tokens without a usual name.

    Raises `ArchError`: "file" if the file cannot be read, "tokenizer" if it has no tokens,
    repeated tokens, or ids other than 0 to n - 1.
    """
    path = Path(path)
    origin = str(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        fail(
            "tokenizer",
            f"`{origin}` does not have the suffix of a vocabulary file",
            expected=listing(READERS),
            found=f"`{path.suffix}`" if path.suffix else "no suffix",
        )
    try:
        data = read_bytes(path)
    except OSError as error:
        reason = error.strerror or str(error)
        fail("file", f"cannot read `{origin}`: {reason}", cause=error)
    return VocabularyTokenizer(read(data, origin), bos=bos, eos=eos, pad=pad, origin=origin)


def _read_lines(data: bytes, origin: str) -> list[str]:
    lines = _decode_utf8(data, origin).split("\n")
    if lines[-1] == "":
        del lines[-1]
    # Only the line ending is removed, because white space may be a token.
    return [line.removesuffix("\r") for line in lines]


def _read_json(data: bytes, origin: str) -> list[str]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            name, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            fail("tokenizer", f"`{origin}` has the key `{_escape(name)}` twice")
        return found

    text = _decode_utf8(data, origin)
    try:
        return _parse_tokens(json.loads(text, object_pairs_hook=unique), origin)
    except (ValueError, RecursionError) as error:
        fail("tokenizer", f"`{origin}` is not JSON", found=str(error), cause=error)


def _read_pickle(data: bytes, origin: str) -> list[str]:
    try:
        plain = _PlainUnpickler(io.BytesIO(data)).load()
    # A damaged pickle can raise almost any exception.
    except Exception as error:
        fail(
            "tokenizer",
            f"`{origin}` is not a pickle of plain lists and dicts",
            found=str(error) or type(error).__name__,
            help="save the tokens as a JSON list, in the order of their ids",
            cause=error,
        )
    return _parse_tokens(plain, origin)


READERS: dict[str, Callable[[bytes, str], list[str]]] = {
    ".txt": _read_lines,
    ".vocab": _read_lines,
    ".json": _read_json,
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
}


class _PlainUnpickler(pickle._Unpickler):
    """Reads containers, text and numbers only; a reference to code is an error.

    This is Python's unpickler in Python. The one in C allocates a table as long as the largest
    index in a file, so a damaged file could use all memory.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it refers to `{module}.{name}`")


def _decode_utf8(data: bytes, origin: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fail("tokenizer", f"`{origin}` is not UTF-8 text", found=str(error), cause=error)


def _parse_tokens(data: object, origin: str) -> list[str]:
    """Returns the tokens in the order of their ids, from the data of JSON or a pickle."""
    match data:
        case {"itos": list() as listed, "stoi": dict() as mapped}:
            by_list, by_map = _from_list(listed, origin), _from_mapping(mapped, origin)
            if by_list != by_map:
                _fail_on_disagreement(by_list, by_map, origin)
            return by_list
        case {"itos": list() as listed} | (list() as listed):
            return _from_list(listed, origin)
        case {"stoi": dict() as mapped} | (dict() as mapped):
            return _from_mapping(mapped, origin)
    fail(
        "tokenizer",
        f"`{origin}` is not a vocabulary",
        expected="a list of tokens, a dict from token to id, or `itos` and `stoi`",
        found=f"a value of type `{type(data).__name__}`",
    )


def _from_list(tokens: list[object], origin: str) -> list[str]:
    texts = [token for token in tokens if isinstance(token, str)]
    if len(texts) < len(tokens):
        wrong = next(token for token in tokens if not isinstance(token, str))
        fail("tokenizer", f"a token of `{origin}` is not a text", found=reprlib.repr(wrong))
    return texts


def _from_mapping(numbers: dict[object, object], origin: str) -> list[str]:
    tokens: dict[int, str] = {}
    for token, number in numbers.items():
        if not isinstance(token, str) or type(number) is not int:
            fail(
                "tokenizer",
                f"`{origin}` does not map tokens to ids",
                found=f"{reprlib.repr(token)}: {reprlib.repr(number)}",
            )
        if number in tokens:
            fail(
                "tokenizer",
                f"two tokens of `{origin}` have the id {number}",
                found=listing((tokens[number], token), "and"),
            )
        tokens[number] = token
    for number in range(len(tokens)):
        if number not in tokens:
            fail(
                "tokenizer",
                f"the token ids of `{origin}` have gaps",
                expected=f"the ids 0 to {len(tokens) - 1}",
                found=f"no id {number}; the ids are {min(tokens)} to {max(tokens)}",
            )
    return [tokens[number] for number in range(len(tokens))]


def _fail_on_disagreement(by_list: list[str], by_map: list[str], origin: str) -> NoReturn:
    found = f"{len(by_list)} and {len(by_map)} tokens"
    for number, (listed, mapped) in enumerate(zip(by_list, by_map, strict=False)):
        if listed != mapped:
            found = f"token {number} is `{listed}` in `itos`, `{mapped}` in `stoi`"
            break
    fail("tokenizer", f"`itos` and `stoi` of `{origin}` disagree", found=found)


def _number_tokens(tokens: Sequence[str], origin: str) -> dict[str, int]:
    """Returns the id of each token; reports empty and repeated tokens."""
    numbers: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if not token:
            fail("tokenizer", f"token {number} of `{origin}` is empty")
        if token in numbers:
            fail(
                "tokenizer",
                f"`{origin}` has the token `{_escape(token)}` twice",
                found=f"the ids {numbers[token]} and {number}",
            )
        numbers[token] = number
    if not numbers:
        fail("tokenizer", f"`{origin}` has no tokens")
    return numbers


def _check_names(given: dict[str, str | None], ids: dict[str, int], origin: str) -> None:
    wrong = [
        Diagnostic(
            "tokenizer",
            f"{PURPOSES[role]} is not in `{origin}`",
            found=f"`{_escape(name)}`",
            help=did_you_mean(name, ids),
        )
        for role, name in given.items()
        if name is not None and name not in ids
    ]
    if wrong:
        raise ArchError(wrong)


def _ids_in_role(role: str, name: str | None, ids: dict[str, int]) -> tuple[int, ...]:
    """Returns the id of the named token, else the ids of all tokens with a usual name."""
    if name is not None:
        return (ids[name],)
    return tuple(number for token, number in ids.items() if token.lower() in USUAL_NAMES[role])


def _escape(text: str) -> str:
    """Escapes a text for a message, if needed."""
    return text if text.isprintable() else repr(text)[1:-1]
