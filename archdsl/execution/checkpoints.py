"""Weights read from and written to files, under the model's own or published names.

Strict both ways: either every weight is set and every tensor of the file is used, or nothing
changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.formats import read_checkpoint, write_npz, write_safetensors
from archdsl.formats.host import LazyTensor
from archdsl.frozen import Frozen
from archdsl.graph.sites import Parameter
from archdsl.published.convert import from_checkpoint, to_checkpoint
from archdsl.published.weight_maps import Pairing, WeightMap

_SHOWN = 8  # names of each kind that a message lists
FLOATS = ("float32", "float16", "bfloat16", "float64")


def read(
    path: str, weights: Mapping[str, Parameter], maps: Mapping[str, WeightMap], map: str | None
) -> dict[str, LazyTensor]:
    """The tensors of a file or folder by the model's paths, in the model's order; lazy."""
    return fit(path, read_checkpoint(path).tensors, weights, maps, map)


def fit(
    path: str,
    tensors: Mapping[str, LazyTensor],
    weights: Mapping[str, Parameter],
    maps: Mapping[str, WeightMap],
    map: str | None,
) -> dict[str, LazyTensor]:
    """The same for tensors of an open file; `path` is only for messages."""
    if map is not None and map not in maps:
        fail(
            "weights-map",
            f"the spec has no `weights` block {map!r}",
            expected=listing(maps) if maps else "a `weights` block in the spec",
            help=did_you_mean(map, maps),
        )
    attempts = [
        _Attempt(m, tensors, weights) for name, m in maps.items() if map in (None, name)
    ]
    if map is None:
        attempts.insert(0, _Attempt(_own(weights), tensors, weights))
    # The names in the file decide which map it follows: the one with the fewest mismatches.
    least = min(way.odd for way in attempts)
    told = [(way, way.problems()) for way in attempts if way.odd == least]
    best, problems = min(told, key=lambda each: len(each[1]))
    # Two published maps may have the same names; then the names cannot decide.
    others = [way.map for way, wrong in told if not wrong and way.map.title]
    if not problems and best.map.title and len({each.pairings for each in others}) > 1:
        fail(
            "weights-map",
            f"`{path}` fits more than one map: {listing(repr(each.title) for each in others)}",
            help="choose the `weights` block: `map=` in Python, `--map` in a command",
        )
    if problems:
        title = best.map.title
        under = f"the names of `weights {title!r}`" if title else "the model's own names"
        fail(
            "checkpoint",
            f"`{path}` does not have the weights of this model under {under}",
            expected=f"{sum(len(p.theirs[0]) for p in best.map.pairings)} tensors",
            found=f"{len(tensors)} tensors; " + "; ".join(problems),
            help=_help(problems),
        )
    return best.ours()


def mismatches(tensors: Mapping[str, LazyTensor], map: WeightMap) -> int:
    """How many tensors of an open file are missing or unexpected for a map."""
    return _Attempt(map, tensors, {}).odd


def left_out(tensors: Mapping[str, LazyTensor], map: WeightMap) -> list[str]:
    """The tensors of an open file that are no weights of the map: those that it ignores."""
    used = _Attempt(map, tensors, {}).used()
    return [name for name in tensors if name not in used]


def to_published(map: WeightMap, ours: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """A model's weights under the names and in the layout of a map; lazy."""
    theirs: dict[str, LazyTensor] = {}
    for pairing in map.pairings:
        names = pairing.theirs[0]
        tensors = to_checkpoint(
            [ours[n] for n in pairing.ours], pairing.conversions, len(names)
        )
        theirs |= zip(names, tensors, strict=True)
    return theirs


def write(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes all tensors to a file; its suffix chooses the format."""
    writers = {".safetensors": write_safetensors, ".npz": write_npz}
    writer = writers.get(Path(path).suffix)
    if writer is None:
        fail(
            "file",
            f"`{path}`: the suffix does not name a format for weights",
            expected=listing(writers),
            found=f"`{Path(path).suffix}`" if Path(path).suffix else "no suffix",
        )
    writer(path, tensors)


def _own(weights: Mapping[str, Parameter]) -> WeightMap:
    """The model's own names, as a map."""
    return WeightMap(
        "",
        tuple(
            Pairing((path,), ((path,),), (), (parameter.weight.shape,))
            for path, parameter in weights.items()
        ),
    )


class _Attempt(Frozen):
    """An attempt to read the tensors of a file by one map."""

    map: WeightMap
    tensors: Mapping[str, LazyTensor]
    weights: Mapping[str, Parameter]

    @property
    def odd(self) -> int:
        """How many names are missing or unexpected."""
        missing, extra = self._mismatches()
        return len(missing) + len(extra)

    def _mismatches(self) -> tuple[list[str], list[str]]:
        """The names that are missing from the file, and those that no rule uses or ignores."""
        pairings = self.map.pairings
        missing = [self._missing(each) for each in pairings if not self._spellings(each)]
        used = self.used()
        extra = (t for t in self.tensors if t not in used and not self.map.ignores(t))
        return missing, sorted(extra)

    def used(self) -> set[str]:
        """The names of the tensors that rules use."""
        return {
            name
            for pairing in self.map.pairings
            for names in self._spellings(pairing)
            for name in names
        }

    def _missing(self, pairing: Pairing) -> str:
        names = pairing.theirs[0]
        return next((n for n in names if self._name(n) is None), names[0])

    def _spellings(self, pairing: Pairing) -> list[tuple[str, ...]]:
        """The spellings under which the file has all tensors of a pairing."""
        found = [[self._name(name) for name in names] for names in pairing.theirs]
        return [tuple(n for n in names if n) for names in found if all(names)]

    def _name(self, name: str) -> str | None:
        """The name of a tensor as the file spells it, or None if it is missing."""
        bare = (name.removeprefix(p) for p in self.map.optional if name.startswith(p))
        return next((n for n in (name, *bare) if n in self.tensors), None)

    def problems(self) -> list[str]:
        missing, extra = self._mismatches()
        shapes: list[str] = []
        kinds: list[str] = []
        differing: list[str] = []
        for pairing in self.map.pairings:
            spellings = self._spellings(pairing)
            for names in spellings:
                for name, wanted in zip(names, pairing.shapes, strict=True):
                    tensor = self.tensors[name]
                    if tensor.shape != wanted:
                        turned = ": transposed" if tensor.shape == wanted[::-1] else ""
                        shapes.append(
                            f"{name} is {list(tensor.shape)}, not {list(wanted)}{turned}"
                        )
                    elif tensor.dtype not in FLOATS:
                        kinds.append(f"{name} is {tensor.dtype}")
            if not shapes and not kinds:
                differing += self._differing(spellings)
        found = {
            "missing": missing,
            "unexpected": extra,
            "with a wrong shape": shapes,
            "not floating point": kinds,
            "different, but one weight in this model": differing,
        }
        return [f"{len(v)} {what}: {_some(v)}" for what, v in found.items() if v]

    def _differing(self, spellings: list[tuple[str, ...]]) -> Iterator[str]:
        """Pairs of tensors that are one tied weight but differ."""
        for names in spellings[1:]:
            for first, other in zip(spellings[0], names, strict=True):
                one, two = self.tensors[first], self.tensors[other]
                if one.dtype != two.dtype or not is_equal(one.read(), two.read()):
                    yield f"{first} and {other}"

    def ours(self) -> dict[str, LazyTensor]:
        found: dict[str, LazyTensor] = {}
        for pairing in self.map.pairings:
            tensors = [self.tensors[name] for name in self._spellings(pairing)[0]]
            shapes = tuple(self.weights[path].weight.shape for path in pairing.ours)
            made = from_checkpoint(tensors, pairing.conversions, shapes)
            found |= zip(pairing.ours, made, strict=True)
        return {path: found[path] for path in self.weights}


def is_equal(one: NDArray[Any], two: NDArray[Any]) -> bool:
    """Whether arrays of one dtype are equal. Bits are compared first, which is quicker."""
    if one.shape != two.shape:
        return False
    bits = np.uint8 if one.nbytes % 8 else np.uint64
    first, other = (np.ascontiguousarray(each).reshape(-1).view(bits) for each in (one, two))
    return np.array_equal(first, other) or np.array_equal(one, two)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _help(problems: list[str]) -> str | None:
    if all(p.endswith(": transposed") for p in problems):
        return "add `-> transpose` to the rules of the map for these tensors"
    if all("with a wrong shape" in p for p in problems):
        return "the model's sizes differ from the checkpoint's"
    return None
