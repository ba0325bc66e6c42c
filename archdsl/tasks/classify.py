"""Images as a checkpoint's `preprocessor_config.json` wants them, and what is seen in them.

The fields are those of Hugging Face's image processors: resize, centre crop, rescale,
normalise, in this order. Images are read and resized by the package Pillow, whose filters
trained models have seen; the rest is arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail, listing
from archdsl.formats import resolve
from archdsl.formats.strict_json import read_object
from archdsl.graph.nodes import Graph, Input
from archdsl.model import Model

Pixels: TypeAlias = NDArray[np.float32]

_FILE = "preprocessor_config.json"
_FIELDS = ("size", "resample", "crop_size", "rescale_factor", "image_mean", "image_std")
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
# What changes no pixel: how arrays are laid out, who wrote the file, and what is always done.
_BOOKKEEPING = (
    *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class"),
    *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping"),
    *("_valid_processor_keys", "model_input_names", "do_convert_rgb", "default_to_square"),
)


@dataclass(frozen=True)
class Preprocessor:
    """How a picture becomes numbers; a step that is None is left out.

    `size` and `crop` are (height, width); a `size` of one number is that of the shorter side.
    `resample` is Pillow's number of a filter, and `scale`, `mean` and `std` make
    (v * scale - mean) / std of a channel's value v, 0 to 255. `path` is what messages name.
    """

    path: Path
    size: tuple[int, int] | int | None
    resample: int
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, path: str | Path) -> Pixels:
        """An image file as float32 [3, height, width]: turned upright as its camera says, on
        white where it is transparent. Raises `ArchError` "file" for a file that is no image.
        """
        picture = _opened(path)
        if self.size is not None:
            width, height = picture.size
            if isinstance(self.size, int):
                short = min(height, width)
                # The longer side is rounded down, as everyone does who resizes like this.
                size = tuple(int(self.size * side / short) for side in (height, width))
            else:
                size = self.size
            picture = picture.resize(size[::-1], resample=self.resample)
        values = np.asarray(picture)
        if self.crop is not None:
            values = _cropped(values, self.crop)
        scaled = (values * self.scale).astype(np.float32)
        mean, std = (np.array(each, np.float32) for each in (self.mean, self.std))
        return np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1))


def read_preprocessor(folder: str | Path) -> Preprocessor:
    """What a folder's `preprocessor_config.json` says.

    Raises `ArchError`: "file" where there is none, "config" for a field that changes pixels in
    a way that is not known here, or that is missing.
    """
    path = resolve(str(folder)) / _FILE
    if not path.exists():
        fail(
            "file",
            f"`{path.parent}` has no `{_FILE}`, which says how a model sees images",
            help="name a folder that has one: --preprocessor FOLDER",
        )
    found = read_object(path, "a preprocessor's config")
    known = (*_FIELDS, *_STEPS, *_BOOKKEEPING)
    strange = [name for name, value in found.items() if name not in known and value]
    if strange:
        fail(
            "config",
            f"{path}: {listing(strange, 'and')} would change the pixels, and nobody knows how",
            expected=listing((*_STEPS, *_FIELDS), "and"),
            help="take out what does not matter to the model",
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
            f"{path}: a crop has two sides",
            expected='"crop_size": {"height": …, "width": …}',
        )
    return Preprocessor(
        path,
        size,
        _resample(path, found) if resized else 0,
        crop,
        _numbers(path, found, "rescale_factor", 1, 1 / 255)[0] if rescaled else 1.0,
        _numbers(path, found, "image_mean", 3) if normal else (0.0,) * 3,
        _numbers(path, found, "image_std", 3) if normal else (1.0,) * 3,
    )


@dataclass(frozen=True)
class Classifier:
    """The parts of a model that classifies: the input that is an image, and the output that
    has a number for each class."""

    image: Input
    logits: str
    classes: int


def classifier(graph: Graph) -> Classifier:
    """Which is which; raises `ArchError` for a model that does not classify images."""
    loss = graph.loss
    problem = None
    if loss is None or loss.op != "cross_entropy":
        problem = "its loss is not `cross_entropy`"
    elif len(graph.inputs) != 1 or len(graph.inputs[0].type.axes) != 3:
        problem = "its inputs are not one image"
    else:
        ref = dict(loss.inputs)["logits"]
        logits = next((name for name, each in graph.outputs if each == ref), None)
        shape = [axis.size.value for axis in graph.types()[ref].axes]
        if logits is not None and len(shape) == 1 and shape[0] is not None:
            return Classifier(graph.inputs[0], logits, shape[0])
        problem = "no output of it is a number for each class"
    fail(
        "model",
        f"`{graph.name}` does not classify images: {problem}",
        expected="an image, and `loss cross_entropy(logits, label)`",
    )


def labels(config: Mapping[str, Any], classes: int) -> list[str]:
    """The names of the classes, by `id2label` of a config; their numbers where it has none."""
    named = config.get("id2label")
    if not isinstance(named, Mapping):
        return [str(number) for number in range(classes)]
    return [str(named.get(str(number), number)) for number in range(classes)]


def classify(model: Model, pixels: Pixels) -> NDArray[np.float32]:
    """The probabilities [B, classes] of images [B, channels, height, width]."""
    parts = classifier(model.graph)
    wanted = tuple(axis.size.value for axis in parts.image.type.axes)
    if pixels.shape[1:] != wanted:
        fail(
            "input",
            f"the images do not have the size that `{model.graph.name}` looks at",
            parts.image.span,
            expected=" x ".join(map(str, wanted)),
            found=" x ".join(map(str, pixels.shape[1:])),
            help=f"is {_FILE} that of this model?",
        )
    logits = model(**{parts.image.name: pixels})[parts.logits].numpy().astype(np.float32)
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


# -- pictures --


def _opened(path: str | Path) -> Any:
    """A picture of Pillow's in RGB."""
    pillow = _pillow()
    from PIL import ImageOps

    try:
        with pillow.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if "A" in picture.getbands() or "transparency" in picture.info:
                white = pillow.new("RGBA", picture.size, "white")
                picture = pillow.alpha_composite(white, picture.convert("RGBA"))
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        # Pillow names the file in its own words, and what is wrong in a SyntaxError at times.
        reason = getattr(error, "strerror", None) or "it is not an image that Pillow reads"
        fail("file", f"`{path}` cannot be read: {reason}", cause=error)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        fail(
            "file",
            "the package Pillow, which reads images, is not installed",
            help="pip install 'archdsl[images]'",
            cause=error,
        )
    return Image


def _cropped(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The middle of an image [height, width, channels]; black around one that is too small."""
    short = [max(wanted - has, 0) for wanted, has in zip(size, values.shape, strict=False)]
    around = [(-(-each // 2), each // 2) for each in short]
    values = np.pad(values, [*around, (0, 0)])
    top, left = ((h - w) // 2 for h, w in zip(values.shape, size, strict=False))
    return values[top : top + size[0], left : left + size[1]]


# -- fields --


def _size(
    path: Path, found: Mapping[str, Any], name: str, crops: bool
) -> tuple[int, int] | int:
    """A size in any of the ways in which it is written."""
    match found.get(name):
        case {"height": int(height), "width": int(width), **rest} if not any(rest.values()):
            sides: tuple[int, ...] = (height, width)
        case {"shortest_edge": int(short), **rest} if not any(rest.values()):
            sides = (short,)
        case int(side) if "default_to_square" in found or not crops:
            # Of a release where one number was a square to some processors, a side to others.
            sides = (side,) * (2 if found.get("default_to_square", True) else 1)
        case other:
            fail(
                "config",
                f"{path}: `{name}` does not say how high and how wide an image becomes",
                expected='{"height": …, "width": …} or {"shortest_edge": …}',
                found=str(other),
            )
    if min(sides) < 1:
        fail("config", f"{path}: `{name}` must be 1 or more", found=str(found[name]))
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _resample(path: Path, found: Mapping[str, Any]) -> int:
    number = found.get("resample")
    if type(number) is int and 0 <= number <= 5:
        return number
    fail(
        "config",
        f"{path}: `resample` does not say by which filter images are resized",
        expected="Pillow's: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming",
        found=str(number),
    )


def _numbers(
    path: Path, found: Mapping[str, Any], name: str, count: int, usual: float | None = None
) -> tuple[float, ...]:
    """`count` numbers; one stands for all."""
    value = found.get(name, usual)
    listed = value if isinstance(value, list) else [value] * count
    fit = len(listed) == count and all(type(each) in (int, float) for each in listed)
    if fit and (name != "image_std" or all(listed)):  # which is divided by
        return tuple(map(float, listed))
    fail("config", f"{path}: `{name}` must be {count} numbers", found=str(value))
