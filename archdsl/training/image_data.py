"""Images and their classes: a folder for each class, or idx files as MNIST has them."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import digest, key_of
from archdsl.diagnostics import fail, listing
from archdsl.files import open_file
from archdsl.formats.atomic import replacing
from archdsl.formats.image import PREPROCESSOR, read_image
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Input
from archdsl.limits import check_limit
from archdsl.training import files, token_file
from archdsl.training.roles import set_bound

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
_IDX = re.compile(r"(.*?)(images|labels)[-.]idx([13])-ubyte(\.gz)?")
_TEST = re.compile(r"(.*[-_.])?(t10k|test|valid|val)[-_.]?", re.IGNORECASE)
BILINEAR = 2  # Pillow's number of the filter
NAMES = "classes.txt"  # the names of the classes of idx files
RESIZED = "images are resized to {image}, bilinear, whatever their shape"
SCALE = "pixels are divided by 127.5, minus 1: from -1 to 1"


class Layout(Frozen):
    """The size of an image, and whether its channels are the first axis or the last."""

    channels: int
    height: int
    width: int
    first: bool

    @property
    def pixels(self) -> int:
        return self.channels * self.height * self.width


class ImageRows:
    """Images [n, height, width, channels] of bytes, with a class [n] each."""

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[Any],
        image: Input,
        label: Input,
        checksum: str,
    ):
        self.pixels, self.labels, self.image, self.label = pixels, labels, image, label
        self.layout = find_layout(image)
        self.fingerprint = key_of("images", checksum, self.layout)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Images by number, float32 from -1 to 1, and their classes [B]."""
        values = self.pixels[numbers].astype(np.float32) / 127.5 - 1  # [B, h, w, channels]
        if self.layout.first:
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        return {
            self.image.name: values,
            self.label.name: self.labels[numbers].astype(np.int32),
        }

    def describe(self) -> str:
        layout = self.layout
        size = f"{layout.height} x {layout.width} x {layout.channels}"
        return f"{len(self):,} images of {size}, {len(np.unique(self.labels))} classes"


class Images(Frozen):
    """Images for training and for validation, and what to say of them."""

    train: ImageRows
    valid: ImageRows | None
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def save_preprocessor(self, folder: Path) -> None:
        """Writes how `archdsl classify` makes pixels of image files, and the classes, in the
        fields of Hugging Face's image processors. Its images have the channels first."""
        layout = self.train.layout
        if not layout.first:
            return
        config = {
            "do_resize": True,
            "size": {"height": layout.height, "width": layout.width},
            "resample": BILINEAR,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5] * layout.channels,
            "image_std": [0.5] * layout.channels,
            "id2label": {str(number): name for number, name in enumerate(self.classes)},
        }
        with replacing(folder / PREPROCESSOR) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def open_images(path: Path, image: Input, label: Input) -> Images | None:
    """The images of a folder; None if it has none."""
    if pairs := find_idx(path):
        parts = {
            test: [read_idx_rows(one, two, image, label) for one, two, t in pairs if t is test]
            for test in (False, True)
        }
        if len(parts[False]) != 1 or len(parts[True]) > 1:
            names = listing([one.name for one, _, _ in pairs], "and")
            help = "a folder has one pair for training, and one with `t10k` in its names"
            fail("file", f"`{path}` has other idx files", found=names, help=help)
        train, valid = parts[False][0], next(iter(parts[True]), None)
        classes = read_class_names(path, int(train.labels.max()) + 1)
        notes = [SCALE]
    elif folders := find_folders(path):
        classes = class_names(folders[0])
        train, valid = read_folder_rows(folders[0], classes, image, label), None
        if folders[1]:
            check_names(folders[1], classes)
            valid = read_folder_rows(folders[1], classes, image, label)
        notes = [RESIZED.format(image=describe_size(image)), SCALE]
    else:
        return None
    if note := note_on_classes(label, len(classes)):
        notes.append(note)
    return Images(train, valid, tuple(classes), tuple(notes))


def find_layout(image: Input) -> Layout:
    """The layout of an image input; `ArchError` (`model`) if its axes do not tell."""
    sizes = [axis.size.value for axis in image.type.axes]
    match sizes:
        case [1 | 3 as channels, int(height), int(width)]:
            return Layout(channels, height, width, True)
        case [int(height), int(width), 1 | 3 as channels]:
            return Layout(channels, height, width, False)
    fail(
        "model",
        f"`{image.name}` is not the size of an image",
        image.span,
        expected="float[channels, height, width] or float[height, width, channels], with 1 or "
        "3 channels",
        found=str(image.type),
        help="for other arrays, give a file .npz",
    )


# -- idx files --


def find_idx(path: Path) -> list[tuple[Path, Path, bool]]:
    """The pairs of idx files in a folder: images, labels, and whether they are a test."""
    found: dict[str, dict[str, Path]] = {}
    for each in sorted(path.iterdir()) if path.is_dir() else []:
        if match := _IDX.fullmatch(each.name):
            found.setdefault(match[1], {})[match[2]] = each
    for name, both in found.items():
        if len(both) < 2:
            have = next(iter(both.values()))
            other = "labels" if "images" in both else "images"
            fail(
                "file",
                f"`{have}` is there, but no `{name}{other}-idx…-ubyte`",
                help="download both files of a pair",
            )
    return [
        (both["images"], both["labels"], _TEST.fullmatch(name) is not None)
        for name, both in found.items()
    ]


def read_class_names(path: Path, count: int) -> list[str]:
    """The lines of `classes.txt` beside idx files with `count` classes; without it, numbers."""
    place = path / NAMES
    if not place.is_file():
        return [str(number) for number in range(count)]
    found = [line for _, line in files.lines(place)]
    if len(found) != count:
        fail(
            "input",
            f"`{place}` does not name the classes of the idx files",
            expected=f"{count} lines, the name of a class in each",
            found=f"{len(found)} lines",
        )
    return found


def read_idx_rows(images: Path, labels: Path, image: Input, label: Input) -> ImageRows:
    """The images and the classes of a pair of idx files."""
    pixels, classes = _read_idx(images, 3), _read_idx(labels, 1)
    if len(pixels) != len(classes):
        fail(
            "input",
            f"`{images}` and `{labels}` have different numbers of examples",
            found=f"{len(pixels)} images, {len(classes)} labels",
        )
    _, height, width = pixels.shape
    check_size(image, height, width, 1, str(images))
    check_classes(label, int(classes.max()) + 1, str(labels))
    checksum = digest([pixels.data, classes.data]).hex()
    return ImageRows(pixels[..., None], classes, image, label, checksum)


def _read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """The bytes of an idx file [n, …], which may be compressed (LeCun et al. 1998)."""
    try:
        with ExitStack() as stack:
            stream: IO[bytes] = stack.enter_context(open_file(path))
            if path.suffix == ".gz":
                unpacked = stack.enter_context(closing(gzip.GzipFile(fileobj=stream)))
                stream = cast(IO[bytes], unpacked)
            header = stream.read(4 + 4 * rank)
            sizes = [int.from_bytes(header[i : i + 4]) for i in range(4, len(header), 4)]
            if header[:4] != bytes([0, 0, 8, rank]) or len(sizes) != rank or 0 in sizes:
                fail(
                    "file",
                    f"`{path}` is not an idx file of bytes with {rank} axes",
                    found=f"it starts with {header[:4].hex(' ') or 'nothing'}",
                )
            count = math.prod(sizes)
            check_limit("unpacked_bytes", count, path)
            data = stream.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        fail("file", f"cannot read `{path}`", found=str(error), cause=error)
    if len(data) != count:
        fail(
            "file",
            f"`{path}` is incomplete, or too long",
            expected=f"{count:,} bytes, as its header says",
            found=f"{len(data):,} or more" if len(data) > count else f"{len(data):,}",
        )
    return np.frombuffer(data, np.uint8).reshape(sizes)


# -- folders --


def find_folders(path: Path) -> tuple[Path, Path | None] | None:
    """The folders for training and validation that have a folder for each class.

    They are `path` itself, or `train…` and `valid…` in it; None if there are no images.
    """
    if not path.is_dir():
        return None
    kinds: dict[int | None, list[Path]] = {None: [], 0: [], 1: []}
    for each in sorted(path.iterdir()):
        if each.is_dir() and not each.name.startswith("."):
            kinds[files.held_out([each.name])].append(each)
    held = [*kinds[0], *kinds[1]]
    if held and len(kinds[None]) == 1 and _has_classes(kinds[None][0]):
        return kinds[None][0], held[0]
    return (path, None) if _has_classes(path) else None


def class_names(path: Path) -> list[str]:
    """The classes of a folder: the names of its folders, sorted."""
    inside = (each.name for each in path.iterdir() if each.is_dir())
    return sorted(name for name in inside if not name.startswith("."))


def read_folder_rows(
    path: Path, classes: Sequence[str], image: Input, label: Input
) -> ImageRows:
    """The images of a folder, decoded once to a file in the cache and resized."""
    found = [(each, n) for n, name in enumerate(classes) for each in _pictures(path / name)]
    if not found:
        fail("file", f"there are no images in the folders of `{path}`")
    check_classes(label, len(classes), str(path))
    layout = find_layout(image)
    key = key_of("images", 1, files.identity([each for each, _ in found]), layout)
    place = token_file.place_of(f"{key}.pixels")
    parts = (_decoded(each, layout).reshape(-1) for each, _ in found)
    stored = token_file.read(place) or token_file.write(place, np.uint8, parts)
    shape = (len(found), layout.height, layout.width, layout.channels)
    labels = np.array([number for _, number in found])
    checksum = key_of(stored.checksum, labels.tolist())
    return ImageRows(stored.numbers.reshape(shape), labels, image, label, checksum)


def _has_classes(path: Path) -> bool:
    inside = (each for each in path.iterdir() if each.is_dir())
    return any(True for each in inside for _ in _pictures(each))


def _pictures(path: Path) -> Iterator[Path]:
    for each in sorted(path.iterdir()) if path.is_dir() else []:
        if each.suffix.lower() in PICTURES and not each.name.startswith("."):
            yield each


def _decoded(path: Path, layout: Layout) -> NDArray[np.uint8]:
    """An image in the layout's size and channels: [height, width, channels]."""
    picture = read_image(path)
    if layout.channels == 1:
        picture = picture.convert("L")
    if picture.size != (layout.width, layout.height):
        picture = picture.resize((layout.width, layout.height), resample=BILINEAR)
    shape = (layout.height, layout.width, layout.channels)
    return np.asarray(picture, np.uint8).reshape(shape)


# -- checks --


def check_size(image: Input, height: int, width: int, channels: int, origin: str) -> None:
    """Reports images of another size than the model's."""
    layout = find_layout(image)
    if (height, width, channels) == (layout.height, layout.width, layout.channels):
        return
    order = (channels, height, width) if layout.first else (height, width, channels)
    settings = {
        f"--set {axis.name}={size}"
        for axis, size in zip(image.type.axes, order, strict=True)
        if axis.name and axis.size.value != size
    }
    fail(
        "input",
        f"the images of `{origin}` do not have the size of `{image.name}`",
        image.span,
        expected=str(image.type),
        found=f"{height} x {width}, {channels} channel{'s' * (channels > 1)}",
        help=f"`{' '.join(sorted(settings))}`" if settings else "change the type in the spec",
    )


def check_classes(label: Input, count: int, origin: str) -> None:
    """Reports more classes than the model has."""
    if label.type.below is not None and count > label.type.below:
        fail(
            "input",
            f"`{origin}` has more classes than `{label.name}`",
            label.span,
            expected=f"at most {label.type.below}",
            found=str(count),
            help=set_bound(label, count),
        )


def note_on_classes(label: Input, count: int) -> str | None:
    """What to say if the model has more classes than the data."""
    below = label.type.below
    if below is None or count >= below:
        return None
    return f"the data have {count} classes, the model {below}: {set_bound(label, count)}"


def check_names(path: Path, classes: Sequence[str]) -> None:
    """Reports a folder for validation that has a class which training does not have."""
    unknown = [name for name in class_names(path) if name not in classes]
    if unknown:
        fail(
            "input",
            f"`{path}` has classes that are not in the folder for training",
            expected=listing(classes[:20], "and"),
            found=listing(unknown[:5], "and"),
        )


def describe_size(image: Input) -> str:
    """The size of an input's images, such as 28 x 28."""
    layout = find_layout(image)
    return f"{layout.height} x {layout.width}"
