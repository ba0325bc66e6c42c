"""Inputs from the page as arrays, and outputs for it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.formats.image import PREPROCESSOR
from archdsl.graph.nodes import Graph, Input

if TYPE_CHECKING:
    from archdsl.tasks.classify import Preprocessor
    from archdsl.text.tokenizer import TextTokenizer

_DRAWN = 16  # the length of axes of inputs that are drawn, if the bound is not less
_BILINEAR = 2  # Pillow's number of the filter
_BEST = 5  # of the largest values of an output


def arrays(
    graph: Graph,
    given: Mapping[str, Any],
    tokenizer: TextTokenizer | None,
    files: str | None,
) -> dict[str, Any]:
    """The values of the page [1, …], without empty texts and lists.

    The tokenizer encodes a text. `files` is a folder that may have the preprocessor of images.
    """
    found: dict[str, Any] = {}
    known = {each.name: each for each in graph.inputs}
    for name, value in given.items():
        match value:
            case "" | []:
                pass
            case str() if tokenizer:
                found[name] = [tokenizer.encode(value)]
            case {"image": str(encoded)} if name in known:
                found[name] = _preprocessor(known[name], files)(_decoded(encoded))[None]
            case _:
                found[name] = [value]
    return found


def lengths(graph: Graph, given: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of the varying axes: those of the given values, or else a few."""
    sizes = {axis.name: min(axis.bound, max(axis.least, _DRAWN)) for axis in graph.varying}
    for each in graph.inputs:
        try:
            shape = np.shape(given.get(each.name, 0))[1:]
        except ValueError:  # the check of the inputs reports rows of different lengths
            continue
        for axis, size in zip(each.type.axes, shape, strict=False):
            if axis.name in sizes:
                sizes[axis.name] = size
    return sizes


def draw(graph: Graph, given: Mapping[str, Any], seed: int) -> dict[str, NDArray[Any]]:
    """Random values [1, …] of the inputs that are missing: normal numbers, integers below the
    bound, and true."""
    random, sizes = np.random.default_rng(seed), lengths(graph, given)
    found: dict[str, NDArray[Any]] = {}
    for each in graph.required:
        if each.name in given:
            continue
        shape = (1, *(axis.size.at(sizes) for axis in each.type.axes))
        if each.type.dtype == "float":
            found[each.name] = random.standard_normal(shape).astype(np.float32)
        elif each.type.dtype == "int":
            found[each.name] = random.integers(0, each.type.below or 2, shape)
        else:
            found[each.name] = np.ones(shape, np.bool_)
    return found


def is_image(each: Input) -> bool:
    """Whether an input is float[channels, height, width] with the channels of an image."""
    sizes = [axis.size.value for axis in each.type.axes]
    return each.type.dtype == "float" and len(sizes) == 3 and sizes[0] in (1, 3) and all(sizes)


def number(value: Any) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    return float(value) if np.isfinite(value) else None


def summary(values: NDArray[Any], piece: Callable[[int], str] | None) -> dict[str, Any]:
    """The shape and the moments of an output, and the largest values of its last vector; with
    `piece`, their texts."""
    numbers = np.asarray(values, np.float64)
    last = numbers.reshape(-1, numbers.shape[-1])[-1] if numbers.ndim else numbers[None]
    best = (-last).argsort(kind="stable")[:_BEST].tolist()
    with np.errstate(all="ignore"):
        mean, std = numbers.mean(), numbers.std()
    return {
        "shape": list(values.shape),
        "mean": number(mean),
        "std": number(std),
        "top": [
            {
                "index": index,
                "value": number(last[index]),
                "text": piece(index) if piece else None,
            }
            for index in best
        ],
    }


def _preprocessor(image: Input, files: str | None) -> Preprocessor:
    """The steps from an image file to an input: those of the folder, or else the size of the
    input with values from 0 to 1."""
    from archdsl.tasks.classify import Preprocessor, read_preprocessor

    if files and (Path(files) / PREPROCESSOR).exists():
        return read_preprocessor(files)
    sizes = [axis.size.value or 0 for axis in image.type.axes]
    if not is_image(image):
        fail(
            "input",
            f"`{image.name}` is not an image",
            expected="an input float[channels, height, width] with 1 or 3 channels",
            found=str(image.type),
        )
    channels, height, width = sizes
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    size = (height, width)
    return Preprocessor(Path(), size, _BILINEAR, None, 1 / 255, zeros, ones)


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        fail("input", "the image is not encoded in base64", cause=error)
