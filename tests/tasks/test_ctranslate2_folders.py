"""Folders of CTranslate2: `model.bin` and a config.json without sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from archdsl.execution.checkpoints import to_published
from archdsl.formats import LazyTensor
from archdsl.generation.generation_config import SPEECH, read_generation_config
from tests.formats.test_ctranslate2 import model_file

SIZES: dict[str, Any] = {
    "vocab": 20,
    "bins": 5,
    "length": 6,
    "context": 7,
    "D": 8,
    "heads": 2,
    "depth": 2,
    "inner": 12,
    "decoder_heads": 4,
    "decoder_inner": 10,
    "decoder_depth": 1,
}
TOKENS = {"suppress_ids": [4, 5], "suppress_ids_begin": [6], "lang_ids": [], "other": None}


def save(folder: Path, kind: str = "WhisperSpec", **settings: int) -> archdsl.Model:
    """Saves a small Whisper with random weights as CTranslate2 does."""
    model = archdsl.compile("whisper.arch:Whisper", device="CPU", **SIZES)
    ours = {
        name: LazyTensor("float32", tuple(w.shape), lambda w=w: w.numpy())
        for name, w in model.parameters.items()
    }
    tensors = to_published(model.maps["ctranslate2"], ours)
    bits = {n: np.ascontiguousarray(t.read()).tobytes() for n, t in tensors.items()}
    variables = {n: (list(t.shape), 0, bits[n]) for n, t in tensors.items()}
    numbers = {"encoder/num_heads": 2, "decoder/num_heads": 4, "decoder/activation": 3}
    numbers |= {"decoder/pre_norm": 1, "decoder/alibi": 0, "decoder/scale_embeddings": 0}
    numbers |= {"decoder/start_from_zero_embedding": 0, **settings}
    small = {name: ([], 1, bytes([number])) for name, number in numbers.items()}
    folder.mkdir()
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    (folder / "model.bin").write_bytes(model_file(variables | small, aliases, kind=kind))
    (folder / "config.json").write_text(json.dumps(TOKENS))
    return model


def same(one: archdsl.Model, other: archdsl.Model) -> bool:
    """Whether two models have the same graph and the same weights."""
    return one.graph == other.graph and all(
        np.array_equal(tensor.numpy(), other.parameters[name].numpy())
        for name, tensor in one.parameters.items()
    )


def test_a_folder_is_a_checkpoint(tmp_path: Path) -> None:
    right = save(tmp_path / "there")
    model = archdsl.from_pretrained(tmp_path / "there", device="CPU")
    assert same(model, right)


def test_its_suppressed_tokens_are_read(tmp_path: Path) -> None:
    save(tmp_path / "there")
    config = read_generation_config(tmp_path / "there", SPEECH)
    assert (config.suppress_tokens, config.begin_suppress_tokens) == ((4, 5), (6,))


def test_import_and_export_to_another_format(tmp_path: Path) -> None:
    right = save(tmp_path / "there")
    spec, own, back = (str(tmp_path / each) for each in ("my.arch", "my.safetensors", "back"))
    given = ["import", str(tmp_path / "there"), "-o", spec, "--weights", own]
    assert main(given) == 0
    assert main(["export", spec, "--weights", own, "--to", back]) == 0
    config = json.loads((Path(back) / "config.json").read_text())
    assert (config["model_type"], config["d_model"]) == ("whisper", 8)
    assert same(archdsl.from_pretrained(back, device="CPU"), right)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder/pre_norm": 0}, r"decoder\.pre_norm is 0"),
        ({"decoder/rotary_dim": 4}, r"decoder\.rotary_dim is 4, but this spec does not know"),
    ],
)
def test_other_settings_are_an_error(
    settings: dict[str, int], message: str, tmp_path: Path
) -> None:
    save(tmp_path / "there", **settings)
    with pytest.raises(ArchError, match=message):
        archdsl.from_pretrained(tmp_path / "there", device="CPU")


def test_another_model_class_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "there", kind="TransformerSpec")
    with pytest.raises(ArchError, match="the model type `TransformerSpec`") as raised:
        archdsl.from_pretrained(tmp_path / "there", device="CPU")
    assert raised.value.diagnostics[0].expected == "`WhisperSpec`"
