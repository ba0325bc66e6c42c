"""Text as windows of tokens, for models that predict the next token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import key_of
from archdsl.diagnostics import fail
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph, Input
from archdsl.training import files, token_file
from archdsl.training.build_tokenizer import Chosen, encoder
from archdsl.training.splits import VALID_PART
from archdsl.training.token_file import Stored

Parts = Callable[[tuple[Path, ...]], Iterable[NDArray[Any]]]  # the tokens of files, in parts


class TextWindows:
    """Windows of a text: `length` tokens from each multiple of `stride`.

    `tokens` [n] are those of the text, `name` the input that gets them. `marked` are names of
    labels bool[T] that are true at all tokens.
    """

    def __init__(
        self,
        tokens: NDArray[Any],
        checksum: str,
        name: str,
        length: int,
        stride: int,
        marked: tuple[str, ...] = (),
    ):
        self.tokens, self.name, self.length, self.stride = tokens, name, length, stride
        self.marked = marked
        self.fingerprint = key_of("text", checksum, len(tokens), length, stride)

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.length) // self.stride + 1)

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Windows by their numbers: int32 [B, length]."""
        places = numbers[:, None] * self.stride + np.arange(self.length)  # [B, length]
        found = self.tokens[places].astype(np.int32)  # [B, length]
        return {self.name: found} | {
            name: np.ones(found.shape, np.bool_) for name in self.marked
        }

    def describe(self) -> str:
        return f"{len(self.tokens):,} tokens, in windows of {self.length}"


class Split(Frozen):
    """The tokens of a text for training and for validation, and what to say of them."""

    train: Stored
    valid: Stored
    note: str | None = None


def read_tokens(found: files.Files, key: str, size: int, parts: Parts) -> Split:
    """The tokens of files, from the cache or written to it; without files for validation, the
    last tenth is for it.

    `parts` gives the tokens of files; `key` changes if others do. `size` is that of the
    vocabulary.
    """
    kind = np.uint16 if size <= 1 << 16 else np.uint32

    def stored(paths: tuple[Path, ...]) -> Stored:
        name = key_of("text", 1, [str(each.resolve()) for each in paths], key)
        path = token_file.place_of(f"{name}.tokens")
        return token_file.read(path) or token_file.write(path, kind, parts(paths))

    train = stored(found.train)
    if found.valid:
        return Split(train, stored(found.valid))
    cut = len(train.numbers) - len(train.numbers) // VALID_PART
    first, last = (
        Stored(part, train.checksum) for part in (train.numbers[:cut], train.numbers[cut:])
    )
    note = f"the last {100 // VALID_PART} % of the text are for validation"
    return Split(first, last, note)


def windows(
    split: Split, graph: Graph, each: Input, length: int | None, marked: tuple[str, ...] = ()
) -> tuple[TextWindows, TextWindows | None, list[str]]:
    """The windows for training, which start anywhere, and those for validation, which do not
    overlap; and what to say of them.

    Raises `ArchError`: "argument-value" if the model has no such length, "input" if the text
    has no window of it.
    """
    wanted = window_length(graph, each, length)
    train = TextWindows(split.train.numbers, split.train.checksum, each.name, wanted, 1, marked)
    valid = TextWindows(
        split.valid.numbers, split.valid.checksum, each.name, wanted, wanted, marked
    )
    notes = [split.note] if split.note else []
    for what, windows in (("training", train), ("validation", valid)):
        if windows or (windows is valid and split.note):
            continue
        fail(
            "input",
            f"the text for {what} is shorter than a window",
            expected=f"{wanted} tokens or more",
            found=f"{len(windows.tokens)} tokens",
            help="use more text, or a shorter window: `--length`",
        )
    if not valid:
        share = f"{len(valid.tokens)} tokens, fewer than a window of {wanted}"
        notes = [f"no validation: the last {100 // VALID_PART} % of the text are {share}"]
    return train, valid or None, notes


def window_length(graph: Graph, each: Input, length: int | None) -> int:
    """The positions of a window: `length`, by default all that the model has."""
    (axis,) = each.type.axes
    bounds = graph.bounds
    leasts = {varying.name: varying.least for varying in graph.varying}
    loss = graph.objective("next_token")
    ahead = int(str(loss.attr["ahead"])) if loss else 0
    most, least = axis.size.at(bounds), max(axis.size.at(leasts), ahead + 1)
    if length is not None and not least <= length <= most:
        fail(
            "argument-value",
            f"`{each.name}` cannot have {length} positions",
            each.span,
            expected=f"length from {least} to {most}",
        )
    return most if length is None else length


def check_padding(numbers: NDArray[Any], each: Input, chosen: Chosen) -> None:
    """Reports a token of a text that the model takes for padding."""
    if each.pad is not None and (numbers == each.pad).any():
        fail(
            "tokenizer",
            f"token {each.pad} is in the text, but `{each.name}` has it as padding",
            each.span,
            found=chosen.name,
            help="use a number that no text has: `pad` in the spec",
        )


def tokens_of(paths: Iterable[Path], chosen: Chosen, each: Input) -> Iterator[NDArray[Any]]:
    """The tokens of files in parts; after each file its end token, if the tokenizer has one."""
    encode = encoder(chosen.tokenizer)
    for path in paths:
        for text in files.texts(path):
            numbers = encode(text)
            check_padding(numbers, each, chosen)
            yield numbers
        if chosen.tokenizer.eos:
            yield np.array(chosen.tokenizer.eos[:1], np.uint32)
