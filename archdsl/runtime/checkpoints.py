"""Weights from and to files, under a model's own names or those of a published checkpoint.

Strict both ways: every weight is filled and every tensor of the file used, or nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tinygrad import Tensor, dtypes

from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, listing
from archdsl.formats import read_weights, write_npz, write_safetensors
from archdsl.formats.host import dtype_name
from archdsl.graph.sites import Parameter
from archdsl.semantics.weight_maps import WeightMap

_SHOWN = 8  # names listed of each kind in a message


def read(
    path: str, weights: Mapping[str, Parameter], maps: Mapping[str, WeightMap], map: str | None
) -> dict[str, Tensor]:
    """A file's tensors by the model's paths, in the model's order and not yet on a device."""
    if map is not None and map not in maps:
        raise ArchError(
            Diagnostic(
                "weights-map",
                f"the spec has no `weights` block {map!r}",
                expected=listing(maps) if maps else "a `weights` block in the spec",
                help=did_you_mean(map, maps),
            )
        )
    tensors = read_weights(path)
    candidates = {name: m for name, m in maps.items() if map in (None, name)}
    named: dict[str | None, tuple[Mapping[str, str], set[str]]] = {
        name: (m.names, {t for t in tensors if m.ignores(t)}) for name, m in candidates.items()
    }
    if map is None:
        named[None] = ({path: path for path in weights}, set())

    def odd(names: Mapping[str, str], ignored: set[str]) -> int:
        return len(set(names.values()) ^ (set(tensors) - ignored))

    # The file says by its names which of them it follows: the one that leaves least over.
    best = min(named, key=lambda name: odd(*named[name]))
    names, ignored = named[best]
    problems = _differences(names, ignored, tensors, weights)
    if problems:
        under = "the model's own names" if best is None else f"the names of `weights {best!r}`"
        raise ArchError(
            Diagnostic(
                "checkpoint",
                f"`{path}` does not hold this model's weights, under {under}",
                expected=f"{len(names)} tensors",
                found=f"{len(tensors)} tensors; " + "; ".join(problems),
                help=_help(problems),
            )
        )
    return {ours: tensors[theirs] for ours, theirs in names.items()}


def write(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """All tensors to a file in the format of its suffix."""
    writers = {".safetensors": write_safetensors, ".npz": write_npz}
    writer = writers.get(Path(path).suffix)
    if writer is None:
        raise ArchError(
            Diagnostic(
                "file",
                f"`{path}`: weights are written to files of two kinds",
                expected=listing(writers),
                found=f"`{Path(path).suffix}`" if Path(path).suffix else "no suffix",
            )
        )
    writer(path, tensors)


def _differences(
    names: Mapping[str, str],
    ignored: set[str],
    tensors: Mapping[str, Tensor],
    weights: Mapping[str, Parameter],
) -> list[str]:
    missing = [t for t in names.values() if t not in tensors]
    extra = sorted(set(tensors) - set(names.values()) - ignored)
    shapes, kinds = [], []
    for ours, theirs in names.items():
        if theirs in tensors:
            wanted, found = weights[ours].weight.shape, tensors[theirs].shape
            if tuple(found) != wanted:
                shapes.append(f"{theirs} is {list(found)}, not {list(wanted)}")
            elif not dtypes.is_float(tensors[theirs].dtype):
                kinds.append(f"{theirs} is of {dtype_name(tensors[theirs])}")
    found_problems = {
        "missing": missing,
        "unexpected": extra,
        "of another shape": shapes,
        "not of float numbers": kinds,
    }
    return [f"{len(v)} {what}: {_some(v)}" for what, v in found_problems.items() if v]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _help(problems: list[str]) -> str | None:
    if all("of another shape" in p for p in problems):
        return "are the sizes those of the checkpoint? `--set name=value` changes them"
    return None
