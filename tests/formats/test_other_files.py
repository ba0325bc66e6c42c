"""The other files of a folder: carried beside imported weights, and written by an export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from archdsl.diagnostics import ArchError
from archdsl.formats import write_safetensors
from archdsl.formats.other_files import carry, folder_for, folder_of, metadata, other_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights of many formats, and with other files."""
    there = tmp_path / "there"
    names = "model.safetensors tf_model.h5 bert.ckpt.data-00000-of-00001 checkpoint-5/model.bin"
    names += " config.json tokenizer.json spiece.model additional_chat_templates/rag.jinja"
    names += " 2_Dense/model.safetensors .cache/config.json __pycache__/a.pyc .gitattributes"
    for name in names.split():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name)
    modules = [{"path": ""}, {"path": "2_Dense"}]
    (there / "modules.json").write_text(json.dumps(modules))
    return there


OTHERS = {
    "config.json",
    "tokenizer.json",
    "spiece.model",
    "additional_chat_templates/rag.jinja",
}
OTHERS |= {"2_Dense/model.safetensors", "modules.json"}


def test_all_files_but_weights_in_any_format(folder: Path) -> None:
    found, left_out = other_files(folder, ["model.safetensors"])
    assert found == {name: folder / name for name in OTHERS}
    wanted = ["bert.ckpt.data-00000-of-00001", "tf_model.h5", "checkpoint-5/model.bin"]
    assert left_out == wanted


def test_they_are_carried_once(folder: Path, tmp_path: Path) -> None:
    found, _ = other_files(folder)
    place = folder_for(tmp_path / "my.safetensors")
    assert place == tmp_path / "my.files"
    carry(found, place)
    (place / "spiece.model").unlink()  # as if the first import had been killed
    carry(found, place)
    assert set(other_files(place)[0]) == OTHERS
    assert (place / "spiece.model").read_text() == "spiece.model"

    (folder / "tokenizer.json").write_text("of another checkpoint")
    with pytest.raises(ArchError, match="files of another checkpoint") as raised:
        carry(found, place)
    assert raised.value.diagnostics[0].found == "`tokenizer.json`"
    del found["spiece.model"]
    with pytest.raises(ArchError, match="files of another checkpoint") as raised:
        carry(found, place)
    assert raised.value.diagnostics[0].found == "`spiece.model` and `tokenizer.json`"


def test_weights_name_their_folder(tmp_path: Path) -> None:
    weights = tmp_path / "my.safetensors"
    write_safetensors(weights, {"w": np.ones(2)})
    assert folder_of(weights) is None
    assert folder_of(tmp_path) == tmp_path
    write_safetensors(weights, {"w": np.ones(2)}, metadata(tmp_path / "my.files"))
    with pytest.raises(ArchError, match="the other files of the checkpoint is missing"):
        folder_of(weights)
    (tmp_path / "my.files").mkdir()
    assert folder_of(weights) == tmp_path / "my.files"


def test_weights_cannot_name_a_folder_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    weights = tmp_path / "inner" / "my.safetensors"
    for name in ("..", "../inner", str(tmp_path)):
        write_safetensors(weights, {"w": np.ones(2)}, {"archdsl.files": name})
        with pytest.raises(ArchError, match="is missing"):
            folder_of(weights)


def test_links_to_devices_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a").mkdir()
    (tmp_path / "there" / "a" / "config.json").write_text("{}")
    (tmp_path / "there" / "vocab.txt").symlink_to("/dev/zero")
    found, _ = other_files(tmp_path / "there")
    with pytest.raises(ArchError, match=r"vocab\.txt"):
        carry(found, tmp_path / "my.files")
    assert not (tmp_path / "my.files").exists()
