"""Folders of CTranslate2: `model.bin` and a config.json without sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from archdsl.analysis import analyse
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from archdsl.execution.checkpoints import to_published
from archdsl.formats import LazyTensor
from archdsl.generation.generation_config import SPEECH, read_generation_config
from archdsl.pretrained import describe
from archdsl.text.tokenizer import read_tokenizer
from tests.drawn import drawn_weights
from tests.formats.test_ctranslate2 import model_file

Weights: TypeAlias = dict[str, NDArray[np.float32]]

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


WHISPER = "whisper.arch:Whisper"
NUMBERS = {
    "encoder/num_heads": 2,
    "decoder/num_heads": 4,
    "decoder/activation": 3,
    "decoder/pre_norm": 1,
    "decoder/alibi": 0,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}


@pytest.fixture(scope="module")
def weights() -> Weights:
    return drawn_weights(WHISPER, **SIZES)


def variables(spec: str, sizes: dict[str, Any], weights: Weights) -> dict[str, Any]:
    """The weights of a model as CTranslate2 stores them."""
    map = analyse(spec, settings=sizes).maps["ctranslate2"]
    ours = {n: LazyTensor("float32", w.shape, lambda w=w: w) for n, w in weights.items()}
    tensors = to_published(map, ours)
    bits = {n: np.ascontiguousarray(t.read()).tobytes() for n, t in tensors.items()}
    return {n: (list(t.shape), 0, bits[n]) for n, t in tensors.items()}


def write(
    folder: Path, stored: dict[str, Any], numbers: dict[str, int], kind: str, revision: int = 3
) -> None:
    small = {name: ([], 1, bytes([number])) for name, number in numbers.items()}
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    folder.mkdir()
    content = model_file(stored | small, aliases, kind=kind, revision=revision)
    (folder / "model.bin").write_bytes(content)


def save(folder: Path, weights: Weights, kind: str = "WhisperSpec", **settings: int) -> None:
    """Saves a small Whisper as CTranslate2 does."""
    write(folder, variables(WHISPER, SIZES, weights), NUMBERS | settings, kind)
    (folder / "config.json").write_text(json.dumps(TOKENS))


def check(folder: Path, weights: Weights, spec: str = WHISPER, **sizes: Any) -> None:
    """Checks that a folder has a model of these sizes and weights."""
    found = describe(folder)
    assert found.weights.keys() == weights.keys()
    for name, tensor in found.weights.items():
        np.testing.assert_array_equal(tensor.read(), weights[name])
    assert analyse(found.spec).graph == analyse(spec, settings=sizes or SIZES).graph


def test_a_folder_is_a_checkpoint(weights: Weights, tmp_path: Path) -> None:
    save(tmp_path / "there", weights)
    check(tmp_path / "there", weights)


def test_its_suppressed_tokens_are_read(weights: Weights, tmp_path: Path) -> None:
    save(tmp_path / "there", weights)
    config = read_generation_config(tmp_path / "there", SPEECH)
    assert (config.suppress_tokens, config.begin_suppress_tokens) == ((4, 5), (6,))


def test_import_and_export_to_another_format(weights: Weights, tmp_path: Path) -> None:
    save(tmp_path / "there", weights)
    spec, own, back = (str(tmp_path / each) for each in ("my.arch", "my.safetensors", "back"))
    given = ["import", str(tmp_path / "there"), "-o", spec, "--weights", own]
    assert main(given) == 0
    assert main(["export", spec, "--weights", own, "--to", back]) == 0
    config = json.loads((Path(back) / "config.json").read_text())
    assert (config["model_type"], config["d_model"]) == ("whisper", 8)
    check(Path(back), weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder/pre_norm": 0}, r"decoder\.pre_norm is 0"),
        ({"decoder/rotary_dim": 4}, r"decoder\.rotary_dim is 4, but this spec does not know"),
    ],
)
def test_other_settings_are_an_error(
    settings: dict[str, int], message: str, weights: Weights, tmp_path: Path
) -> None:
    save(tmp_path / "there", weights, **settings)
    with pytest.raises(ArchError, match=message):
        describe(tmp_path / "there")


def test_another_model_class_is_an_error(weights: Weights, tmp_path: Path) -> None:
    save(tmp_path / "there", weights, kind="TransformerSpec")
    with pytest.raises(ArchError, match="the model type `TransformerSpec`") as raised:
        describe(tmp_path / "there")
    assert raised.value.diagnostics[0].expected == "`TransformerDecoderSpec` or `WhisperSpec`"


@pytest.mark.parametrize(
    ("activation", "act"), [(1, "gelu_tanh"), (0, "relu"), (2, "silu"), (4, "quick_gelu")]
)
def test_gpt2(activation: int, act: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"vocab": 20, "context": 6, "D": 8, "heads": 2, "depth": 2}
    sizes |= {"inner": 12, "act": act}
    ours = drawn_weights("gpt2.arch:GPT2", **sizes)
    numbers = {"decoder/num_heads": 2, "decoder/activation": activation}
    numbers |= {"decoder/pre_norm": 1, "decoder/alibi": 0, "decoder/scale_embeddings": 0}
    numbers |= {"decoder/start_from_zero_embedding": 0}
    stored = variables("gpt2.arch:GPT2", sizes, ours)
    write(tmp_path / "there", stored, numbers, "TransformerDecoderSpec", 8)
    config = {"layer_norm_epsilon": None, "bos_token": "b", "eos_token": "a"}
    (tmp_path / "there" / "config.json").write_text(json.dumps(config))
    check(tmp_path / "there", ours, "gpt2.arch:GPT2", **sizes)


@pytest.mark.reference("tokenizers")
def test_its_tokens_are_named_by_the_config(tmp_path: Path) -> None:
    import tokenizers

    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    library.save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": "b", "eos_token": "a", "layer_norm_epsilon": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = read_tokenizer(tmp_path)
    assert (tokenizer.bos, tokenizer.eos) == (1, (0,))
