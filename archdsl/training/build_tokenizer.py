"""The tokenizer of the training data: characters, bytes, trained byte-pairs, or a given one.

What is built is stored as a file that `archdsl.read_tokenizer` reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import digest, key_of
from archdsl.diagnostics import did_you_mean, fail
from archdsl.formats import resolve
from archdsl.formats.atomic import replacing
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Input
from archdsl.text.subword_models import import_tokenizers, letters, using
from archdsl.text.tokenizer import PlainTokenizer, TextTokenizer, read_tokenizer
from archdsl.text.vocabulary_tokenizer import USUAL_NAMES
from archdsl.training.roles import set_bound
from archdsl.training.token_file import place_of

Texts = Callable[[], Iterable[str]]  # the texts of the data, from their start
END, START, PADDING = "<eos>", "<bos>", "<pad>"
_PAIRS = re.compile(r"bpe:([1-9][0-9]*)")
_EXPECTED = "`characters`, `bytes`, `bpe:4096`, or the path of a tokenizer"


class Chosen(Frozen):
    """A tokenizer, the file or folder that it was read from, and its name for people.

    `key` changes if the tokenizer gives other tokens.
    """

    tokenizer: TextTokenizer
    path: Path | None
    name: str
    key: str


def choose_tokenizer(
    asked: str | Path | TextTokenizer | None,
    texts: Texts,
    identity: str,
    tokens: Sequence[Input],
    special: Sequence[str] = (),
) -> Chosen:
    """The tokenizer that was asked for; by default, of characters.

    - `texts`: what a new vocabulary is made of; `identity` changes if they do.
    - `tokens`: the inputs of the model that get tokens. Their padding has a token of its own.
    - `special`: further tokens that a new vocabulary has, such as the end token.

    Raises `ArchError`: "tokenizer" if the vocabulary is larger than an input allows, or if
    there is no such tokenizer; "file" if a package is missing.
    """
    if isinstance(asked, TextTokenizer):
        found = _given(asked)
    elif asked in (None, "characters", "bytes") or _PAIRS.fullmatch(str(asked)):
        found = _built(str(asked or "characters"), texts, identity, tokens, special)
    else:
        place = resolve(str(asked))
        if not place.exists():
            help = did_you_mean(str(asked), ("characters", "bytes"))
            fail("tokenizer", f"there is no tokenizer `{asked}`", expected=_EXPECTED, help=help)
        found = _given(read_tokenizer(place), place)
    for each in tokens:
        _check_bound(found, each)
    return found


def encoder(tokenizer: TextTokenizer) -> Callable[[str], NDArray[Any]]:
    """The function from a text to its tokens [n], without special tokens; fast if each token
    is one character."""
    table = _characters(tokenizer) if isinstance(tokenizer, PlainTokenizer) else None

    def encode(text: str) -> NDArray[Any]:
        if table is None:
            return np.array(tokenizer.encode(text, add_special=False), np.uint32)
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)  # [n]
        found = table[np.minimum(points, len(table) - 1)]  # [n]
        if len(missing := np.flatnonzero(found < 0)):
            place = int(missing[0])
            tokenizer.encode(text[place : place + 20])  # which reports it
        return found.astype(np.uint32)

    return encode


def note_on_size(found: Chosen, each: Input) -> str | None:
    """What to say of a vocabulary that is smaller than the model's."""
    size, below = found.tokenizer.vocabulary, each.type.below
    if below is None or size >= below:
        return None
    return (
        f"the tokenizer has {size} tokens, the model {below}; {set_bound(each, size)} makes "
        "it smaller"
    )


# -- given --


def _given(tokenizer: TextTokenizer, path: Path | None = None) -> Chosen:
    numbers = range(tokenizer.vocabulary)
    known = {*range(tokenizer.vocabulary)} - {*tokenizer.without_token(tokenizer.vocabulary)}
    tokens = (tokenizer.decode([n], skip_special=False) for n in numbers if n in known)
    key = digest(repr(token).encode() for token in tokens).hex()
    name = f"the tokenizer `{tokenizer.origin}` with {tokenizer.vocabulary} tokens"
    origin = Path(tokenizer.origin)
    return Chosen(tokenizer, path or (origin if origin.exists() else None), name, key)


def _characters(tokenizer: TextTokenizer) -> NDArray[np.int64] | None:
    """[points]: the token of each code point, -1 without one; None if a token has several
    characters. The last entry is -1."""
    usual = {name for names in USUAL_NAMES.values() for name in names}
    numbers = range(tokenizer.vocabulary)
    tokens = {n: tokenizer.decode([n], skip_special=False) for n in numbers}
    normal = {n: token for n, token in tokens.items() if token.lower() not in usual}
    if any(len(token) != 1 for token in normal.values()):
        return None
    table = np.full(max(map(ord, normal.values()), default=0) + 2, -1)
    for number, token in normal.items():
        table[ord(token)] = number
    return table


def _check_bound(found: Chosen, each: Input) -> None:
    size, below = found.tokenizer.vocabulary, each.type.below
    if below is not None and size > below:
        smaller = f", or a smaller vocabulary: `--tokenizer bpe:{below}`" if below > 300 else ""
        fail(
            "tokenizer",
            f"the vocabulary is too large for `{each.name}`",
            each.span,
            expected=f"at most {below} tokens",
            found=found.name,
            help=f"{set_bound(each, size)}{smaller}",
        )


# -- built --


def _built(
    name: str, texts: Texts, identity: str, inputs: Sequence[Input], special: Sequence[str]
) -> Chosen:
    pads = {each.name: each.pad for each in inputs if each.pad is not None}
    if len({*pads.values()}) > 1:
        fail(
            "tokenizer",
            "a new vocabulary has one padding token, but the inputs have several",
            found=", ".join(f"`{input}` has pad {pad}" for input, pad in pads.items()),
            help="use the same `pad` in all of them, or give a tokenizer",
        )
    pad = next(iter(pads.values()), None)
    key = key_of("tokenizer", 1, name, identity, pad, tuple(special))
    path = place_of(f"{key}.json")
    if not path.exists():
        if name == "characters":
            found = set[str]()
            for text in texts():
                found.update(text)
            _write_list(path, _with_special(sorted(found), special, pad))
        else:
            _write_library(path, _byte_pairs(name, texts, special, pad))
    tokenizer = read_tokenizer(path)
    size = tokenizer.vocabulary
    shown = {"characters": f"{size} characters", "bytes": f"{size} bytes"}
    if special or pad is not None:
        shown = {kind: f"{text} and special tokens" for kind, text in shown.items()}
    return Chosen(tokenizer, path, shown.get(name, f"{size} byte-pairs"), key)


def _with_special(tokens: Sequence[str], special: Sequence[str], pad: int | None) -> list[str]:
    """All tokens in the order of their numbers: special ones first, padding at its number."""
    found = [*special, *tokens]
    if pad is None:
        return found
    if pad > len(found):
        fail(
            "tokenizer",
            f"the padding is token {pad}, but there are only {len(found)} other tokens",
            help="use `pad 0` in the spec",
        )
    return [*found[:pad], PADDING, *found[pad:]]


def _write_list(path: Path, tokens: Sequence[str]) -> None:
    import json

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(tokens), encoding="utf-8")


def _write_library(path: Path, library: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(library.to_str(), encoding="utf-8")


def _byte_pairs(name: str, texts: Texts, special: Sequence[str], pad: int | None) -> Any:
    """Byte-level BPE (Radford et al. 2019, section 2.2) with `n` tokens for the name `bpe:n`,
    or without merges for the name `bytes`."""
    tokenizers = import_tokenizers()
    before = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_ = [letters(bytes([byte])) for byte in range(256)]
    base = _with_special(bytes_, special, pad)
    extra = [token for token in base if token not in set(bytes_)]
    merges: list[tuple[str, str]] = []
    vocabulary = {token: number for number, token in enumerate(base)}
    if name != "bytes":
        size = int(name.partition(":")[2])
        if size < len(base):
            fail(
                "tokenizer",
                f"`{name}` is too small: each byte is a token",
                expected=f"`bpe:{len(base)}` or more",
            )
        vocabulary, merges = _trained(texts(), size - len(extra), base, before)
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    library.pre_tokenizer, library.decoder = before, tokenizers.decoders.ByteLevel()
    library.add_special_tokens(extra)
    if START in extra:  # as for sources and targets
        library.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{START} $A {END}",
            special_tokens=[(each, vocabulary[each]) for each in (START, END)],
        )
    return library


def _trained(
    texts: Iterable[str], size: int, base: Sequence[str], before: Any
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges of `size` byte-pairs, after the tokens of `base`."""
    import json

    tokenizers = import_tokenizers()
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = before
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with using("bpe"):
        library.train_from_iterator(_by_line(texts), trainer)
    found = json.loads(library.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in found["merges"]]
    tokens = [*base, *(first + second for first, second in merges)]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def _by_line(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from text.splitlines(keepends=True)
