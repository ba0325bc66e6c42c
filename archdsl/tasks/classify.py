"""Image classification: preprocessing by `preprocessor_config.json`, and class probabilities.

The config fields are those of Hugging Face's image processors: resize, centre crop, rescale,
normalise, in this order. Pillow reads and resizes images, because models are trained with its
filters; the other steps are arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail, listing
from archdsl.formats import resolve
from archdsl.formats.image import PREPROCESSOR, read_image
from archdsl.formats.strict_json import read_object
from archdsl.graph.nodes import Graph, Input
from archdsl.limits import check_limit
from archdsl.model import Model

Pixels: TypeAlias = NDArray[np.float32]

_FIELDS = ("size", "resample", "crop_size", "rescale_factor", "image_mean", "image_std")
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
# Fields that change no pixel: the array layout, the file's origin, and steps always done.
_BOOKKEEPING = (
    *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class"),
    *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping"),
    *("_valid_processor_keys", "model_input_names", "do_convert_rgb", "default_to_square"),
    "id2label",
)


@dataclass(frozen=True)
class Preprocessor:
    """The steps from an image file to an input array; a step that is None is skipped.

    - `path`: the config file, for messages.
    - `size`: (height, width) after resizing, or the length of the shorter side.
    - `resample`: Pillow's number of the resize filter.
    - `crop`: (height, width) of the centre crop.
    - `scale`, `mean`, `std`: a channel's value v, 0 to 255, becomes (v * scale - mean) / std.
      `mean` and `std` have a number for each channel: 3 are red, green and blue, 1 is grey.
    """

    path: Path
    size: tuple[int, int] | int | None
    resample: int
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, path: str | Path | bytes) -> Pixels:
        """Reads an image as float32 [channels, height, width], rotated by its EXIF orientation.
        `path` is a file, or its content.

        Transparent pixels become white. Raises `ArchError` "file" if Pillow cannot read it,
        "limit" if it is too large, before or after resizing.
        """
        picture = read_image(path)
        name = "the image" if isinstance(path, bytes) else path
        if len(self.mean) == 1:
            picture = picture.convert("L")
        if self.size is not None:
            width, height = picture.size
            if isinstance(self.size, int):
                short = min(height, width)
                # Rounded down, as torchvision and transformers do.
                size = tuple(int(self.size * side / short) for side in (height, width))
            else:
                size = self.size
            check_limit("input_pixels", math.prod(size), f"{name} as {self.path} resizes it")
            picture = picture.resize(size[::-1], resample=self.resample)
        values = np.atleast_3d(np.asarray(picture))  # [height, width, channels]
        if self.crop is not None:
            values = _centre_crop(values, self.crop)
        check_limit("input_pixels", values.shape[0] * values.shape[1], name)
        with np.errstate(all="ignore"):
            scaled = (values * self.scale).astype(np.float32)
            mean, std = (np.array(each, np.float32) for each in (self.mean, self.std))
            pixels = np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1))
        if not np.isfinite(pixels).all():
            fail(
                "config",
                f"{self.path}: the pixels of {name} become NaN or infinite",
                found=f"rescale_factor {self.scale}, image_mean {self.mean}, "
                f"image_std {self.std}",
            )
        return pixels


def read_preprocessor(folder: str | Path) -> Preprocessor:
    """Reads a folder's `preprocessor_config.json`.

    Raises `ArchError`: "file" if there is none, "config" for a field that is missing, or
    that changes pixels and is not supported.
    """
    path = resolve(str(folder)) / PREPROCESSOR
    if not path.exists():
        fail(
            "file",
            f"`{path.parent}` has no `{PREPROCESSOR}`, which defines the size and the scale of "
            "images",
            expected=f"a folder with `{PREPROCESSOR}`",
            help="name one with --preprocessor FOLDER",
        )
    found = read_object(path, "a preprocessor's config")
    known = (*_FIELDS, *_STEPS, *_BOOKKEEPING)
    unknown = [name for name, value in found.items() if name not in known and value]
    if unknown:
        fail(
            "config",
            f"{path}: unknown fields {listing(unknown, 'and')}, which may change the pixels",
            expected=listing((*_STEPS, *_FIELDS), "and"),
            help="remove the fields that do not change the pixels",
        )
    resized = found.get("do_resize", "size" in found)
    cropped = found.get("do_center_crop", False)
    normal = found.get("do_normalize", "image_mean" in found)
    rescaled = found.get("do_rescale", True)
    size = _size(path, found, "size", cropped) if resized else None
    crop = _size(path, found, "crop_size", False) if cropped else None
    if isinstance(crop, int):
        fail(
            "config",
            f"{path}: `crop_size` has one number",
            expected='"crop_size": {"height": …, "width": …}',
        )
    mean = found.get("image_mean")
    channels = 1 if normal and isinstance(mean, list) and len(mean) == 1 else 3
    return Preprocessor(
        path,
        size,
        _resample(path, found) if resized else 0,
        crop,
        _numbers(path, found, "rescale_factor", 1, 1 / 255)[0] if rescaled else 1.0,
        _numbers(path, found, "image_mean", channels) if normal else (0.0,) * 3,
        _numbers(path, found, "image_std", channels) if normal else (1.0,) * 3,
    )


@dataclass(frozen=True)
class Classifier:
    """The image input of a classifier, its logits output, and its number of classes."""

    image: Input
    logits: str
    classes: int


def find_classifier(graph: Graph) -> Classifier:
    """Finds the parts of a classifier; raises `ArchError` for a model of another kind."""
    loss = graph.objective("cross_entropy")
    problem = None
    if loss is None:
        problem = "its loss is not `cross_entropy`"
    elif len(graph.required) != 1 or len(graph.required[0].type.axes) != 3:
        problem = "it needs exactly one input, an image"
    else:
        ref = dict(loss.inputs)["logits"]
        logits = next((name for name, each in graph.outputs if each == ref), None)
        shape = [axis.size.value for axis in graph.types()[ref].axes]
        if logits is not None and len(shape) == 1 and shape[0] is not None:
            return Classifier(graph.required[0], logits, shape[0])
        problem = "none of its outputs is a vector with a logit for each class"
    fail(
        "model",
        f"`{graph.name}` does not classify images: {problem}",
        expected="an input `float[channels, height, width]`, an output "
        "`logits: float[classes]`, and `loss cross_entropy(logits, label)`",
    )


def labels(folder: Path, classes: int) -> list[str]:
    """Returns the class names: `id2label` of `config.json` or, in the folder of a run, of
    `preprocessor_config.json`. A class without a name has its number."""
    for name in ("config.json", PREPROCESSOR):
        path = folder / name
        named = read_object(path, "a config").get("id2label") if path.is_file() else None
        if isinstance(named, Mapping):
            return [str(named.get(str(number), number)) for number in range(classes)]
    return [str(number) for number in range(classes)]


def classify(model: Model, pixels: Pixels) -> NDArray[np.float32]:
    """Returns the probabilities [B, classes] of images [B, channels, height, width]."""
    parts = find_classifier(model.graph)
    axes = parts.image.type.axes
    wanted = tuple(axis.size.value for axis in axes)
    if pixels.shape[1:] != wanted:
        differing = [
            f"--set {axis.name}={size}"
            for axis, size in zip(axes[1:], pixels.shape[2:], strict=True)
            if axis.name and axis.size.value != size
        ]
        size = f", or give the model their size: `{' '.join(differing)}`" if differing else ""
        fail(
            "input",
            f"the images do not have the size of `{model.graph.name}`'s input",
            parts.image.span,
            expected=" x ".join(map(str, wanted)),
            found=" x ".join(map(str, pixels.shape[1:])),
            help=f"check that {PREPROCESSOR} belongs to this model{size}",
        )
    logits = model(**{parts.image.name: pixels})[parts.logits].numpy().astype(np.float32)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


# -- images --


def _centre_crop(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Crops the centre of [height, width, channels]; pads a smaller image with black."""
    missing = [max(wanted - has, 0) for wanted, has in zip(size, values.shape, strict=False)]
    padding = [(-(-each // 2), each // 2) for each in missing]
    values = np.pad(values, [*padding, (0, 0)])
    top, left = ((h - w) // 2 for h, w in zip(values.shape, size, strict=False))
    return values[top : top + size[0], left : left + size[1]]


# -- config fields --


def _size(
    path: Path, found: Mapping[str, Any], name: str, crops: bool
) -> tuple[int, int] | int:
    """Reads a size in any of its forms."""
    match found.get(name):
        case {"height": int(height), "width": int(width), **rest} if not any(rest.values()):
            sides: tuple[int, ...] = (height, width)
        case {"shortest_edge": int(short), **rest} if not any(rest.values()):
            sides = (short,)
        case int(side) if "default_to_square" in found or not crops:
            # In old configs, one number is a square or the shorter side.
            sides = (side,) * (2 if found.get("default_to_square", True) else 1)
        case other:
            fail(
                "config",
                f"{path}: `{name}` does not define the height and the width of an image",
                expected='{"height": …, "width": …} or {"shortest_edge": …}',
                found=str(other),
            )
    if min(sides) < 1:
        fail("config", f"{path}: `{name}` must be 1 or more", found=str(found[name])[:80])
    pixels = math.prod(sides) if len(sides) == 2 else sides[0] ** 2
    check_limit("input_pixels", pixels, f"{path}: `{name}`")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _resample(path: Path, found: Mapping[str, Any]) -> int:
    number = found.get("resample")
    if type(number) is int and 0 <= number <= 5:
        return number
    fail(
        "config",
        f"{path}: `resample` is not a resize filter",
        expected="0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming",
        found=str(number),
    )


def _numbers(
    path: Path, found: Mapping[str, Any], name: str, count: int, usual: float | None = None
) -> tuple[float, ...]:
    """Reads `count` numbers, or one number for all."""
    value = found.get(name, usual)
    listed = value if isinstance(value, list) else [value] * count
    fit = len(listed) == count and all(type(each) in (int, float) for each in listed)
    if fit and (name != "image_std" or all(listed)):  # std is a divisor
        return tuple(map(float, listed))
    plural = "s" if count > 1 else ""
    fail("config", f"{path}: `{name}` must be {count} number{plural}", found=str(value))
