"""The state of a training step, set from the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from archdsl.backend.tensors import copy_in, shape
from archdsl.diagnostics import fail, listing
from archdsl.execution.train_step import TrainStep
from archdsl.formats.host import LazyTensor, dtype_name


def restore(
    step: TrainStep, found: Mapping[str, LazyTensor], scale: float, since_overflow: int
) -> None:
    """Continues from the state that another step of the same model had.

    Raises `ArchError` (`checkpoint`) if the tensors are not those of `step.state()`.
    """
    known = step.state()
    odd = sorted(known.keys() ^ found.keys())
    odd += [
        name
        for name, tensor in known.items()
        if name in found
        and (found[name].shape, found[name].dtype) != (shape(tensor), dtype_name(tensor))
    ]
    if odd:
        fail(
            "checkpoint",
            "the state of the optimizer does not belong to this model and these settings",
            expected=f"{len(known)} tensors",
            found=f"{len(found)} tensors; {len(odd)} differ: {listing(odd[:3], 'and')}",
        )
    for name, tensor in known.items():
        copy_in(tensor, found[name].read())
    step.scale, step.since_overflow = scale, since_overflow
