"""`archdsl attend` as a user types it: over a text, an image, and a translation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.model import Model

SIZES = {"vocab": 7, "context": 9, "D": 8, "heads": 2, "depth": 2}


def made(folder: Path, spec: str, **sizes: Any) -> tuple[Model, list[str]]:
    """A drawn model, and the arguments that load it."""
    model = archdsl.compile(spec, device="CPU", **sizes)
    model.save(folder / "w.npz")
    settings = [part for name, size in sizes.items() for part in ("--set", f"{name}={size}")]
    return model, [spec, *settings, "--weights", str(folder / "w.npz"), "--device", "CPU"]


def vocabulary(folder: Path) -> str:
    (folder / "v.txt").write_text("<pad>\n<s>\n</s>\na\nb\nc\nd\n")
    return str(folder / "v.txt")


@pytest.mark.long
@pytest.mark.reference("matplotlib")
def test_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, loading = made(tmp_path, "gpt2.arch", **SIZES)
    args = ["attend", *loading, "--tokenizer", vocabulary(tmp_path), "abca"]
    assert main([*args, "--json", "--layer", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["edge"] == "h.0.attention.weights"
    assert found["queries"] == found["keys"] == list("abca")
    expected = model.trace(found["edge"], tokens=[[3, 4, 5, 3]])[found["edge"]][0]
    np.testing.assert_allclose(found["weights"], expected, atol=1e-6)
    assert main([*args, "--head", "1", "--json"]) == 0
    last = json.loads(capsys.readouterr().out)
    assert last["edge"] == "h.1.attention.weights"
    assert np.shape(last["weights"]) == (1, 4, 4)
    for name in ("map.svg", "map.PNG"):
        assert main([*args, "-o", str(tmp_path / name)]) == 0
        assert capsys.readouterr().err == f"wrote {tmp_path / name}: h.1.attention\n"
        assert (tmp_path / name).stat().st_size > 1000
    for more, message in (
        (["--layer", "2"], "`h.*.attention` has no layer 2\n  = expected: 0 to 1"),
        (["--head", "2"], "there is no head 2\n  = expected: 0 to 1"),
        (["--edge", "h.*.mlp"], "no attention of `GPT2` matches `h.*.mlp`"),
        (["--position", "1"], "--position works only with the patches of an image"),
        (["-o", "map.gif"], "cannot draw `map.gif`\n  = expected: a file `.svg`"),
    ):
        assert main([*args, *more]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.reference("matplotlib", "PIL")
def test_the_patches_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    sizes = {"image": 8, "patch": 4, "classes": 3, "D": 8, "heads": 2, "depth": 1}
    _, loading = made(tmp_path, "vit.arch", **sizes)
    fields = {"size": {"height": 8, "width": 8}, "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    args = ["attend", *loading, "--preprocessor", tmp_path, tmp_path / "a.png"]
    assert main([*map(str, args), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["keys"] == ["cls", "0", "1", "2", "3"]
    assert np.allclose(np.sum(found["weights"], -1), 1, atol=1e-5)
    assert main([*map(str, args), "-o", str(tmp_path / "map.svg")]) == 0
    assert (tmp_path / "map.svg").read_text().count("<image") == 1 + 2  # and of each head
    assert main([*map(str, args), "--position", "5"]) == 1
    assert "there is no position 5\n  = expected: 0 to 4" in capsys.readouterr().err


@pytest.mark.slow
def test_a_translation_and_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, loading = made(tmp_path, "transformer.arch", **SIZES)
    args = ["attend", *loading, "--vocab", vocabulary(tmp_path), "abc", "--json"]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["edge"].endswith("1.cross_attention_block.attention.weights")
    assert found["keys"] == ["<s>", "a", "b", "c", "</s>"]
    # The row of a token is that of the position at which the decoder writes it.
    written = ["<pad>", "<s>", "</s>", *"abcd"]
    target = [1, *(written.index(token) for token in found["queries"])]
    arrays = {"source": [[1, 3, 4, 5, 2]], "target": [target[:-1]]}
    trace = model.trace([found["edge"], "logits"], **arrays)
    np.testing.assert_allclose(found["weights"], trace[found["edge"]][0], atol=1e-5)
    assert trace["logits"][0].argmax(-1).tolist() == target[1:]  # greedy
    assert main([*args, "--edge", "stack.*.self_attention_block.attention"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["queries"] == found["keys"]


def test_models_without_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attend", "gpt2.arch", "a", "--json"]) == 1
    assert "`gpt2.arch` is a spec, which has no weights" in capsys.readouterr().err
