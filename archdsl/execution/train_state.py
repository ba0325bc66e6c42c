"""Sets the tensors of training: the state of an optimizer, and weights to their averages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tinygrad import Tensor

from archdsl.backend.tensors import copy_in, copy_tensor, shape
from archdsl.backend.tinygrad_seam import not_captured, one_thread
from archdsl.diagnostics import fail, listing
from archdsl.formats.host import LazyTensor
from archdsl.frozen import Frozen

_SHOWN = 5  # names in a message


class Scale(Frozen):
    """The factor of the loss in float16, and the steps since it was too large."""

    scale: float
    since_overflow: int


def load_tensors(tensors: Mapping[str, Tensor], stored: Mapping[str, LazyTensor]) -> None:
    """Overwrites float32 tensors with those of a file of the same names, read one at a time.

    Raises `ArchError` "checkpoint" for a missing or unknown name, another shape or another
    dtype. Then no tensor has changed.
    """
    wrong = [
        f"{name} is {each.dtype} {list(each.shape)}, not float32 {list(shape(tensor))}"
        for name, tensor in tensors.items()
        if (each := stored.get(name)) and (each.dtype, each.shape) != ("float32", shape(tensor))
    ]
    found = _names("missing", [name for name in tensors if name not in stored])
    found += _names("unknown", [name for name in stored if name not in tensors])
    found += _names("different", wrong)
    if found:
        fail(
            "checkpoint",
            "the state is not that of this training run",
            expected=f"{len(tensors)} tensors",
            found=f"{len(stored)} tensors{found}",
            help="continue with the spec, the dtype, the optimizer, `ema` and `freeze` of the "
            "run that saved it",
        )
    for name, tensor in tensors.items():
        copy_in(tensor, stored[name].read())


def _names(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"; {what}: {', '.join(names[:_SHOWN])}{more}" if names else ""


def scale_of(numbers: Mapping[str, float]) -> Scale:
    """The scale of a saved state; raises `ArchError` if its numbers are others."""
    names = ("scale", "since_overflow")
    if set(numbers) != set(names):
        fail(
            "checkpoint",
            "the numbers of the state are not those of a training run",
            expected=listing(names, "and"),
            found=listing(numbers, "and") or "none",
        )
    return Scale(float(numbers["scale"]), int(numbers["since_overflow"]))


@contextmanager
def replaced(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Iterator[None]:
    """Weights have the values of `others` inside of this context, rounded to their dtype.

    Their memory stays, so captured programs read these values. At the end each weight has its
    old bits.
    """
    old = {path: copy_tensor(weights[path]) for path in others}
    assign(weights, others)
    try:
        yield
    finally:
        assign(weights, old)


def assign(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Overwrites weights, in their memory, with values rounded to their dtype."""
    with one_thread, not_captured():
        assigned = [
            weights[path].assign(value.cast(weights[path].dtype))
            for path, value in values.items()
        ]
        if assigned:
            Tensor.realize(*assigned)
