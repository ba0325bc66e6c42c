"""Text to tokens and back, by the tokenizer of a published checkpoint.

The package `tokenizers` does the work. `tokenizer_files` reads the files, `chat_templates`
renders chats. A plain list of tokens without merges is read by `vocabulary_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from archdsl.diagnostics import did_you_mean, fail
from archdsl.formats import resolve
from archdsl.text.chat_templates import render
from archdsl.text.special_tokens import Published
from archdsl.text.subword_models import unwritten_bytes
from archdsl.text.tokenizer_files import read_published
from archdsl.text.vocabulary_tokenizer import READERS, VocabularyTokenizer, read_vocabulary

_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


def read_tokenizer(path: str | Path) -> TextTokenizer:
    """The tokenizer in a folder or a file, or in `package:NAME/inner` of an installed package.

    - a folder with `tokenizer.json`, with GPT-2's `vocab.json` and `merges.txt`, or with BERT's
      `vocab.txt`; what `tokenizer_config.json` and the like say beside it is read too;
    - a `tokenizer.json` alone: special tokens are those with a usual name;
    - a `.tiktoken` file of ranks: GPT-2's, cl100k or Qwen's;
    - a `.gguf` file, of the kind `gpt2` or `llama`, with the chat template in it;
    - a plain list of tokens, such as letters: `.txt` with a line each, `.vocab`, `.pkl`, or a
      list in a `.json` file, as `tokenizers.read_vocabulary` says.

    Raises `ArchError`: "file" where it cannot be read or a package is missing, "tokenizer" (a
    damaged GGUF file: "checkpoint") where it holds no tokenizer or one that is not known.
    """
    place = resolve(str(path))
    if _is_plain(place):
        return PlainTokenizer(read_vocabulary(place))
    return TextTokenizer(read_published(place), str(place))


class TextTokenizer:
    """A published tokenizer; `read_tokenizer` makes it.

    `bos`, `eos` and `pad` are the numbers of the tokens that start a sequence, end it (there
    may be several) and fill up a batch; `vocabulary` is one more than the largest number;
    `chat_template` is the template that the files carry. `origin` is what messages call it.
    """

    def __init__(self, published: Published, origin: str):
        self._library = published.library
        self._unwritten = unwritten_bytes(published.library)
        self.origin = origin
        self.bos: int | None = published.bos
        self.eos: tuple[int, ...] = published.eos
        self.pad: int | None = published.pad
        self.chat_template: str | None = published.chat_template
        numbers = {} if published.vocabulary else self._library.get_vocab()
        self.vocabulary: int = published.vocabulary or max(numbers.values()) + 1

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """The numbers of the text's tokens, between the special ones that the files put there.

        Special tokens that are written out in the text count as such, which the text of a chat
        needs; it has its own start token, so `add_special=False` goes with it. Raises
        `ArchError` "tokenizer" at a character that the vocabulary has no bytes for, and at
        half a surrogate pair, which is no character.
        """
        self._check(text)
        ids: list[int] = self._library.encode(text, add_special_tokens=add_special).ids
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of the tokens, without special ones unless asked.

        Bytes that are no UTF-8 stand as U+FFFD. Raises `ArchError` "tokenizer" for a number
        that no token has.
        """
        numbers = [int(number) for number in ids]
        for number in numbers:
            if not self._knows(number):
                fail(
                    "tokenizer",
                    f"no such token in `{self.origin}`",
                    expected=f"a number from 0 to {self.vocabulary - 1} that a token has",
                    found=str(number),
                )
        text: str = self._library.decode(numbers, skip_special_tokens=skip_special)
        return text

    def number(self, token: str) -> int:
        """The number of the token of this name; raises `ArchError` "tokenizer" for none."""
        found: int | None = self._library.token_to_id(token)
        special = self._library.get_added_tokens_decoder().values()
        return self._named(token, found, (each.content for each in special))

    def _named(self, token: str, found: int | None, alike: Iterable[str]) -> int:
        if found is None:
            fail(
                "tokenizer",
                f"no token of `{self.origin}` has the name {token!a}",
                help=did_you_mean(token, alike),
            )
        return found

    def stream(self) -> Stream:
        """What turns tokens into text as they come, without special ones."""
        return Stream(self.decode)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The messages as the text that the model answers to, by its own chat template.

        Each message has a `role` ("system", "user", "assistant") and a `content`. Encode the
        text with `add_special=False`. Raises `ArchError` "tokenizer" where there is no
        template, or it refuses the messages; "file" where the package jinja2 is missing.
        """
        if self.chat_template is None:
            fail(
                "tokenizer",
                f"`{self.origin}` has no chat template",
                help="a model without one continues a text: give it the text as it is",
            )
        named = {"bos_token": self.bos, "eos_token": next(iter(self.eos), None)}
        named |= {"pad_token": self.pad}
        tokens = {
            name: None if number is None else self._library.id_to_token(number)
            for name, number in named.items()
        }
        return render(self.chat_template, messages, tokens)

    def _check(self, text: str) -> None:
        try:
            wrong = self._unwritten.intersection(text.encode())
            place = (
                next(i for i, c in enumerate(text) if wrong & {*c.encode()}) if wrong else None
            )
        except UnicodeEncodeError as error:
            place = error.start
        if place is not None:
            fail(
                "tokenizer",
                f"no tokens of `{self.origin}` can write {text[place]!a}",
                found=ascii(text[max(place - 10, 0) : place + 11]),
            )

    def _knows(self, number: int) -> bool:
        return 0 <= number < self.vocabulary and self._library.id_to_token(number) is not None


class PlainTokenizer(TextTokenizer):
    """A plain list of tokens: at each place of a text the longest that stands there is taken,
    and nothing is added to it.

    >>> letters = PlainTokenizer(VocabularyTokenizer(["<eos>", "a", "b", "ab"]))
    >>> letters.encode("abba"), letters.decode([3, 2, 1, 0])
    ([3, 2, 1], 'abba')
    """

    def __init__(self, words: VocabularyTokenizer):
        self._words = words
        self.origin = words.origin
        self.bos = next(iter(words.ids_of["bos"]), None)
        self.eos = words.ids_of["eos"]
        self.pad = next(iter(words.ids_of["pad"]), None)
        self.chat_template = None
        self.vocabulary = len(words)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return self._words.encode(text)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        numbers = [self._words.known(int(number)) for number in ids]
        silent = {number for role in self._words.ids_of.values() for number in role}
        said = (n for n in numbers if not (skip_special and n in silent))
        return "".join(self._words.tokens[number] for number in said)

    def number(self, token: str) -> int:
        tokens = self._words.tokens
        return self._named(token, tokens.index(token) if token in tokens else None, tokens)


def _is_plain(place: Path) -> bool:
    """Whether a file is a plain list of tokens."""
    suffix = place.suffix.lower()
    if suffix != ".json" or not place.is_file():
        return suffix in READERS and suffix != ".json"
    with place.open("rb") as file:
        return file.read(64).lstrip().startswith(b"[")


class Stream:
    """Text that grows by a token at a time, never by a part of a character.

    What `push` returns and what `flush` returns at the end are together what `decode` makes
    of all tokens at once; only bytes that are no UTF-8 may be marked by other numbers of
    U+FFFD. Only the last tokens are decoded anew, so a long text costs no more a token than a
    short one.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._said: list[int] = []  # the tokens that the last text came from
        self._held: list[int] = []  # those since then

    def push(self, token: int) -> str:
        """The text that is certain now: nothing while the last character is incomplete."""
        self._held.append(token)
        text = self._news()
        # A U+FFFD at the end may be the first bytes of a character.
        if not text or text.endswith(_UNREADABLE):
            return ""
        self._said, self._held = self._held, []
        return text

    def flush(self) -> str:
        """What is held back, as it is; the stream then begins anew."""
        text = self._news()
        self._said, self._held = [], []
        return text

    def _news(self) -> str:
        """The text of the held tokens, with the space that words have behind words."""
        before = self._decode(self._said)
        text = self._decode(self._said + self._held)
        # Broken bytes can undo the character before them.
        return text[len(before) :] if text.startswith(before) else self._decode(self._held)
