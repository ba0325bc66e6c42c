"""Families of published architectures, each beside the library that published it.

A family's reference is a model of that library in odd sizes, drawn from a seed, which the
library itself saves as a checkpoint. `differences` has archdsl read that checkpoint and
compute the same outputs. The families stand in the modules of this folder, each with a tuple
`FAMILIES`; those modules import the library, this one does not.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import archdsl
from archdsl.execution.decoder import Decoder
from archdsl.passes.split_decoding import find_tokens_and_logits
from tests.reference.agreement import apart

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Reference:
    """What goes into our model, and what has to come out, both by our names.

    `mask`, where it is not None, is true at the positions [B, T] that count; an output counts
    whole unless its first axes are those.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    mask: Array | None = None


@dataclass(frozen=True)
class Family:
    """`save(folder, seed)` saves a checkpoint of what `against` names, and computes with it."""

    name: str
    spec: str
    against: str
    save: Callable[[Path, int], Reference]


def library(*without: str) -> tuple[Family, ...]:
    """The families of all modules of this folder, those `without` excepted."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [import_module(f"{__name__}.{name}") for name in names if name not in without]
    return tuple(family for module in modules for family in getattr(module, "FAMILIES", ()))


STEPS = "in steps"


def stepped(model: archdsl.Model, reference: Reference) -> Array:
    """The logits of a model that predicts tokens, and is fed a few of them at a time."""
    decoder = Decoder(model.executable, rows=len(next(iter(reference.inputs.values()))))
    tokens = decoder.plan.tokens
    decoder.begin(**{name: v for name, v in reference.inputs.items() if name != tokens})
    pieces = np.split(reference.inputs[tokens], [3, 4, 5, 9], axis=1)
    return np.concatenate([decoder.feed(piece) for piece in pieces if piece.size], axis=1)


def differences(family: Family, folder: Path, seed: int) -> dict[str, float]:
    """max |ours - theirs| / max |theirs| of each output, ours read from their checkpoint.

    `in steps`: of the logits computed step by step and at once, if the model predicts tokens.
    """
    reference = family.save(folder, seed)
    model = archdsl.from_pretrained(folder, device="CPU")
    found = model(**reference.inputs)
    theirs = disagreement(found, reference)
    names = find_tokens_and_logits(model.graph)
    if not isinstance(names, str):
        theirs[STEPS] = apart(stepped(model, reference), found[names[1]].numpy())
    return theirs


def disagreement(ours: Mapping[str, Any], reference: Reference) -> dict[str, float]:
    """The same for outputs that are computed already."""
    return {
        name: apart(counted(ours[name], reference), counted(theirs, reference))
        for name, theirs in reference.outputs.items()
    }


def counted(output: Any, reference: Reference) -> Array:
    """What counts of an output: [positions, …] where they have a mask."""
    array: Array = output if isinstance(output, np.ndarray) else output.numpy()
    mask = reference.mask
    if mask is None or array.shape[: mask.ndim] != mask.shape:
        return array
    return array[mask]
