"""Image classification: preprocessing, and class probabilities."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.tasks.classify import classify, find_classifier, labels, read_preprocessor

VIT = {
    "do_resize": True,
    "size": {"height": 4, "width": 6},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.25, 0.5],
    "image_processor_type": "ViTImageProcessor",
}


def folder(path: Path, **changes: Any) -> Path:
    fields = {name: value for name, value in {**VIT, **changes}.items() if value is not ...}
    (path / "preprocessor_config.json").write_text(json.dumps(fields))
    return path


def picture(path: Path, values: np.ndarray[Any, Any]) -> Path:
    from PIL import Image

    Image.fromarray(values).save(path)
    return path


@pytest.mark.reference("PIL")
def test_a_plain_colour_by_hand(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", np.full((9, 5, 3), (255, 0, 51), np.uint8))
    pixels = read_preprocessor(folder(tmp_path))(path)
    assert (pixels.shape, pixels.dtype) == ((3, 4, 6), np.float32)
    np.testing.assert_allclose(pixels[:, 2, 3], [1, -2, -0.6], atol=1e-6)
    plain = read_preprocessor(folder(tmp_path, do_normalize=False, do_rescale=False))(path)
    assert plain[:, 0, 0].tolist() == [255, 0, 51]


@pytest.mark.reference("PIL")
def test_the_middle_is_cropped_and_small_images_get_a_black_edge(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    path = picture(tmp_path / "a.png", values)
    changes = {"do_resize": False, "do_rescale": False, "do_normalize": False}
    crop = {"do_center_crop": True, "crop_size": {"height": 2, "width": 3}, **changes}
    pixels = read_preprocessor(folder(tmp_path, **crop))(path)
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), values[1:3, 1:4])
    pixels = read_preprocessor(folder(tmp_path, **{**crop, "crop_size": 7}))(path)
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0)[2:6, 1:6], values)
    assert pixels.shape == (3, 7, 7)
    assert pixels.sum() == values.sum()


@pytest.mark.reference("PIL")
def test_the_shorter_side_and_squares_of_one_number(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", np.zeros((10, 27, 3), np.uint8))
    for size, shape in [({"shortest_edge": 5}, (5, 13)), (6, (6, 6))]:
        assert read_preprocessor(folder(tmp_path, size=size))(path).shape[1:] == shape
    old = folder(tmp_path, size=5, default_to_square=False)
    assert read_preprocessor(old)(path).shape[1:] == (5, 13)


@pytest.mark.reference("PIL")
def test_transparency_is_white_and_the_orientation_is_applied(tmp_path: Path) -> None:
    from PIL import Image

    prepare = read_preprocessor(folder(tmp_path, do_resize=False, do_normalize=False))
    clear = picture(tmp_path / "a.png", np.zeros((2, 3, 4), np.uint8))
    assert prepare(clear).min() == 1
    turned = Image.new("RGB", (6, 2))
    exif = turned.getexif()
    exif[0x0112] = 6  # orientation: a quarter turn
    turned.save(tmp_path / "b.jpg", exif=exif)
    assert prepare(tmp_path / "b.jpg").shape == (3, 6, 2)


@pytest.mark.reference("PIL")
def test_files_that_are_no_images(tmp_path: Path) -> None:
    prepare = read_preprocessor(folder(tmp_path))
    with pytest.raises(ArchError, match="No such file"):
        prepare(tmp_path / "none.png")
    with pytest.raises(ArchError, match="not an image that Pillow can read"):
        prepare(tmp_path / "preprocessor_config.json")


def test_without_pillow_the_help_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ArchError, match=r"pip install 'archdsl\[images\]'"):
        read_preprocessor(folder(tmp_path))(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_pad": True}, "unknown fields `do_pad`"),
        ({"size": ...}, "`size` does not define"),
        ({"size": {"shortest_edge": 5, "longest_edge": 9}}, "`size` does not define"),
        ({"size": {"height": 0, "width": 5}}, "must be 1 or more"),
        ({"size": 5, "do_center_crop": True, "crop_size": 4}, "`size` does not define"),
        ({"do_center_crop": True}, "`crop_size` does not define"),
        ({"resample": ...}, "`resample` is not a resize filter"),
        ({"resample": 9}, "`resample` is not a resize filter"),
        ({"image_mean": [0.5]}, "`image_std` must be 1 number"),
        ({"image_mean": [0.5] * 2}, "`image_mean` must be 3 numbers"),
        ({"image_std": [1, 0, 1]}, "`image_std` must be 3 numbers"),
    ],
)
def test_missing_and_unknown_fields(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArchError, match=message):
        read_preprocessor(folder(tmp_path, **changes))


def test_disabled_steps_need_no_fields(tmp_path: Path) -> None:
    read_preprocessor(folder(tmp_path, do_pad=False, pad_size=None, processor_class="X"))


def test_classes_have_names_or_numbers(tmp_path: Path) -> None:
    assert labels(tmp_path, 3) == ["0", "1", "2"]
    assert labels(folder(tmp_path, id2label={"1": "a dog"}), 2) == ["0", "a dog"]
    (tmp_path / "config.json").write_text('{"id2label": {"0": "cat", "1": "dog"}}')
    assert labels(tmp_path, 2) == ["cat", "dog"]


@pytest.mark.reference("PIL")
def test_one_channel_is_grey(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", np.full((9, 5, 3), (0, 255, 0), np.uint8))
    pixels = read_preprocessor(folder(tmp_path, image_mean=[0.5], image_std=[0.5]))(path)
    assert pixels.shape == (1, 4, 6)
    np.testing.assert_allclose(pixels, 150 / 127.5 - 1, atol=1e-6)  # 0.587 of 255
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    pixels = read_preprocessor(tmp_path)(picture(tmp_path / "b.png", grey))
    np.testing.assert_allclose(pixels[0], grey / 127.5 - 1, atol=1e-6)


def test_probabilities_are_those_of_the_logits() -> None:
    sizes = {"image": 8, "patch": 4, "classes": 5, "D": 8, "heads": 2, "depth": 1}
    model = archdsl.compile("vit.arch", device="CPU", **sizes)
    pixels = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    logits = model(pixels=pixels)["logits"].numpy().astype(np.float64)
    right = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(classify(model, pixels), right, atol=1e-6)
    assert find_classifier(model.graph).classes == 5
    with pytest.raises(ArchError, match="do not have the size") as error:
        classify(model, pixels[:, :, :4])
    assert error.value.diagnostics[0].found == "3 x 4 x 8"


def test_models_that_do_not_classify() -> None:
    for spec in ("gpt.arch", "clip.arch", "bert.arch:Bert"):
        with pytest.raises(ArchError, match="does not classify images"):
            find_classifier(archdsl.compile(spec).graph)
