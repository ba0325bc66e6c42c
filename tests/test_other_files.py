"""`import` carries the other files of a checkpoint along, and `export` writes them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.cli import main
from archdsl.formats import read_checkpoint, write_safetensors
from tests.drawn import drawn_weights

SIZES = {"vocab": 10, "context": 4, "D": 4, "heads": 2, "depth": 1}
SET = [f"--set={name}={size}" for name, size in SIZES.items()]
FIELDS = {"bos_token_id": 3, "id2label": {"0": "cat"}, "torch_dtype": "float16", "odd-one": 1}


@pytest.fixture(autouse=True)
def _imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `there`, and the import of it."""
    monkeypatch.chdir(tmp_path)
    write_safetensors("small.safetensors", drawn_weights("gpt2.arch:small", **SIZES))
    given = ["gpt2.arch:small", *SET, "--weights", "small.safetensors"]
    assert main(["export", *given, "--to", "there"]) == 0
    config = json.loads(Path("there/config.json").read_text())
    Path("there/config.json").write_text(json.dumps(config | FIELDS))
    Path("there/vocab.json").write_text('{"a": 0}')
    Path("there/tf_model.h5").write_text("weights")
    given = ["there", "-o", "my.arch", "--weights", "my.safetensors", "--ignore", "odd-one"]
    assert main(["import", *given]) == 0


def config(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
    return found


def export(*options: str, weights: str = "my.safetensors") -> int:
    return main(["export", "my.arch", "--weights", weights, "--to", "back", *options])


def trained(dtype: str = "float32") -> str:
    """Other weights of the same model, as `model.save` writes them."""
    ours = {name: t.read() for name, t in read_checkpoint("my.safetensors").tensors.items()}
    halves = {name: np.asarray(array * 2, dtype) for name, array in ours.items()}
    write_safetensors("trained.safetensors", halves)
    return "trained.safetensors"


def test_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in Path("my.files").iterdir()) == [
        "config.json",
        "vocab.json",
    ]
    assert export() == 0
    assert config("back") == config("there")
    assert Path("back/vocab.json").read_text() == '{"a": 0}'
    assert not Path("back/tf_model.h5").exists()
    assert "config.json, 16 tensors, and 1 other file" in capsys.readouterr().err


def test_trained_weights_with_the_files_of_the_import(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The weights do not name the files; only their own dtype is known.
    options = ("--files", "my.files")
    assert export(*options, weights=trained()) == 1
    assert "--ignore odd-one" in capsys.readouterr().err
    assert export(*options, "--ignore", "odd-one", weights=trained()) == 0
    assert config("back") == config("there") | {"torch_dtype": "float32"}


def test_trained_weights_without_files() -> None:
    assert export(weights=trained("float16")) == 0
    assert config("back").get("bos_token_id") is None
    assert config("back")["dtype"] == "float16"
    assert not Path("back/vocab.json").exists()


def test_only_weights_and_a_config() -> None:
    assert export("--files", "none") == 0
    assert config("back").keys().isdisjoint(FIELDS)
    assert not Path("back/vocab.json").exists()


def test_a_changed_model_keeps_the_other_fields() -> None:
    assert export("--set", "eps=0.125") == 0
    assert config("back") == config("there") | {"layer_norm_epsilon": 0.125}


def test_the_weights_of_a_folder_keep_its_files() -> None:
    assert export("--ignore", "odd-one", weights="there") == 0
    assert config("back") == config("there")
    assert Path("back/vocab.json").is_file()


def test_a_missing_folder_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.files").rename("moved")
    assert export() == 1
    assert "pass `--files FOLDER`" in capsys.readouterr().err
    assert export("--files", "moved", "--ignore", "odd-one") == 0
    assert main(
        ["export", "my.arch", "--weights", "my.safetensors", "--to", "x", "--files", "no"]
    )
    assert "no: the folder is missing" in capsys.readouterr().err


def test_existing_files_are_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("back").mkdir()
    Path("back/vocab.json").write_text("mine")
    assert export() == 1
    assert "already has files of a checkpoint" in capsys.readouterr().err
    assert [path.name for path in Path("back").iterdir()] == ["vocab.json"]


def test_what_is_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    tensors = dict(read_checkpoint("there").tensors)
    bias = {f"transformer.h.{i}.attn.bias": np.ones(1, np.float32) for i in range(6)}
    write_safetensors("there/model.safetensors", {**tensors, **bias})
    given = ["there", "--weights", "other.safetensors", "--ignore", "odd-one", "-o", "b.arch"]
    assert main(["import", *given]) == 0
    err = capsys.readouterr().err
    assert "left out: `tf_model.h5`" in err
    names = ", ".join(f"transformer.h.{i}.attn.bias" for i in range(4))
    assert f"left out: tensors that the spec does not use: {names}, 2 more" in err


def test_another_import_of_the_same_name(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["there", "-o", "my.arch", "--weights", "my.safetensors", "--ignore", "odd-one"]
    assert main(["import", *given]) == 0
    Path("there/vocab.json").write_text('{"b": 0}')
    before = Path("my.safetensors").read_bytes()
    assert main(["import", *given]) == 1
    assert "files of another checkpoint" in capsys.readouterr().err
    assert Path("my.safetensors").read_bytes() == before
