"""Text to token numbers and back, by a vocabulary read from a file.

The tokenizer is longest-match-first: at each place of the text it takes the longest token
that stands there. It knows no language and no model; byte-pair merges, normalisation and
padding to a batch are left to others.
"""

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

PURPOSES = {
    "bos": "the start of a sequence",
    "eos": "the end of a sequence",
    "pad": "padding",
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
"""What vocabularies call their special tokens, by role, in lower case."""


class VocabularyTokenizer:
    """A vocabulary, and the longest-match-first tokenizer over it.

    `tokens[i]` is the text of token i. Special tokens, which are those of `USUAL_NAMES` (in
    either case) and those named as `bos`, `eos` or `pad`, never match text. `origin` is what
    messages call the vocabulary; `ids_of` are the numbers of the tokens of each role.

    Raises `ArchError` "tokenizer" where the tokens are no vocabulary, or lack a name given.

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
        ids = _numbered(self.tokens, origin)
        given = {"bos": bos, "eos": eos, "pad": pad}
        _check_given(given, ids, origin)
        self.ids_of = {role: _ids_in_role(role, name, ids) for role, name in given.items()}
        special = set(given.values())
        usual = {name for names in USUAL_NAMES.values() for name in names}
        self._ordinary = {
            token: number
            for token, number in ids.items()
            if token not in special and token.lower() not in usual
        }
        self._lengths = sorted({len(token) for token in self._ordinary}, reverse=True)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bos(self) -> int:
        """The number of the token that starts a sequence; `ArchError` where none is known."""
        return self._only("bos")

    @property
    def eos(self) -> int:
        """The number of the token that ends a sequence; `ArchError` where none is known."""
        return self._only("eos")

    @property
    def pad(self) -> int:
        """The number of the token that fills up a batch; `ArchError` where none is known."""
        return self._only("pad")

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """The numbers of the text's tokens, with the start and the end token where asked.

        Raises `ArchError` "tokenizer" at the first character that no token matches.
        """
        ids = [self.bos] if bos else []
        place = 0
        while place < len(text):
            token = self._longest_match(text, place)
            ids.append(self._ordinary[token])
            place += len(token)
        return [*ids, self.eos] if eos else ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens before the first end token.

        Start and padding tokens are dropped. Any other special token, such as `<unk>`, stands
        in the text by its name: without it a text with a gap would pass for a whole one.
        Raises `ArchError` "tokenizer" for a number that is not in the vocabulary.
        """
        numbers = [self.known(int(number)) for number in ids]
        # Where one token serves both ends, the first one is a start.
        if numbers and numbers[0] in self.ids_of["bos"]:
            del numbers[0]
        said = takewhile(lambda number: number not in self.ids_of["eos"], numbers)
        silent = self.ids_of["bos"] + self.ids_of["pad"]
        return "".join(self.tokens[number] for number in said if number not in silent)

    def _only(self, role: str) -> int:
        """The number of the one token of a role."""
        numbers = self.ids_of[role]
        if len(numbers) == 1:
            return numbers[0]
        fail(
            "tokenizer",
            f"the token for {PURPOSES[role]} is not known in `{self.origin}`",
            expected=f"one of {listing(USUAL_NAMES[role])}",
            found=listing((self.tokens[number] for number in numbers), "and") or "none of them",
            help=f"name the token: `{role}=…`, on the command line `--{role}`",
        )

    def _longest_match(self, text: str, place: int) -> str:
        for length in self._lengths:
            token = text[place : place + length]
            if token in self._ordinary:
                return token
        character = text[place]
        alike = [token for token in self._ordinary if token.startswith(character)]
        fail(
            "tokenizer",
            f"no token of `{self.origin}` matches `{_shown(character)}`",
            Span(Source("text", text), place, place + 1),
            found=f"`{_shown(text[max(place - 10, 0) : place + 11])}`",
            help=f"tokens that begin with it are {listing(alike[:6], 'and')}"
            if alike
            else None,
        )

    def known(self, number: int) -> int:
        """The number, or `ArchError` where no token has it."""
        if 0 <= number < len(self.tokens):
            return number
        expected = f"0 to {len(self.tokens) - 1}"
        fail(
            "tokenizer",
            f"no such token in `{self.origin}`",
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
    """The tokenizer over a vocabulary file; its suffix says how it is read.

    - `.txt`, `.vocab`: UTF-8, one token a line; the first line is token 0.
    - `.json`: a list of tokens, or an object from token to number.
    - `.pkl`, `.pickle`: the same, pickled as plain lists and dicts. Nothing else in a pickle
      is read, so no code in it can run.

    JSON and pickles may also hold an `itos` list, a `stoi` object, or both, which must then
    agree; what stands beside them is not read. `bos`, `eos` and `pad` name the special
    tokens where their names are not the usual ones.

    Raises `ArchError` "file" where the file cannot be read, "tokenizer" where it holds no
    vocabulary: tokens twice, numbers other than 0 to n - 1, or nothing at all.
    """
    path = Path(path)
    origin = str(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        fail(
            "tokenizer",
            f"`{origin}` does not say by its suffix what kind of vocabulary it is",
            expected=listing(READERS),
            found=f"`{path.suffix}`" if path.suffix else "no suffix",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        fail("file", f"cannot read `{origin}`: {reason}", cause=error)
    return VocabularyTokenizer(read(data, origin), bos=bos, eos=eos, pad=pad, origin=origin)


def _read_lines(data: bytes, origin: str) -> list[str]:
    lines = _text(data, origin).split("\n")
    if lines[-1] == "":
        del lines[-1]
    # Only the line's end is taken off: white space may be a token.
    return [line.removesuffix("\r") for line in lines]


def _read_json(data: bytes, origin: str) -> list[str]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            name, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            fail("tokenizer", f"`{origin}` has the name `{_shown(name)}` twice")
        return found

    text = _text(data, origin)
    try:
        return _tokens(json.loads(text, object_pairs_hook=unique), origin)
    except (ValueError, RecursionError) as error:
        fail("tokenizer", f"`{origin}` is not JSON", found=str(error), cause=error)


def _read_pickle(data: bytes, origin: str) -> list[str]:
    try:
        plain = _PlainUnpickler(io.BytesIO(data)).load()
    # A damaged pickle can end in nearly any exception.
    except Exception as error:
        fail(
            "tokenizer",
            f"`{origin}` is not a pickle of plain lists and dicts",
            found=str(error) or type(error).__name__,
            help="write the tokens as a JSON list, in the order of their numbers",
            cause=error,
        )
    return _tokens(plain, origin)


READERS: dict[str, Callable[[bytes, str], list[str]]] = {
    ".txt": _read_lines,
    ".vocab": _read_lines,
    ".json": _read_json,
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
}


class _PlainUnpickler(pickle._Unpickler):
    """Reads containers, text and numbers; code is only reached by name, and none is found.

    It is Python's own unpickler in Python. The one in C sets up a table as long as the largest
    index that a file names, so a damaged file could take all memory.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for `{module}.{name}`")


def _text(data: bytes, origin: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fail("tokenizer", f"`{origin}` is not UTF-8 text", found=str(error), cause=error)


def _tokens(data: object, origin: str) -> list[str]:
    """The tokens in the order of their numbers, from what JSON or a pickle holds."""
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
        f"`{origin}` holds no vocabulary",
        expected="a list of tokens, a dict from token to number, or `itos` and `stoi`",
        found=f"a value of type `{type(data).__name__}`",
    )


def _from_list(tokens: list[object], origin: str) -> list[str]:
    texts = [token for token in tokens if isinstance(token, str)]
    if len(texts) < len(tokens):
        wrong = next(token for token in tokens if not isinstance(token, str))
        fail("tokenizer", f"a token of `{origin}` is not text", found=reprlib.repr(wrong))
    return texts


def _from_mapping(numbers: dict[object, object], origin: str) -> list[str]:
    tokens: dict[int, str] = {}
    for token, number in numbers.items():
        if not isinstance(token, str) or type(number) is not int:
            fail(
                "tokenizer",
                f"`{origin}` does not map tokens to numbers",
                found=f"{reprlib.repr(token)}: {reprlib.repr(number)}",
            )
        if number in tokens:
            fail(
                "tokenizer",
                f"two tokens of `{origin}` have the number {number}",
                found=listing((tokens[number], token), "and"),
            )
        tokens[number] = token
    for number in range(len(tokens)):
        if number not in tokens:
            fail(
                "tokenizer",
                f"the tokens of `{origin}` are not numbered without gaps",
                expected=f"the numbers 0 to {len(tokens) - 1}",
                found=f"no token {number}; the numbers go from {min(tokens)} to {max(tokens)}",
            )
    return [tokens[number] for number in range(len(tokens))]


def _fail_on_disagreement(by_list: list[str], by_map: list[str], origin: str) -> NoReturn:
    found = f"{len(by_list)} tokens and {len(by_map)}"
    for number, (listed, mapped) in enumerate(zip(by_list, by_map, strict=False)):
        if listed != mapped:
            found = f"token {number} is `{listed}` and `{mapped}`"
            break
    fail("tokenizer", f"`itos` and `stoi` of `{origin}` disagree", found=found)


def _numbered(tokens: Sequence[str], origin: str) -> dict[str, int]:
    """Each token's number; every token must be there once and have some text."""
    numbers: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if not token:
            fail("tokenizer", f"token {number} of `{origin}` is empty")
        if token in numbers:
            fail(
                "tokenizer",
                f"`{origin}` has the token `{_shown(token)}` twice",
                found=f"as {numbers[token]} and as {number}, counted from 0",
            )
        numbers[token] = number
    if not numbers:
        fail("tokenizer", f"`{origin}` has no tokens")
    return numbers


def _check_given(given: dict[str, str | None], ids: dict[str, int], origin: str) -> None:
    wrong = [
        Diagnostic(
            "tokenizer",
            f"the token for {PURPOSES[role]} is not in `{origin}`",
            found=f"`{_shown(name)}`",
            help=did_you_mean(name, ids),
        )
        for role, name in given.items()
        if name is not None and name not in ids
    ]
    if wrong:
        raise ArchError(wrong)


def _ids_in_role(role: str, name: str | None, ids: dict[str, int]) -> tuple[int, ...]:
    """The number of the token named, else of every token with a usual name of the role."""
    if name is not None:
        return (ids[name],)
    return tuple(number for token, number in ids.items() if token.lower() in USUAL_NAMES[role])


def _shown(text: str) -> str:
    """The text as a message can hold it: on one line, with escapes where it must."""
    return text if text.isprintable() else repr(text)[1:-1]
