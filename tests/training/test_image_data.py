"""Images: idx files and folders of classes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs
from archdsl.graph.nodes import Graph
from archdsl.syntax.parser import parse
from archdsl.tasks.classify import labels, read_preprocessor
from archdsl.training.data import open_data

SPEC = """\
model Classes(channels = 1, height = 4, width = 6, classes = 3) {
  input pixels: float[channels, height, width]
  h = pixels -> reshape("c h w -> (c h w)")
  output logits: float[classes] = h -> linear(classes)
  loss cross_entropy(logits, label: int < classes)
}
"""


def graph_of(spec: str = SPEC, **settings: int) -> Graph:
    return analyse(parse(spec, "classes.arch"), None, settings).graph


def idx(array: Any) -> bytes:
    sizes = b"".join(size.to_bytes(4) for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def mnist(path: Path, name: str, count: int, packed: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 4, 6))
    labels = np.arange(count) % 3
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = idx(array)
        file = path / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
        file.write_bytes(gzip.compress(data) if packed else data)
    return {"images": images, "labels": labels}


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files(tmp_path: Path, packed: bool) -> None:
    train, test = (mnist(tmp_path, *a, packed) for a in (("train", 12), ("t10k", 5)))
    graph = graph_of()
    data = open_data(tmp_path, graph)
    assert data.valid
    for part, expected in ((data.train, train), (data.valid, test)):
        assert len(part) == len(expected["labels"])
        found = part.batch(np.arange(len(part)))
        inputs.check(graph, found, labels=True)
        pixels = (found["pixels"][:, 0] + 1) * 127.5
        assert np.allclose(pixels, expected["images"], atol=1e-4)
        assert np.array_equal(found["label"], expected["labels"])
    assert data.images
    assert data.images.classes == ("0", "1", "2")
    assert any("divided by 127.5" in note for note in data.notes)


def test_idx_files_with_names(tmp_path: Path) -> None:
    """The names go to the folder of a run, where `archdsl classify` reads them."""
    mnist(tmp_path, "train", 12)
    (tmp_path / "classes.txt").write_text("cat\na dog\nbird\n")
    data = open_data(tmp_path, graph_of())
    (run := tmp_path / "run").mkdir()
    data.save_readers(run)
    assert labels(run, 3) == ["cat", "a dog", "bird"]
    found = read_preprocessor(run)
    assert (found.size, found.mean, found.std) == ((4, 6), (0.5,), (0.5,))
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(ArchError, match="does not name the classes") as error:
        open_data(tmp_path, graph_of())
    assert error.value.diagnostics[0].expected == "3 lines, the name of a class in each"


def test_idx_files_without_a_test(tmp_path: Path) -> None:
    mnist(tmp_path, "train", 30)
    data = open_data(tmp_path, graph_of(classes=5))
    assert (len(data.train), len(data.valid or ())) == (27, 3)
    assert "the data have 3 classes, the model 5: `--set classes=3`" in data.notes


def damage(path: Path, change: str) -> None:
    images, labels = (path / f"train-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
    match change:
        case "short":
            images.write_bytes(images.read_bytes()[:-1])
        case "long":
            images.write_bytes(images.read_bytes() + b"x")
        case "magic":
            images.write_bytes(b"GIF8" + images.read_bytes()[4:])
        case "empty":
            images.write_bytes(b"")
        case "alone":
            labels.unlink()
        case "fewer":
            labels.write_bytes(idx(np.zeros(2)))
        case "classes":
            labels.write_bytes(idx(np.full(4, 3)))
        case "size":
            images.write_bytes(idx(np.zeros((4, 8, 6))))
        case "huge":
            images.write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("short", "expected: 96 bytes, as its header says\n  = found: 95"),
        ("long", "is incomplete, or too long"),
        ("magic", "it starts with 47 49 46 38"),
        ("empty", "it starts with nothing"),
        ("alone", "is there, but no `train-labels-idx…-ubyte`"),
        ("fewer", "found: 4 images, 2 labels"),
        ("classes", "help: `--set classes=4`"),
        ("size", "help: `--set height=8`"),
        ("huge", "above the limit `unpacked_bytes`"),
    ],
)
def test_wrong_idx_files(tmp_path: Path, change: str, message: str) -> None:
    mnist(tmp_path, "train", 4)
    damage(tmp_path, change)
    with pytest.raises(ArchError) as caught:
        open_data(tmp_path, graph_of())
    assert message in str(caught.value)


def test_a_damaged_gzip_file(tmp_path: Path) -> None:
    mnist(tmp_path, "train", 4, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ArchError, match="cannot read"):
        open_data(tmp_path, graph_of())


def pictures(path: Path, count: int = 4) -> None:
    from PIL import Image

    for number, name in enumerate(("ant", "bee", "cat")):
        (path / name).mkdir(parents=True)
        for each in range(count):
            colour = (number * 100, each * 10, 0)
            Image.new("RGB", (12, 8), colour).save(path / name / f"{each}.png")


@pytest.mark.reference("PIL")
def test_a_folder_for_each_class(tmp_path: Path) -> None:
    pictures(tmp_path / "train")
    pictures(tmp_path / "valid", 1)
    spec = SPEC.replace("channels, height, width]", "height, width, channels]").replace(
        '"c h w -> (c h w)"', '"h w c -> (h w c)"'
    )
    graph = graph_of(spec, channels=3)
    data = open_data(tmp_path, graph)
    assert data.images
    assert data.images.classes == ("ant", "bee", "cat")
    assert (len(data.train), len(data.valid or ())) == (12, 3)
    found = data.train.batch(np.array([0, 5, 11]))
    inputs.check(graph, found, labels=True)
    assert found["label"].tolist() == [0, 1, 2]
    expected = np.array([[0, 0, 0], [100, 10, 0], [200, 30, 0]]) / 127.5 - 1
    assert np.allclose(found["pixels"], expected[:, None, None], atol=1e-6)
    assert any("resized to 4 x 6" in note for note in data.notes)


@pytest.mark.reference("PIL")
def test_grey_images_and_mistakes_in_folders(tmp_path: Path) -> None:
    pictures(tmp_path)
    data = open_data(tmp_path, graph_of())
    assert data.train.batch(np.array([3]))["pixels"].shape == (1, 1, 4, 6)
    assert (len(data.train), len(data.valid or ())) == (11, 1)
    with pytest.raises(ArchError, match="has more classes than `label`"):
        open_data(tmp_path, graph_of(classes=2))
    (tmp_path / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(ArchError, match=r"cannot read `.*0\.png`"):
        open_data(tmp_path, graph_of())
    pictures(tmp_path / "two" / "train")
    pictures(tmp_path / "two" / "valid")
    (tmp_path / "two" / "valid" / "ant").rename(tmp_path / "two" / "valid" / "dog")
    with pytest.raises(ArchError, match="has classes that are not in the folder for training"):
        open_data(tmp_path / "two", graph_of())


def test_an_input_that_is_no_image(tmp_path: Path) -> None:
    mnist(tmp_path, "train", 4)
    with pytest.raises(ArchError, match="`pixels` is not the size of an image"):
        open_data(tmp_path, graph_of(channels=2))
