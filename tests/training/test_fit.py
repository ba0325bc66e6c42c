"""`Model.fit` and `Model.step` with a compiled step."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from archdsl.formats.host import bits_of
from archdsl.model import Model
from archdsl.syntax.parser import parse
from archdsl.training import checkpoints
from archdsl.training.data import Data
from archdsl.training.events import Event
from tests.training.fakes import Counting, computed

SPEC = """
model M(vocab = 9, context = 8, D = 8) {
  input tokens: int[T <= context] < vocab
  h = tokens -> embed(vocab, D) -> dropout(0.1)
  output logits: float[T, vocab] = h -> linear(vocab)
  loss next_token(logits, tokens)
}
"""
DATA = Data(Counting(), Counting(8))


def compiled(dtype: str = "float32", **settings: Any) -> Model:
    return archdsl.compile(parse(SPEC), device="CPU", dtype=dtype, **settings)


class Interrupted:
    """Sends a signal after some steps."""

    def __init__(self, *steps: int):
        self.steps = steps

    def __call__(self, event: Any) -> None:
        if isinstance(event, Event) and event.step in self.steps:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.long
@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        ("float32", {"ema": 0.9, "accumulate": 2}),
        pytest.param("float16", {}, marks=pytest.mark.slow),
        pytest.param("bfloat16", {"optimizer": "muon"}, marks=pytest.mark.slow),
        pytest.param("float32", {"optimizer": "lamb"}, marks=pytest.mark.slow),
        pytest.param("float32", {"optimizer": "sgd"}, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_continues_bit_for_bit(
    tmp_path: Path, dtype: str, settings: dict[str, Any]
) -> None:
    options = {"data": DATA, "steps": 8, "batch": 4, "eval_every": 3, "save_every": 2}
    options |= {"learning_rate": 0.01, **settings}
    model = compiled(dtype)
    model.fit(tmp_path / "whole", **options)
    stopped = compiled(dtype).fit(tmp_path / "parts", report=Interrupted(5), **options)
    assert stopped.signal == signal.SIGINT
    again = compiled(dtype, seed=3)  # its weights come from the checkpoint
    assert again.fit(tmp_path / "parts", resume=True, **options).step == 8
    assert computed(tmp_path / "parts") == computed(tmp_path / "whole")
    stored = checkpoints.read(tmp_path / "whole" / "last").weights()
    for path, weight in model.parameters.items():
        for other in (again.parameters[path], stored[path]):
            assert np.array_equal(bits_of(weight), bits_of(other))


@pytest.mark.long
def test_what_is_not_finite_in_a_step_is_named(tmp_path: Path) -> None:
    model = compiled()
    weight = model.parameters["linear.weight"]
    weight.assign(weight.full_like(math.nan).contiguous()).realize()
    with pytest.raises(
        ArchError, match="`linear` at `linear` gives a number that is not"
    ) as error:
        model.fit(tmp_path, data=DATA, steps=2, batch=4, save_every=1)
    (found,) = error.value.diagnostics
    assert found.message.endswith("in float32 in step 1")
    assert str(found.help).startswith("lower `learning_rate`")


@pytest.mark.long
def test_a_trained_run_is_a_model_of_the_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("abcdefghi" * 40)
    folder, model = tmp_path / "run", compiled()
    model.fit(
        folder,
        data=tmp_path / "text.txt",
        steps=40,
        learning_rate=0.1,
        eval_every=20,
        sample_every=20,
        sample_prompt="abc",
    )
    samples = (folder / "samples.txt").read_text()
    assert samples.startswith("-- step 20 --\nabc")
    assert samples.endswith("-- step 40 --\nabcdefgh\n\n")  # all of the context
    prompt = ["bcd", "--max-new-tokens", "4", "--temperature", "0", "--device", "CPU"]
    for path in (folder, folder / "last", folder / "checkpoints" / "40"):
        assert main(["generate", str(path), *prompt]) == 0
        assert capsys.readouterr().out == "efgh\n"
    again = archdsl.from_pretrained(folder, device="CPU")
    tokens = np.arange(8)[None]
    logits, right = (m(tokens=tokens)["logits"].numpy() for m in (again, model))
    assert np.array_equal(logits, right)


def test_samples_need_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ArchError, match="`M` cannot write samples: the data have no tokenizer"):
        compiled().fit(tmp_path / "run", data=DATA, sample_every=5)
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_single_steps_are_those_of_a_run(tmp_path: Path) -> None:
    batch = Counting().batch(np.arange(4))
    model = compiled()
    table = bits_of(model.parameters["embed.weight"]).copy()
    settings: Any = {"weight_decay": 0.0, "freeze": ("embed",)}
    losses = [model.step(batch, 0.01, **settings).loss for _ in range(3)]
    assert losses[2] < losses[0]
    with pytest.raises(ArchError, match="all steps of a model have the same settings"):
        model.step(batch, 0.01)
    with pytest.raises(ArchError, match="the learning rate cannot be nan"):
        model.step(batch, math.nan, **settings)
    assert np.array_equal(bits_of(model.parameters["embed.weight"]), table)

    class Same(Counting):
        def batch(self, numbers: Any) -> Any:
            return batch

    fitted = compiled()
    fitted.fit(
        tmp_path,
        data=Data(Same()),
        steps=3,
        learning_rate=0.01,
        schedule="constant",
        **settings,
    )
    for path, weight in model.parameters.items():
        assert np.array_equal(bits_of(weight), bits_of(fitted.parameters[path]))


def test_settings_of_a_single_step() -> None:
    with pytest.raises(ArchError, match="a step has no setting `steps`"):
        compiled().step(Counting().batch(np.arange(4)), 0.1, steps=3)


def test_opened_data_have_their_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ArchError, match="opened data have their tokenizer already"):
        compiled().fit(tmp_path / "run", data=DATA, tokenizer="bytes")
