"""The three subword models, as tokenizers of the package `tokenizers`.

Byte-level BPE as in GPT-2, SentencePiece BPE as in Llama 2, and WordPiece as in BERT.
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
QWEN_SPLIT = _LLAMA.replace(r"\p{N}{1,3}", _DIGITS)

PRE_TOKENIZERS = {
    "gpt-2": None,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "llama-bpe": _LLAMA,
    "llama3": _LLAMA,
    "llama-v3": _LLAMA,
    "qwen2": QWEN_SPLIT,
    "deepseek-r1-qwen": QWEN_SPLIT,
}
"""The regular expressions that split a text before bytes are merged, by their GGUF names.

Each match is a piece. None, and the expression of single digits, also use GPT-2's split, which
the package has (Radford et al. 2019, section 2.2).
"""

_BERT = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def _byte_letters() -> dict[int, str]:
    """Returns GPT-2's visible character of each byte: in Latin-1 if it is visible there."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        b: chr(256 + i) for i, b in enumerate(hidden)
    }


_LETTERS = _byte_letters()


def missing_bytes(library: Any) -> frozenset[int]:
    """Returns the bytes without a token in a byte-level vocabulary; other kinds have none.

    The package `tokenizers` drops such bytes without an error.
    """
    if not isinstance(library.decoder, import_tokenizers().decoders.ByteLevel):
        return frozenset()
    known = library.token_to_id
    return frozenset(byte for byte, letter in _LETTERS.items() if known(letter) is None)


def letters(token: bytes) -> str:
    """Returns a token of bytes as byte-level vocabularies write it.

    >>> letters(b" a\\n")
    'ĠaĊ'
    """
    return "".join(_LETTERS[byte] for byte in token)


def build_byte_level(
    vocabulary: Mapping[str, int],
    merges: Sequence[Pair],
    pre_tokenizer: str,
    origin: Path,
    whole: bool = False,
) -> Any:
    """Builds byte-level BPE: each byte is written as one visible character (Radford et al.).

    `pre_tokenizer` is a key of `PRE_TOKENIZERS`. With `whole`, a piece that is a token is not
    split, regardless of the merges; the Llama 3 encoding always does this.
    """
    tokenizers = import_tokenizers()
    pre, expression = tokenizers.pre_tokenizers, PRE_TOKENIZERS[pre_tokenizer]
    with reading(origin):
        model = tokenizers.models.BPE(dict(vocabulary), list(merges))
    model.ignore_merges = whole or expression == _LLAMA
    library = tokenizers.Tokenizer(model)
    steps = [pre.ByteLevel(add_prefix_space=False, use_regex=expression in (None, _DIGITS))]
    if expression is not None:
        steps.insert(0, pre.Split(tokenizers.Regex(expression), "isolated"))
    library.pre_tokenizer = pre.Sequence(steps)
    if expression == QWEN_SPLIT:
        library.normalizer = tokenizers.normalizers.NFC()
    library.decoder = tokenizers.decoders.ByteLevel()
    return library


def build_sentencepiece(
    scores: Mapping[str, float],
    vocabulary: Mapping[str, int],
    unknown: str | None,
    prefix: bool,
    origin: Path,
) -> Any:
    """Builds SentencePiece BPE: `▁` is a space, and the pair with the best score merges first.

    `scores` are those of the pieces; other tokens of the vocabulary are never merged. A
    character that is not a piece becomes byte tokens `<0x00>` to `<0xFF>`, or the unknown
    token. With `prefix`, a space is added before each text (Kudo and Richardson 2018,
    "SentencePiece", section 3).
    """
    bytes_known = all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    if unknown is None and not bytes_known:
        fail(
            "tokenizer",
            f"{origin}: the vocabulary cannot encode every text",
            expected="a token for each byte (`<0x00>` to `<0xFF>`), or an unknown token",
            found="neither",
        )
    tokenizers = import_tokenizers()
    best_first = sorted(scores, key=lambda piece: (-scores[piece], vocabulary[piece]))
    merges = list(find_merges(best_first, vocabulary, scores))
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


def find_merges(
    tokens: Iterable[str], vocabulary: Mapping[str, int], pieces: Container[str]
) -> Iterator[Pair]:
    """Yields the pairs of pieces that merge to each token, in the order of the tokens.

    >>> list(find_merges(["abc"], {"a": 0, "ab": 1, "bc": 2, "c": 3}, {"a", "ab", "bc", "c"}))
    [('a', 'bc'), ('ab', 'c')]
    """
    for token in tokens:
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in pieces and pair[1] in pieces]
        yield from sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))


def parse_merges(lines: Iterable[str], origin: Path) -> list[Pair]:
    """Parses merges: two tokens per line, separated by a space."""
    merges = [tuple(line.split(" ")) for line in lines]
    if wrong := {*map(len, merges)} - {2}:
        line = next(" ".join(each) for each in merges if len(each) in wrong)
        fail(
            "tokenizer",
            f"{origin}: a merge does not have two tokens",
            expected="two tokens, separated by a space",
            found=repr(line)[:80],
        )
    return cast(list[Pair], merges)


def build_wordpiece(
    tokens: Sequence[str],
    origin: Path,
    *,
    lower: bool | None = None,
    chinese: bool = True,
    accents: bool | None = None,
) -> Any:
    """Builds WordPiece, with texts between `[CLS]` and `[SEP]` (Devlin et al. 2019).

    - `lower`: convert to lower case. Default: if the vocabulary has no upper case.
    - `chinese`: make each Chinese character a word.
    - `accents`: strip accents. Default: if `lower`.
    """
    missing = [each for each in ("[UNK]", "[CLS]", "[SEP]") if each not in tokens]
    if missing:
        expected = "the tokens `[UNK]`, `[CLS]` and `[SEP]`"
        fail(
            "tokenizer",
            f"{origin}: this is not a WordPiece vocabulary",
            expected=expected,
            found=f"no {listing(missing)}",
        )
    special = [token for token in tokens if token in _BERT]
    if lower is None:
        lower = all(token == token.lower() for token in {*tokens} - _BERT)
    tokenizers = import_tokenizers()
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


def import_tokenizers() -> Any:
    """Imports the package `tokenizers`, which is slow to import."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        fail(
            "file",
            "tokenizers need the package `tokenizers`, which is not installed",
            help="pip install 'archdsl[text]'",
            cause=error,
        )


@contextmanager
def reading(origin: Path) -> Iterator[None]:
    """Converts errors within the block to an `ArchError` that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        fail("file", f"cannot read `{origin}`: {reason}", cause=error)
    except BaseException as error:
        _check_library(error)
        fail(
            "tokenizer",
            f"`{origin}` is damaged, or is not a tokenizer file",
            found=str(error),
            cause=error,
        )


@contextmanager
def using(origin: str) -> Iterator[None]:
    """Converts errors of the package `tokenizers` within the block to an `ArchError`."""
    try:
        yield
    except BaseException as error:
        _check_library(error)
        fail(
            "tokenizer",
            f"the tokenizer of `{origin}` cannot convert this text",
            found=str(error)[:200],
            help="its file may be damaged; compare it with the published one",
            cause=error,
        )


def _check_library(error: BaseException) -> None:
    """Raises an error again that is not one of the package `tokenizers`.

    It raises plain exceptions, and `PanicException`, which is none, for its own mistakes.
    """
    panic = type(error).__name__ == "PanicException"
    if isinstance(error, ArchError) or not (panic or isinstance(error, Exception)):
        raise error
