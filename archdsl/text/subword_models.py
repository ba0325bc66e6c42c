"""The three ways of cutting text into tokens, built as tokenizers of the library `tokenizers`.

Bytes that are merged, as GPT-2 has them; sentence pieces, as Llama 2 has them; and word pieces,
as BERT has them. What files say of their tokens is left to `tokenizer_files`.
"""

from __future__ import annotations

import importlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from archdsl.diagnostics import ArchError, fail, listing

Pair = tuple[str, str]

_DIGITS = r"\p{N}"
_LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN = _LLAMA.replace(r"\p{N}{1,3}", _DIGITS)

CUTS = {
    "gpt-2": None,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "llama-bpe": _LLAMA,
    "llama3": _LLAMA,
    "llama-v3": _LLAMA,
    "qwen2": _QWEN,
    "deepseek-r1-qwen": _QWEN,
}
"""Where a text is cut before bytes are merged, by the name that GGUF files have for it.

Each match of the expression is a piece. GPT-2's cuts (Radford et al. 2019, section 2.2), which
the library has, are made where there is none, and after digits are singled out.
"""

_BERT = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def _letters() -> dict[int, str]:
    """The visible character that stands for each byte: its own in Latin-1, where it has one."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        b: chr(256 + i) for i, b in enumerate(hidden)
    }


_LETTERS = _letters()


def unwritten_bytes(library: Any) -> frozenset[int]:
    """The bytes that a byte-level vocabulary has no token for; other kinds have none.

    The library leaves such bytes out of a text without a word.
    """
    if not isinstance(library.decoder, library_package().decoders.ByteLevel):
        return frozenset()
    known = library.token_to_id
    return frozenset(byte for byte, letter in _LETTERS.items() if known(letter) is None)


def letters(token: bytes) -> str:
    """A token of bytes as byte-level vocabularies write it.

    >>> letters(b" a\\n")
    'ĠaĊ'
    """
    return "".join(_LETTERS[byte] for byte in token)


def byte_level(
    vocabulary: Mapping[str, int],
    merges: Sequence[Pair],
    cuts: str,
    origin: Path,
    whole: bool = False,
) -> Any:
    """Byte-pair encoding over bytes, each written as one visible character (Radford et al.).

    `cuts` is a key of `CUTS`. Where `whole`, a piece that is a token is taken as it is,
    whatever the merges say; Llama 3's encoding does so too.
    """
    tokenizers = library_package()
    pre, expression = tokenizers.pre_tokenizers, CUTS[cuts]
    with reading(origin):
        model = tokenizers.models.BPE(dict(vocabulary), list(merges))
    model.ignore_merges = whole or expression == _LLAMA
    library = tokenizers.Tokenizer(model)
    ours = [pre.ByteLevel(add_prefix_space=False, use_regex=expression in (None, _DIGITS))]
    if expression is not None:
        ours.insert(0, pre.Split(tokenizers.Regex(expression), "isolated"))
    library.pre_tokenizer = pre.Sequence(ours)
    if expression == _QWEN:
        library.normalizer = tokenizers.normalizers.NFC()
    library.decoder = tokenizers.decoders.ByteLevel()
    return library


def sentence_pieces(
    scores: Mapping[str, float],
    vocabulary: Mapping[str, int],
    unknown: str | None,
    prefix: bool,
    origin: Path,
) -> Any:
    """Pieces of text in which `▁` is a space, the pair of the best score merged first.

    `scores` are those of the pieces that text is made of; other tokens of the vocabulary are
    never made by merging. A character that is no piece is written in bytes, `<0x00>` to
    `<0xFF>`, or is the unknown token. Where `prefix`, a space is put before each text (Kudo
    and Richardson 2018, "SentencePiece", section 3).
    """
    bytes_known = all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    if unknown is None and not bytes_known:
        fail("tokenizer", f"{origin}: neither every byte nor what is unknown has a token")
    tokenizers = library_package()
    best_first = sorted(scores, key=lambda piece: (-scores[piece], vocabulary[piece]))
    merges = list(splits(best_first, vocabulary, scores))
    with reading(origin):
        model = tokenizers.models.BPE(
            dict(vocabulary), merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    library = tokenizers.Tokenizer(model)
    before, after = tokenizers.normalizers, tokenizers.decoders
    library.normalizer = before.Sequence(
        [before.Prepend("▁")] * prefix + [before.Replace(" ", "▁")]
    )
    library.decoder = after.Sequence(
        [after.Replace("▁", " "), after.ByteFallback(), after.Fuse()]
        + [after.Strip(" ", 1, 0)] * prefix
    )
    return library


def splits(
    tokens: Iterable[str], vocabulary: Mapping[str, int], pieces: Container[str]
) -> Iterator[Pair]:
    """The pairs of pieces that merge into each token, in the order of the tokens.

    >>> list(splits(["abc"], {"a": 0, "ab": 1, "bc": 2, "c": 3}, {"a", "ab", "bc", "c"}))
    [('a', 'bc'), ('ab', 'c')]
    """
    for token in tokens:
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in pieces and pair[1] in pieces]
        yield from sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))


def pairs(lines: Iterable[str], origin: Path) -> list[Pair]:
    """The two tokens of each merge, which stand on a line with a space between them."""
    merges = [tuple(line.split(" ")) for line in lines]
    if wrong := {*map(len, merges)} - {2}:
        line = next(" ".join(each) for each in merges if len(each) in wrong)
        fail("tokenizer", f"{origin}: a merge is two tokens", found=repr(line)[:80])
    return cast(list[Pair], merges)


def word_pieces(
    tokens: Sequence[str],
    origin: Path,
    *,
    lower: bool | None = None,
    chinese: bool = True,
    accents: bool | None = None,
) -> Any:
    """Words, and pieces of words behind `##`, between `[CLS]` and `[SEP]` (Devlin et al. 2019).

    `lower` reads capitals as small letters: None where the vocabulary has no capitals.
    `chinese` makes a word of each Chinese character, and `accents` takes accents off letters:
    None where capitals go too.
    """
    missing = [each for each in ("[UNK]", "[CLS]", "[SEP]") if each not in tokens]
    if missing:
        expected = "a vocabulary of word pieces, with `[UNK]`, `[CLS]` and `[SEP]`"
        fail(
            "tokenizer",
            f"{origin}: no word pieces",
            expected=expected,
            found=f"no {listing(missing)}",
        )
    special = [token for token in tokens if token in _BERT]
    if lower is None:
        lower = all(token == token.lower() for token in {*tokens} - _BERT)
    tokenizers = library_package()
    numbers = {token: number for number, token in enumerate(tokens)}
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))
    with reading(origin):
        library.normalizer = tokenizers.normalizers.BertNormalizer(
            handle_chinese_chars=chinese, strip_accents=accents, lowercase=lower
        )
    library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    library.decoder = tokenizers.decoders.WordPiece(prefix="##")
    library.add_special_tokens(special)
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])],
    )
    return library


def library_package() -> Any:
    """The package `tokenizers`, which takes a moment to import."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        fail(
            "file",
            "the package `tokenizers`, which turns text into tokens, is not installed",
            help="pip install 'archdsl[text]'",
            cause=error,
        )


@contextmanager
def reading(origin: Path) -> Iterator[None]:
    """Turns what goes wrong inside into an `ArchError` that names the file."""
    try:
        yield
    except ArchError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        fail("file", f"cannot read `{origin}`: {reason}", cause=error)
    except Exception as error:  # the library raises plain exceptions
        fail(
            "tokenizer",
            f"{origin}: it is damaged, or no tokenizer",
            found=str(error),
            cause=error,
        )
