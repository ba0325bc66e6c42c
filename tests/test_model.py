"""A model's results are its own, whatever was run before, beside, or in which shapes.

tinygrad's JIT writes each call's outputs into the memory of the last, and keeps what was
constant when it captured. Nothing of that may show.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor
from tinygrad.helpers import Context

import archdsl
from archdsl.backend.target import open_device
from archdsl.diagnostics import ArchError
from archdsl.model import Model
from tests.reference.agreement import apart

SIZES = {"vocab": 23, "context": 6, "D": 12, "heads": 3, "depth": 2}
EXACT = 1e-5  # of the scale: sums of other sizes are taken in another order

# What there is along ragged axes: both kinds of attention, means, shares, one position more.
RAGGED = """
use "blocks.arch"
model Ragged(context = 4, D = 8) {
  input source: int[S <= context] < 11 pad 0
  input target: int[T <= context] < 11 pad 3
  init xavier
  z = source -> embed(11, D) -> prepend(start)
  h = target
    -> embed(11, D)
    -> attention(2, causal, bias = false)
    -> attention(4, over = z, kv_heads = 2, bias = false)
  output states: float[T, D] = h
  output whole: float[D] = h -> mean(T)
  output shares: float[T, D] = h -> softmax(T)
}
"""


def gpt(**options: Any) -> Model:
    return archdsl.compile("gpt.arch", device="CPU", **SIZES, **options)


def batches(count: int) -> list[NDArray[np.int64]]:
    random = np.random.default_rng(count)
    return [random.integers(0, SIZES["vocab"], (2, 5)) for _ in range(count)]


def logits(model: Model, tokens: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = model(tokens=tokens)["logits"].numpy()
    return found


@pytest.fixture(scope="module")
def expected() -> list[NDArray[np.float32]]:
    """The logits of `batches(5)` under seed 0, computed without the JIT."""
    model = gpt()
    with Context(JIT=0):
        return [logits(model, tokens) for tokens in batches(5)]


def test_captured_calls_give_what_uncaptured_ones_give(
    expected: list[NDArray[np.float32]],
) -> None:
    model = gpt()
    for _ in range(2):
        for tokens, right in zip(batches(5), expected, strict=True):
            np.testing.assert_array_equal(logits(model, tokens), right)


def test_a_later_call_does_not_change_an_earlier_result(
    expected: list[NDArray[np.float32]],
) -> None:
    model = gpt()
    results = [model(tokens=tokens)["logits"] for tokens in batches(5)]
    views = [result.numpy() for result in results]
    logits(model, np.zeros((2, 5), int))
    for result, view, right in zip(results, views, expected, strict=True):
        np.testing.assert_array_equal(result.numpy(), right)
        np.testing.assert_array_equal(view, right)


def test_an_array_may_be_changed_behind_the_call(expected: list[NDArray[np.float32]]) -> None:
    model, results = gpt(), []
    given = np.empty((2, 5), np.int32)
    for tokens in batches(5):
        given[:] = tokens
        results.append(model(tokens=given)["logits"])
        given[:] = 0
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.numpy(), right)


def test_two_models_of_one_spec_never_share(expected: list[NDArray[np.float32]]) -> None:
    one, other = gpt(), gpt(seed=1)
    for tokens, right in zip(batches(5), expected, strict=True):
        mine, theirs = one(tokens=tokens)["logits"], other(tokens=tokens)["logits"]
        np.testing.assert_array_equal(mine.numpy(), right)
        assert apart(theirs, right) > 0.1


def test_two_inputs_of_one_value_are_two() -> None:
    model = archdsl.compile(
        archdsl.parse(
            "model Two() { input a: float[3] input b: float[3]\n"
            "output c: float[3] = a + b * 10 }"
        ),
        device="CPU",
    )
    value = np.ones((1, 3))
    for factor in range(4):
        both = model(a=value * factor, b=value * factor)["c"].numpy()
        np.testing.assert_array_equal(both, 11 * factor * value)
    tensor = Tensor.ones(1, 3, device="CPU").contiguous().realize()
    for _ in range(4):
        np.testing.assert_array_equal(model(a=tensor, b=tensor)["c"].numpy(), 11 * value)


def test_outputs_that_are_inputs_or_parts_of_them_are_those_of_the_call() -> None:
    spec = """use "blocks.arch"
    model Parts(n = 3) {
      input tokens: int[n] < 9
      input x: float[n, 2]
      output same: int[n] = tokens
      output rest: int[n - 1] = tokens -> slice(n, 1)
      output first: float[2] = x -> first
      output halved: float[n, 2] = x * 0.5
      output still: float[n, 2] = x -> dropout(0.5)
    }"""
    model = archdsl.compile(archdsl.parse(spec), device="CPU")
    results = []
    for shift in range(4):
        tokens = np.array([[1, 2, 3]]) + shift
        results.append((tokens, model(tokens=tokens, x=np.stack([tokens] * 2, axis=2))))
    for tokens, result in results:
        x = np.stack([tokens] * 2, axis=2)
        np.testing.assert_array_equal(result["same"].numpy(), tokens)
        np.testing.assert_array_equal(result["rest"].numpy(), tokens[:, 1:])
        np.testing.assert_array_equal(result["first"].numpy(), x[:, 0])
        np.testing.assert_array_equal(result["halved"].numpy(), x / 2)
        np.testing.assert_array_equal(result["still"].numpy(), x)


def test_dropout_acts_in_training_alone_and_anew_in_each_call() -> None:
    spec = "model M() { input x: float[400] output y: float[400] = x -> dropout(0.25) }"
    model = archdsl.compile(archdsl.parse(spec), device="CPU")
    x = np.ones((1, 400))

    def calls() -> list[NDArray[np.float32]]:
        return [model(x=x)["y"].numpy() for _ in range(4)]

    for _ in range(2):
        for found in calls():
            np.testing.assert_array_equal(found, x)
        with Context(TRAINING=1):
            dropped = calls()
        for found in dropped:
            kept = found[found != 0]
            np.testing.assert_allclose(kept, 1 / 0.75, rtol=1e-6)
            assert 0.65 < len(kept) / 400 < 0.85
        assert all((a != b).any() for a, b in pairwise(dropped))


def test_a_ragged_batch_gives_what_each_sequence_gives_alone() -> None:
    model = archdsl.compile(archdsl.parse(RAGGED), device="CPU")
    random = np.random.default_rng(0)
    sources = [random.integers(1, 11, n) for n in (4, 1, 3, 2)]
    targets = [random.integers(4, 11, n) for n in (2, 3, 1, 4)]

    def filled(rows: list[NDArray[np.int64]], pad: int) -> NDArray[np.int64]:
        return np.array([np.pad(row, (0, 4 - len(row)), constant_values=pad) for row in rows])

    batch = {"source": filled(sources, 0), "target": filled(targets, 3)}
    for _ in range(3):  # computed, captured and played back, with other shapes in between
        together = {name: out.numpy() for name, out in model(**batch).items()}
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            alone = model(source=source[None], target=target[None])
            for name, out in alone.items():
                found = together[name][i]
                if name in ("states", "shares"):
                    found = found[: len(target)]
                assert apart(found[None], out) <= EXACT, (name, len(source), len(target))
            assert (together["shares"][i, len(target) :] == 0).all()


def test_weights_loaded_after_calls_take_effect(
    tmp_path: Path, expected: list[NDArray[np.float32]]
) -> None:
    gpt().save(tmp_path / "seed0.safetensors")
    model = gpt(seed=1)
    for tokens in batches(3):
        logits(model, tokens)
    model.load(tmp_path / "seed0.safetensors")
    for tokens, right in zip(batches(5), expected, strict=True):
        np.testing.assert_array_equal(logits(model, tokens), right)


def test_weights_assigned_after_calls_take_effect(
    expected: list[NDArray[np.float32]],
) -> None:
    model, right = gpt(seed=1), gpt()
    for tokens in batches(3):
        logits(model, tokens)
    for path, weight in model.parameters.items():
        weight.assign(right.parameters[path]).realize()
    np.testing.assert_array_equal(logits(model, batches(5)[0]), expected[0])
    # Put in the place of another, a tensor would not reach what was captured.
    with pytest.raises(TypeError):
        model.parameters["norm.bias"] = right.parameters["norm.bias"]  # type: ignore[index]


def test_a_seed_gives_the_same_weights_every_time() -> None:
    one, again, other = gpt(seed=7), gpt(seed=7), gpt(seed=8)
    for path, weight in one.parameters.items():
        np.testing.assert_array_equal(weight.numpy(), again.parameters[path].numpy())
        if not path.endswith("bias") and "norm" not in path:
            assert (weight.numpy() != other.parameters[path].numpy()).all(), path
    assert one.parameters["embed.weight"].numpy()[0, :3].tolist() == pytest.approx(
        [0.0279196873, 0.0086985072, 0.0237410311]
    )


def test_opencl_has_the_weights_and_results_of_the_cpu(
    expected: list[NDArray[np.float32]],
) -> None:
    try:
        open_device("CL")
    except ArchError as error:
        pytest.skip(f"no OpenCL here: {error.diagnostics[0].found}")
    ours, theirs = archdsl.compile("gpt.arch", device="CL", **SIZES), gpt()
    for path, weight in ours.parameters.items():
        assert weight.device == "CL"
        np.testing.assert_array_equal(weight.numpy(), theirs.parameters[path].numpy())
    for tokens, right in zip(batches(5), expected, strict=True):
        assert apart(logits(ours, tokens), right) <= EXACT


# Activations are rounded to 11 or 8 bits after each operator; the sums are in float32.
@pytest.mark.few(1)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2**-9), ("bfloat16", 2**-6)])
def test_half_numbers_come_close(
    expected: list[NDArray[np.float32]], dtype: str, tolerance: float
) -> None:
    model = gpt(dtype=dtype)
    for tokens, right in zip(batches(5), expected, strict=True):
        found = logits(model, tokens)
        assert found.dtype == np.float32
        assert apart(found, right) <= tolerance


def log_probability(values: NDArray[np.float32], token: int) -> float:
    wide = values.astype(np.float64)
    return float(wide[token] - wide.max() - np.log(np.exp(wide - wide.max()).sum()))


def test_the_loss_is_the_mean_over_what_is_predicted() -> None:
    spec = """model Next() {
      input tokens: int[T <= 5] < 7 pad 0
      h = tokens -> words: embed(7, 8) -> attention(2, causal)
      output logits: float[T, 7] = h -> unembed(words)
      init xavier
      loss next_token(logits, tokens)
    }"""
    model = archdsl.compile(archdsl.parse(spec), device="CPU")
    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0], [1, 0, 0, 0, 0]])
    scores = logits(model, tokens)
    pairs = [(0, 1), (1, 1), (1, 2), (1, 3)]  # row, and position of the token predicted
    losses = [-log_probability(scores[b, t - 1], tokens[b, t]) for b, t in pairs]
    loss = model.loss(tokens=tokens)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_loss_of_labels_along_a_ragged_axis_skips_padding() -> None:
    spec = """model Tagger() {
      input tokens: int[T <= 4] < 7 pad 0
      output logits: float[T, 3] = tokens -> embed(7, 3)
      loss cross_entropy(logits, tags: int[T] < 3)
    }"""
    model = archdsl.compile(archdsl.parse(spec), device="CPU")
    tokens, tags = np.array([[1, 2, 3], [4, 0, 0]]), np.array([[0, 1, 2], [2, 0, 1]])
    scores = model(tokens=tokens)["logits"].numpy()
    pairs = [(0, 0), (0, 1), (0, 2), (1, 0)]
    losses = [-log_probability(scores[b, t], tags[b, t]) for b, t in pairs]
    assert model.loss(tokens=tokens, tags=tags).item() == pytest.approx(np.mean(losses))


def test_mistakes_in_use_are_told() -> None:
    model = gpt()
    with pytest.raises(ArchError) as caught:
        model.loss(tokens=[[1], [2]])
    assert str(caught.value).endswith(
        "error[input]: `tokens` has no next token to predict\n"
        "  |\n"
        "7 |   input tokens: int[T <= context] < vocab\n"
        "  |         ^^^^^^\n"
        "  = expected: at least 2 tokens\n"
        "  = found: 1"
    )
    spec = "model M() { input x: float[2] output y: float[2] = x * 2 }"
    with pytest.raises(ArchError) as caught:
        archdsl.compile(archdsl.parse(spec), device="CPU").loss(x=[[1, 2]])
    assert str(caught.value) == (
        "error[model]: `M` has no loss\n"
        "  = help: add one to the spec: `loss next_token(logits, tokens)`"
    )
    with pytest.raises(ArchError) as caught:
        gpt(dtype="flaot16")
    assert str(caught.value) == (
        "error[argument-value]: a model cannot be of dtype flaot16\n"
        "  = expected: `float32`, `float16` or `bfloat16`\n"
        "  = help: did you mean `float16`?"
    )
    with pytest.raises(ArchError) as caught:
        model.cost(T=7)
    assert str(caught.value) == ("error[argument-value]: `T` cannot be 7\n  = expected: 1 to 6")
