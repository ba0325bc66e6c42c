"""Short texts packed into windows, for the graph that `passes.pack` gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import key_of
from archdsl.diagnostics import fail
from archdsl.passes.pack import Packed
from archdsl.training.row_data import RecordRows


class PackedRows:
    """Windows of `length` tokens with whole texts, in the order of the texts.

    A window has as many texts as fit. What is left is one more text, of padding, that the loss
    does not count. The labels `answers` of `rows`, if there are any, say what counts too.

    Raises `ArchError` (`input`) for a text that is longer than a window.
    """

    def __init__(self, rows: RecordRows, packed: Packed, length: int):
        self.packed, self.length = packed, length
        columns = {column.each.name: column for column in rows.columns}
        self.tokens = columns[packed.tokens.name]
        self.answers = columns.get(packed.counted)
        lengths = self.tokens.lengths  # [texts]
        longest = int(lengths.max())
        if longest > length:
            fail(
                "input",
                f"text {int(lengths.argmax()) + 1} is longer than a window",
                packed.tokens.span,
                expected=f"{length} tokens or fewer",
                found=f"{longest} tokens",
                help="shorten the text, leave it out, or use a larger `length`",
            )
        self.firsts = _windows(self.tokens.starts, length)
        self.fingerprint = key_of("packed", rows.fingerprint, length)

    def __len__(self) -> int:
        return len(self.firsts) - 1

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Windows by number: the tokens, their texts, their positions and what counts, each
        [B, length]."""
        shape = (len(numbers), self.length)
        fill = self.packed.tokens.pad or 0
        tokens, segments, places = (np.full(shape, n, np.int32) for n in (fill, 0, 0))
        counted = np.zeros(shape, np.bool_)
        for row, number in enumerate(numbers):
            first, last = self.firsts[number], self.firsts[number + 1]
            starts = self.tokens.starts[first : last + 1]  # [texts + 1]
            lengths, count = np.diff(starts), int(starts[-1] - starts[0])
            tokens[row, :count] = self.tokens.numbers[starts[0] : starts[-1]]
            segments[row] = len(lengths)
            segments[row, :count] = np.repeat(np.arange(len(lengths)), lengths)
            places[row, :count] = _places(lengths)
            places[row, count:] = np.arange(self.length - count)
            counted[row, :count] = places[row, :count] > 0
            if self.answers is not None:
                counted[row, :count] &= self.answers.numbers[starts[0] : starts[-1]]
        names = (self.packed.segments, self.packed.places, self.packed.counted)
        found = dict(zip(names, (segments, places, counted), strict=True))
        return {self.packed.tokens.name: tokens} | found

    def describe(self) -> str:
        texts, count = len(self.tokens.starts) - 1, len(self)
        share = int(self.tokens.starts[-1]) / (count * self.length)
        return f"{texts:,} texts in {count:,} windows of {self.length}, {share:.0%} full"


def _places(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """[tokens]: the positions of tokens in their texts of these lengths [texts]."""
    starts = np.cumsum(lengths) - lengths  # [texts]
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)


def _windows(starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """[windows + 1]: the first text of each window, and the number of all texts."""
    firsts = [0]
    while firsts[-1] < len(starts) - 1:
        end = starts[firsts[-1]] + length
        firsts.append(int(np.searchsorted(starts, end, "right")) - 1)
    return np.array(firsts)
