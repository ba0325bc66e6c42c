"""Attention whose mask is a band: a query sees keys near its own position alone.

The positions are cut into blocks. The queries of a block meet the keys of the blocks that they
can see, so the work grows with T times the band and not with T times T.
"""

from __future__ import annotations

from tinygrad import Tensor

from archdsl.backend.positions import repeated_positions
from archdsl.backend.tensors import make_contiguous
from archdsl.frozen import Frozen
from archdsl.graph import masks
from archdsl.graph.masks import Mask

_SMALLEST = 64  # positions of a block: smaller matmuls leave a GPU idle
_PARTS = 4  # of a band: smaller blocks compute fewer pairs that nobody sees


class Band(Frozen):
    """`count` blocks of `block` positions; a query may see `before` blocks, its own, and
    `after` blocks."""

    length: int
    block: int
    before: int
    after: int

    @property
    def count(self) -> int:
        return -(-self.length // self.block)

    @property
    def width(self) -> int:
        """How many keys the queries of a block meet."""
        return self.block * (self.before + 1 + self.after)

    def queries(self, x: Tensor) -> Tensor:
        """[B, T, …] -> [B N, C, …] of N blocks; zeros behind the end."""
        return self._cut(x, 0, 0).flatten(0, 1)

    def keys(self, x: Tensor) -> Tensor:
        """[B, T, …] -> [B N, W, …]: the positions that each block meets; zeros outside."""
        near = range(self.before + 1 + self.after)
        blocks = self._cut(x, self.before, self.after)  # [B, before + N + after, C, …]
        found = Tensor.cat(*(blocks[:, i : i + self.count] for i in near), dim=2)
        return make_contiguous(found.flatten(0, 1))

    def _cut(self, x: Tensor, before: int, after: int) -> Tensor:
        end = self.block * self.count - self.length + self.block * after
        rest = [None] * (x.ndim - 2)
        padded = x.pad((None, (self.block * before, end), *rest))
        return padded.reshape(x.shape[0], -1, self.block, *x.shape[2:])

    def visible(
        self, mask: Mask, batch: int, group: int, data: dict[str, Tensor], valid: Tensor | None
    ) -> Tensor:
        """[B N, 1, G C, W]: the keys that each query sees.

        `data` [B, T] are the tensors of the mask. `valid` [B, T] is False for padding.
        """
        first = repeated_positions(self.count, batch).reshape(-1, 1, 1, 1) * self.block
        rows = repeated_positions(self.block, group).reshape(1, 1, -1, 1)  # [1, 1, G C, 1]
        columns = Tensor.arange(self.width).reshape(1, 1, 1, -1)  # [1, 1, 1, W]
        i, j = first + rows, first + columns - self.block * self.before
        seen = j >= 0
        if masks.ahead(mask) != 0:  # else what stands behind the end sees itself
            seen = seen & (j < self.length)
        if valid is not None:
            seen = seen & self._columns(valid)
        values = {
            name: self._rows(x, group) if name.startswith("row") else self._columns(x)
            for name, x in data.items()
        }
        found: Tensor = seen & masks.visible(mask, i, j, values, lambda: j == j)
        return found

    def _rows(self, x: Tensor, group: int) -> Tensor:
        return self.queries(x).repeat(1, group).reshape(-1, 1, group * self.block, 1)

    def _columns(self, x: Tensor) -> Tensor:
        return self.keys(x).reshape(-1, 1, 1, self.width)


def band(mask: Mask, length: int) -> Band | None:
    """The band of a mask over so many positions; None if half of the pairs or more remain."""
    before, after = masks.behind(mask), masks.ahead(mask)
    tables = any(name.startswith("pair") for name in masks.inputs(mask))
    if before is None or after is None or tables:
        return None
    block = max(_SMALLEST, -(-(before + after) // (_PARTS * 16)) * 16)
    found = Band(length, block, -(-before // block), -(-after // block))
    return found if 2 * found.width <= length else None
