"""Text to tokens and back, by the tokenizer of a published checkpoint.

The package `tokenizers` does the work. `tokenizer_files` reads the files, `chat_templates`
renders chats. A plain list of tokens without merges is read by `vocabulary_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from archdsl.diagnostics import did_you_mean, fail
from archdsl.files import open_file
from archdsl.formats import resolve
from archdsl.text.chat_templates import MEBIBYTES, SECONDS, render
from archdsl.text.marian_vocabulary import MarianVocabulary, is_marian
from archdsl.text.special_tokens import PublishedTokenizer
from archdsl.text.subword_models import missing_bytes, reading, using
from archdsl.text.tokenizer_files import read_published
from archdsl.text.vocabulary_tokenizer import READERS, VocabularyTokenizer, read_vocabulary

_WEIGHTS = (".pt", ".pth", ".bin", ".safetensors")
_CHARACTERS = "meta.pkl"  # as nanoGPT names it

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def read_tokenizer(path: str | Path) -> TextTokenizer:
    """Reads a tokenizer from a folder, a file, or `package:NAME/inner` of an installed package.

    - A folder with `tokenizer.json`, with GPT-2's `vocab.json` and `merges.txt`, or with BERT's
      `vocab.txt`. Configs such as `tokenizer_config.json` are read too.
    - A folder of Marian, with `source.spm` and `vocab.json`, and `target_vocab.json` if the
      target has a vocabulary of its own.
    - A `tokenizer.json`. Its special tokens are those with a usual name.
    - A `.tiktoken` file with the ranks of GPT-2, cl100k or Qwen.
    - A `.gguf` file, of the tokenizer model `gpt2`, `llama`, `bert` or `t5`, with its chat
      template.
    - A plain list of tokens, such as letters: `.txt` with one per line, `.vocab`, `.pkl`, or a
      `.json` list; see `vocabulary_tokenizer.read_vocabulary`. As `tokenizer.json` in a folder,
      it is the folder's, such as that of a training run.
    - A file of weights, such as `ckpt.pt`: the table of characters `meta.pkl` beside it, or
      else the tokenizer of its folder.

    Raises `ArchError`: "file" if it cannot be read or a package is missing, "tokenizer" if it
    has no supported tokenizer ("checkpoint" for a damaged GGUF file).
    """
    place = _beside_weights(resolve(str(path)))
    if is_marian(place):
        return MarianTokenizer(MarianVocabulary(place))
    if _is_plain(place / "tokenizer.json"):
        place = place / "tokenizer.json"
    if _is_plain(place):
        return PlainTokenizer(read_vocabulary(place))
    return TextTokenizer(read_published(place), str(place))


class TextTokenizer:
    """A published tokenizer, returned by `read_tokenizer`.

    - `bos`, `eos`, `pad`: the ids of the start token, the end tokens and the padding token.
    - `vocabulary`: one more than the largest id.
    - `chat_template`: the chat template of the files, or None.
    - `origin`: its name in messages.
    """

    def __init__(self, published: PublishedTokenizer, origin: str):
        self._library = published.library
        self._missing_bytes = missing_bytes(published.library)
        self.origin = origin
        self.bos: int | None = published.bos
        self.eos: tuple[int, ...] = published.eos
        self.pad: int | None = published.pad
        self.chat_template: str | None = published.chat_template
        self._chat_tokens = published.chat_tokens
        numbers = {} if published.vocabulary else self._library.get_vocab()
        self.vocabulary: int = published.vocabulary or max(numbers.values()) + 1
        self._is_dense = self._library.get_vocab_size() == self.vocabulary

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Returns the token ids of a text, with the special tokens that the files add.

        Special tokens written in the text are recognised, as in the text of a chat. A chat has
        its own start token, so encode it with `add_special=False`. Raises `ArchError`
        "tokenizer" for a character that the vocabulary cannot encode, and for half a surrogate
        pair.
        """
        self._check_text(text)
        with using(self.origin):
            ids: list[int] = self._library.encode(text, add_special_tokens=add_special).ids
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Returns the text of token ids, without special tokens by default.

        Bytes that are not UTF-8 become U+FFFD. An id without a token has no text: a model may
        have more rows than its tokenizer has tokens. Raises `ArchError` "tokenizer" for
        numbers that are no ids.
        """
        numbers = [int(number) for number in ids]
        for number in numbers:
            if not 0 <= number < 1 << 32:
                fail(
                    "tokenizer",
                    f"no token of `{self.origin}` has the id {number}",
                    expected=f"an id from 0 to {self.vocabulary - 1}",
                    found=str(number),
                )
        with using(self.origin):
            text: str = self._library.decode(numbers, skip_special_tokens=skip_special)
        return text

    def piece(self, id: int) -> str:
        """Returns the text of one token, also of a special one."""
        return self.decode([id], skip_special=False)

    def without_token(self, below: int) -> list[int]:
        """Returns the ids from 0 to `below` - 1 that no token has."""
        start = self.vocabulary if self._is_dense else 0
        return [id for id in range(start, below) if not self._has_token(id)]

    def number(self, token: str) -> int:
        """Returns the id of a token by its name; raises `ArchError` "tokenizer" without one."""
        found: int | None = self._library.token_to_id(token)
        special = self._library.get_added_tokens_decoder().values()
        return self._check_name(token, found, (each.content for each in special))

    def special(self) -> dict[int, str]:
        """Returns the tokens that are no part of a text, such as the start token: their names
        by id."""
        added = self._library.get_added_tokens_decoder()
        return {number: each.content for number, each in added.items() if each.special}

    def _check_name(self, token: str, found: int | None, alike: Iterable[str]) -> int:
        if found is None:
            fail(
                "tokenizer",
                f"no token of `{self.origin}` has the name {token!a}",
                help=did_you_mean(token, alike),
            )
        return found

    def stream(self) -> Stream:
        """Returns a decoder of one token at a time, without special tokens."""
        return Stream(self.decode)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        prompt: bool = True,
        seconds: float = SECONDS,
        mebibytes: int = MEBIBYTES,
    ) -> str:
        """Renders messages with the chat template, to the text that the model answers to;
        without `prompt`, to the text of the messages alone.

        Each message has a `role` ("system", "user", "assistant", "tool") and a `content`; an
        assistant may have `tool_calls` instead. Encode the text with `add_special=False`. The
        template may take `seconds` of processor time, and `mebibytes` of memory. Raises
        `ArchError`: "tokenizer" if there is no template, if it refuses the messages or exceeds
        the limits, "file" if the package jinja2 is missing.
        """
        if self.chat_template is None:
            fail(
                "tokenizer",
                f"`{self.origin}` has no chat template",
                help="without a template, generate from a plain text: `archdsl generate`",
            )
        named = {"bos_token": self.bos, "eos_token": next(iter(self.eos), None)}
        named |= {"pad_token": self.pad}
        tokens = {
            name: None if number is None else self._library.id_to_token(number)
            for name, number in named.items()
        }
        tokens |= dict(self._chat_tokens)
        return render(
            self.chat_template,
            messages,
            tokens,
            prompt=prompt,
            seconds=seconds,
            mebibytes=mebibytes,
        )

    def _check_text(self, text: str) -> None:
        try:
            wrong = self._missing_bytes.intersection(text.encode())
            place = (
                next(i for i, c in enumerate(text) if wrong & {*c.encode()}) if wrong else None
            )
        except UnicodeEncodeError as error:
            place = error.start
        if place is not None:
            fail(
                "tokenizer",
                f"`{self.origin}` cannot encode the character {text[place]!a}",
                found=ascii(text[max(place - 10, 0) : place + 11]),
            )

    def _has_token(self, number: int) -> bool:
        return 0 <= number < self.vocabulary and self._library.id_to_token(number) is not None


class PlainTokenizer(TextTokenizer):
    """A plain list of tokens, with longest-match-first tokenization and no added tokens.

    >>> letters = PlainTokenizer(VocabularyTokenizer(["<eos>", "a", "b", "ab"]))
    >>> letters.encode("abba"), letters.decode([3, 2, 1, 0])
    ([3, 2, 1], 'abba')
    """

    def __init__(self, vocabulary: VocabularyTokenizer):
        self._vocabulary = vocabulary
        self.origin = vocabulary.origin
        self.bos = next(iter(vocabulary.ids_of["bos"]), None)
        self.eos = vocabulary.ids_of["eos"]
        self.pad = next(iter(vocabulary.ids_of["pad"]), None)
        self.chat_template = None
        self.vocabulary = len(vocabulary)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return self._vocabulary.encode(text)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        numbers = [self._vocabulary.check_id(int(number)) for number in ids]
        special = {number for role in self._vocabulary.ids_of.values() for number in role}
        shown = (n for n in numbers if not (skip_special and n in special))
        return "".join(self._vocabulary.tokens[number] for number in shown)

    def without_token(self, below: int) -> list[int]:
        return list(range(self.vocabulary, below))

    def number(self, token: str) -> int:
        tokens = self._vocabulary.tokens
        return self._check_name(token, tokens.index(token) if token in tokens else None, tokens)

    def special(self) -> dict[int, str]:
        return self._vocabulary.special()


def _beside_weights(place: Path) -> Path:
    """The tokenizer of a file of weights, which is beside it; for another path, the path."""
    if place.suffix.lower() not in _WEIGHTS or not place.is_file():
        return place
    table = place.parent / _CHARACTERS
    return table if table.is_file() else place.parent


class MarianTokenizer(TextTokenizer):
    """The tokenizer of Marian: its `encode` is for the source, its `decode` for the target."""

    def __init__(self, vocabulary: MarianVocabulary):
        self._vocabulary = vocabulary
        self.origin = vocabulary.origin
        self.bos, self.eos, self.pad = None, (vocabulary.end,), vocabulary.pad
        self.chat_template = None
        self.vocabulary = max(vocabulary.tokens) + 1

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return self._vocabulary.encode(text, add_special)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        return self._vocabulary.decode(ids, skip_special)

    def without_token(self, below: int) -> list[int]:
        return [number for number in range(below) if number not in self._vocabulary.tokens]

    def number(self, token: str) -> int:
        known = self._vocabulary.source
        return self._check_name(token, known.get(token), known)

    def special(self) -> dict[int, str]:
        return self._vocabulary.special()


def _is_plain(place: Path) -> bool:
    """Whether a file is a plain list of tokens."""
    suffix = place.suffix.lower()
    if suffix != ".json" or not place.is_file():
        return suffix in READERS and suffix != ".json"
    with reading(place), open_file(place) as file:
        return file.read(64).lstrip().startswith(b"[")


class Stream:
    """Decodes one token at a time, to whole characters.

    The texts of `push` and the final `flush` together are what `decode` returns for all tokens;
    only the number of U+FFFD for bytes that are not UTF-8 may differ. The time per token does
    not grow with the text, because only the last tokens are decoded again.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._context: list[int] = []  # the tokens of the last returned text
        self._pending: list[int] = []  # the tokens since then

    def push(self, token: int) -> str:
        """Returns the new text; empty while the last character is incomplete."""
        self._pending.append(token)
        text = self._new_text()
        # U+FFFD at the end may be the first bytes of a character.
        if not text or text.endswith(_REPLACEMENT):
            return ""
        self._context, self._pending = self._pending, []
        return text

    def flush(self) -> str:
        """Returns the text of the pending tokens, and resets the stream."""
        text = self._new_text()
        self._context, self._pending = [], []
        return text

    def _new_text(self) -> str:
        """Returns the text of the pending tokens, with the space before a word."""
        before = self._decode(self._context)
        text = self._decode(self._context + self._pending)
        # Invalid bytes can change the character before them.
        return text[len(before) :] if text.startswith(before) else self._decode(self._pending)
