"""Fields of a `config` block that are facts of the checkpoint's tensors.

`tensors.NAME` is whether there is a tensor NAME, `rows.NAME` is the size of its first axis,
`columns.NAME` that of its second, and `numbers.NAME` are its numbers, for a small one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imports tinygrad
    from archdsl.formats.host import LazyTensor

_PREFIXES = ("tensors.", "rows.", "columns.", "numbers.")
_FEW = 1024  # no list of rotary factors is longer


def is_tensor_field(name: str) -> bool:
    return name.startswith(_PREFIXES)


def tensor_field(name: str, tensors: Mapping[str, LazyTensor]) -> object:
    """The value of a field; None if there is no such tensor."""
    kind, stored = name.partition(".")[0], tensors.get(tensor_name(name))
    if kind == "tensors":
        return stored is not None
    if stored is None or not stored.shape:
        return None
    if kind == "rows":
        return stored.shape[0]
    if kind == "columns":
        return stored.shape[1] if len(stored.shape) > 1 else None
    if len(stored.shape) > 1 or stored.shape[0] > _FEW:
        return None
    return [float(each) for each in stored.read()]


def is_numbers_field(name: str) -> bool:
    return name.startswith("numbers.")


def tensor_name(name: str) -> str:
    """The tensor that a field is a fact of."""
    return name.partition(".")[2]
