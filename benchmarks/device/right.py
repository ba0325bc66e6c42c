"""Right: models of odd sizes in every dtype, whole and step by step, a training step, and a
model loaded from a checkpoint, compared with the CPU in float32."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import archdsl
from archdsl.analysis import analyse
from archdsl.backend.target import supports
from archdsl.model import Model
from archdsl.pretrained import export
from benchmarks.device import agreement
from benchmarks.device.agreement import MODELS, TOLERANCE
from benchmarks.device.runner import Line, Unit

TRAINED = ("gpt.arch", "llama.arch")
CHECKPOINT = "llama.arch"
QUICK = ("gpt.arch", "llama.arch", "t5.arch", "vit.arch")


def units(device: str, references: str | None, quick: bool) -> Iterator[Unit]:
    """The units of this part; `references` is a file of `write_references`, or None."""
    specs = QUICK if quick else tuple(MODELS)
    dtypes = ("float32", "float16", "bfloat16")
    for dtype in dtypes:
        for spec in specs:
            ways = ("whole", "stepped") if agreement.is_stepped(spec) else ("whole",)
            for way in ways:
                yield _unit(way, spec, device, dtype, references)
        if dtype == "float32":
            yield _unit("checkpoint", CHECKPOINT, device, dtype, references)
        for spec in TRAINED[: 1 if quick else None]:
            yield _unit("training", spec, device, dtype, references)


def _unit(way: str, spec: str, device: str, dtype: str, references: str | None) -> Unit:
    options = {"spec": spec, "device": device, "dtype": dtype, "references": references}
    name = f"{spec.partition('.')[0]}, {dtype}, {way}"
    # A dtype after the other, if there is no time for all.
    process = f"right {dtype} {spec} {way == 'training'}"
    few = {"PARALLEL": "4"}  # compilers of each process, because several run at a time
    return Unit("right", name, __name__, f"check_{way}", options, process, 90, few)


def check_whole(**options: Any) -> Line:
    return _checked(_whole, **options)


def check_stepped(**options: Any) -> Line:
    return _checked(_stepped, **options)


def check_training(**options: Any) -> Line:
    return _checked(_training, **options)


def check_checkpoint(**options: Any) -> Line:
    return _checked(_checkpoint, **options)


def _checked(check: Any, spec: str, device: str, dtype: str, references: str | None) -> Line:
    if not supports(device, dtype):
        return {"skipped": f"{device} cannot compute in {dtype}"}
    error = check(spec, device, dtype, references)
    allowed = TOLERANCE[dtype]
    return {"right": bool(error <= allowed), "difference": error, "allowed": allowed}


def _whole(spec: str, device: str, dtype: str, references: str | None) -> float:
    wanted = _wanted(spec, references)
    return max(agreement.whole_errors(_model(spec, device, dtype), spec, wanted))


def _stepped(spec: str, device: str, dtype: str, references: str | None) -> float:
    return agreement.stepped_error(_model(spec, device, dtype), spec, _wanted(spec, references))


def _training(spec: str, device: str, dtype: str, references: str | None) -> float:
    wanted = _wanted_gradients(spec, references)
    found = agreement.gradients(spec, _weights(spec), device, dtype)
    return agreement.gradient_error(found, wanted)


def _checkpoint(spec: str, device: str, dtype: str, references: str | None) -> float:
    """A model of transformers' files, written and read again."""
    with tempfile.TemporaryDirectory() as folder:
        analysis = analyse(spec, settings=MODELS[spec])
        export(analysis, str(_weights(spec)), f"{folder}/published", None, 2**40)
        model = archdsl.from_pretrained(f"{folder}/published", device=device, dtype=dtype)
        wanted = _wanted(spec, references)[:1]
        found = agreement.logits(model, agreement.batches(spec)[0])
    return agreement.difference(found, wanted[0])


# -- what units of one process share --


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="device")


@functools.cache
def _weights(spec: str) -> Path:
    return agreement.save_weights(spec, Path(_folder().name))


@functools.lru_cache(1)
def _model(spec: str, device: str, dtype: str) -> Model:
    model = agreement.described(spec, device=device, dtype=dtype)
    model.load(_weights(spec))
    return model


@functools.cache
def _wanted(spec: str, references: str | None) -> list[agreement.Logits]:
    if references is None:
        return agreement.reference(spec, _weights(spec))
    with np.load(references) as stored:
        return [stored[f"{spec} {number}"] for number in range(len(agreement.batches(spec)))]


@functools.cache
def _wanted_gradients(spec: str, references: str | None) -> agreement.Inputs:
    if references is None:
        return agreement.gradients(spec, _weights(spec), "CPU", "float32")
    start = f"{spec} gradient "
    with np.load(references) as stored:
        return {n.removeprefix(start): stored[n] for n in stored.files if n.startswith(start)}


def write_references(path: Path) -> None:
    """Writes the right results to a file, for machines without a C compiler for the CPU."""
    arrays = {}
    for spec in MODELS:
        for number, logits in enumerate(_wanted(spec, None)):
            arrays[f"{spec} {number}"] = logits
    for spec in TRAINED:
        for name, gradient in _wanted_gradients(spec, None).items():
            arrays[f"{spec} gradient {name}"] = gradient
    np.savez_compressed(path, **arrays)
