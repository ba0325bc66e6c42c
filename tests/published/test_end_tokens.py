"""An end token that is also padding: the loss skips it, so `check` and `loss` warn."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.formats import LazyTensor, write_checkpoint

SPEC = """\
model Copy(vocab = 9, D = 4, pad_id = 0, end = 2) {
  input tokens: int[T <= 8] < vocab pad pad_id
  h = tokens -> embed(vocab, D)
  output logits: float[T, vocab] = h -> head: linear(vocab, bias = false)
  loss next_token(logits, tokens)
}

weights "published" for Copy {
  config {
    model_type = "copy"
    vocab_size = vocab
    hidden_size = D
    pad_token_id = pad_id
    eos_token_id = END
  }

  embed.weight = table
  head.weight = head
}
"""
STATED = SPEC.replace("END", "end")
FREE = SPEC.replace("END", "any").replace(", end = 2", "")
WARNING = "`tokens` is padded with 2, which is the end token"
ROWS = [[3, 4, 2], [5, 2, 2]]


def write(folder: Path, text: str) -> str:
    path = folder / "copy.arch"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_check_warns_with_the_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path, STATED)
    assert main(["check", spec, "--set", "pad_id=2"]) == 0
    printed = capsys.readouterr().err
    assert f"warning: Copy: {WARNING}" in printed
    assert "write `pad` with a number that no text has" in printed
    assert main(["check", spec, "--set", "pad_id=2", "--json"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning.startswith(f"Copy: {WARNING}")


@pytest.mark.parametrize("text", [STATED, FREE])
def test_other_padding_is_no_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    assert main(["check", write(tmp_path, text)]) == 0
    assert capsys.readouterr().err == ""
    model = archdsl.compile(archdsl.parse(text), device="CPU")
    assert np.isfinite(model.loss(tokens=[[3, 4, 2], [5, 2, 0]]).item())


def test_the_loss_warns() -> None:
    model = archdsl.compile(archdsl.parse(STATED), device="CPU", pad_id=2)
    with pytest.warns(UserWarning, match=WARNING):
        model.loss(tokens=ROWS)


def test_the_loss_of_a_published_model_warns(tmp_path: Path) -> None:
    """The spec accepts any end token; the config gives it."""
    config = {"model_type": "copy", "vocab_size": 9, "hidden_size": 4}
    config |= {"pad_token_id": 2, "eos_token_id": [1, 2]}
    table = LazyTensor("float32", (9, 4), lambda: np.ones((9, 4), np.float32))
    write_checkpoint(tmp_path / "model", {"table": table, "head": table}, config)
    spec = write(tmp_path, FREE)
    model = archdsl.from_pretrained(tmp_path / "model", spec=spec, device="CPU")
    with pytest.warns(UserWarning, match=WARNING):
        model.loss(tokens=ROWS)
    model.ends = (1,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.loss(tokens=ROWS)
