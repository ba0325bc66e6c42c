"""`archdsl merge`: a checkpoint and an adapter become a checkpoint."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from archdsl.formats import LazyTensor, read_checkpoint
from archdsl.formats.gguf_copy import copy_gguf
from archdsl.passes.lora import linear_weights
from archdsl.pretrained import understand
from archdsl.published.convert import as_floats
from archdsl.published.low_rank import LowRank
from archdsl.published.peft import write_adapter
from tests.cli.tiny import gpt2
from tests.formats.test_gguf import ARCHITECTURE, floats, gguf_file, pair, text
from tests.reference.test_gguf_models import write_gguf

SPEC = "gpt2.arch"  # else all of the library are read to find it


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("tokenizers")
    return gpt2(tmp_path_factory.mktemp("models") / "base")


def adapter(
    base: str, folder: Path, *parts: str, spec: str | None = SPEC
) -> dict[str, LowRank]:
    """Writes random matrices for the weights with these parts in their paths."""
    _, _, analysis = understand(base, spec)
    random = np.random.default_rng(2)
    shapes = linear_weights(analysis.graph)
    found = {
        path: LowRank(
            random.standard_normal((2, into), np.float32),
            random.standard_normal((out, 2), np.float32),
            0.5,
        )
        for path, (out, into) in shapes.items()
        if set(parts) & set(path.split("."))
    }
    write_adapter(folder, analysis.maps["huggingface"], found, shapes)
    return found


def arrays(tensors: Mapping[str, LazyTensor]) -> dict[str, NDArray[Any]]:
    return {name: np.array(as_floats(each).read()) for name, each in tensors.items()}


def test_a_merged_folder(base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GPT-2 stores matrices transposed, and one for queries, keys and values."""
    low = adapter(base, tmp_path / "adapter", "q", "v", "1")
    new = str(tmp_path / "new")
    given = ["merge", base, str(tmp_path / "adapter"), "-o", new, "--spec", SPEC]
    assert main(given) == 0
    before, after = (arrays(read_checkpoint(path).tensors) for path in (base, new))
    counts = f"{len(after)} tensors, of which the adapter changed 3"
    assert capsys.readouterr().err == f"wrote {new}: {counts}\n"
    assert read_checkpoint(new).config == read_checkpoint(base).config
    assert (Path(new) / "tokenizer.json").is_file()
    layer = "transformer.h.0.attn.c_attn.weight"
    parts = [low.get(f"h.0.attention.{part}.weight") for part in "qkv"]
    none = np.zeros((16, 16), np.float32)
    more = [none if p is None else p.scale * p.b @ p.a for p in parts]
    changed = {layer: np.concatenate(more).T}
    one = low["h.0.mlp.1.weight"]
    changed["transformer.h.0.mlp.c_proj.weight"] = (one.scale * one.b @ one.a).T
    assert before.keys() == after.keys()
    for name, array in after.items():
        np.testing.assert_allclose(array, before[name] + changed.get(name, 0), atol=1e-5)


@pytest.mark.long
def test_another_dtype(base: str, tmp_path: Path) -> None:
    adapter(base, tmp_path / "adapter", "out")
    new = str(tmp_path / "new")
    given = ["merge", base, str(tmp_path / "adapter"), "-o", new, "--dtype", "bfloat16"]
    given += ["--spec", SPEC]
    assert main(given) == 0
    opened = read_checkpoint(new)
    assert opened.config is not None
    assert opened.config["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in opened.tensors.values()} == {"bfloat16"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "new.gguf"], "only a .gguf file can be merged into a .gguf file"),
        (["-o", "new", "--dtype", "int8"], "weights cannot be of dtype int8"),
        (["-o", "."], "the folder already has files of a checkpoint"),
    ],
)
def test_what_cannot_be_written(
    base: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    adapter(base, tmp_path / "adapter", "out")
    monkeypatch.chdir(base)
    given = ["merge", base, str(tmp_path / "adapter"), "--spec", SPEC]
    assert main([*given, *options]) == 1
    assert message in capsys.readouterr().err


# -- GGUF --


def test_a_gguf_file_keeps_its_metadata(tmp_path: Path) -> None:
    """The numbers are others, and no tensor is quantized."""
    kept = pair("a.list", 9, struct.pack("<IQ", 8, 2) + text("x") + text("y"))
    pairs = [kept, pair("general.file_type", 4, struct.pack("<I", 3)), ARCHITECTURE]
    quantized = np.arange(36, dtype=np.uint8).tobytes()  # a block of Q8_0 has 34 bytes
    tensors: Any = {"a": ([3], 0, floats(1, 2, 3)), "b": ([1, 32], 8, quantized[:34])}
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    source.write_bytes(gguf_file(tensors, pairs, alignment=32))
    new = {
        "b": LazyTensor("float16", (1, 32), lambda: np.arange(32, dtype=np.float16)),
        "a": LazyTensor("float32", (3,), lambda: np.array([4, 5, 6], np.float32)),
    }
    copy_gguf(source, target, new)
    pairs[1] = pair("general.file_type", 4, struct.pack("<I", 1))
    halves = np.arange(32, dtype=np.float16).tobytes()
    expected: Any = {"a": ([3], 0, floats(4, 5, 6)), "b": ([1, 32], 1, halves)}
    assert target.read_bytes() == gguf_file(expected, pairs, alignment=32)
    with pytest.raises(ArchError, match="the tensors to write are not those of this file"):
        copy_gguf(source, target, {"a": new["a"]})


@pytest.mark.slow
@pytest.mark.reference("torch", "transformers", "safetensors", "gguf")
def test_a_merged_gguf_file(tmp_path: Path) -> None:
    """Its logits are those of the model with the adapter."""
    transformers = importlib.import_module("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32, head_dim=8,
        tie_word_embeddings=False, initializer_range=0.2,
    )  # fmt: skip
    folder, source, new = (str(tmp_path / name) for name in ("hf", "a.gguf", "b.gguf"))
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    write_gguf(Path(folder), Path(source), "llama")
    adapter(folder, tmp_path / "adapter", "q", "k", "down", spec=None)
    given = ["merge", source, str(tmp_path / "adapter"), "-o", new, "--dtype", "float32"]
    assert main(given) == 0
    tokens = np.random.default_rng(0).integers(0, 64, (2, 8))
    model = archdsl.from_pretrained(source, device="CPU")
    model.load_adapter(tmp_path / "adapter")
    expected = model(tokens=tokens)["logits"].numpy()
    merged = archdsl.from_pretrained(new, device="CPU")
    found = merged(tokens=tokens)["logits"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())
