"""An operator is two rows: one of graph/ops.py and one of the emitter's table.

Operators of each kind are added from outside. All else follows from their rows: they are
checked, run, stepped, trained, diffed and costed, or refused with the reason and the line.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor

import archdsl
from archdsl.backend.context import OpCall
from archdsl.backend.emit import EMIT
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from archdsl.graph.ops import CALLED, OPERATORS, OPS
from archdsl.graph.signature import Kind, Op, Param, Site
from archdsl.graph.types import Type
from archdsl.model import Model
from archdsl.passes.split_decoding import split_decoding

X = Param("x", Kind.TENSOR)


def soften(op: OpCall) -> Tensor:
    """Pointwise."""
    return op.x / (1 + op.x.abs())


def ramp(op: OpCall) -> Tensor:
    """Uses the position of each vector."""
    at = op.tensors.get("at", Tensor.arange(op.x.shape[1]).unsqueeze(0))  # [B or 1, T]
    return op.x * (1 + at.unsqueeze(-1) / 10)


def recall(op: OpCall) -> Tensor:
    """Uses all earlier positions and its own."""
    x, k = op.x, op.tensors["k"]  # [B, T, D], [B, S, D]
    T, S = x.shape[1], k.shape[1]
    columns = Tensor.arange(T) + op.tensors.get("past", 0)
    seen = columns.reshape(1, T, 1) >= Tensor.arange(S).reshape(1, 1, S)  # [1, T, S]
    if "left_pad" in op.tensors:
        seen = seen & (Tensor.arange(S) >= op.tensors["left_pad"].reshape(-1, 1, 1))
    return seen.where(x @ k.transpose(1, 2), 0) @ k


def mixed(op: OpCall) -> Tensor:
    """Uses the two positions before its own; in a step they come before the new ones."""
    x = op.x.pad((None, (2, 0), None)) if op.attr["padded"] else op.x  # [B, 2 + T, D]
    return x[:, 2:] + 2 * x[:, 1:-1] - x[:, :-2]


def mixed_type(site: Site) -> Type:
    sequence, x = site.x.axes[0], site.floats()
    size = sequence.size + (0 if site.attr["padded"] else -2)
    return x.with_axes((replace(sequence, size=size), *x.axes[1:]))


def recall_type(site: Site) -> Type:
    x, k = site.floats(), site.floats("k")
    return x.with_noncausal(k.noncausal)


def blur(op: OpCall) -> Tensor:
    """Uses all positions."""
    return op.x - op.x.mean(1, keepdim=True)


ROWS = (
    (Op("soften", (X,), lambda site: site.floats(), "Softens.", example="soften"), soften),
    (
        Op(
            "ramp",
            (X,),
            lambda site: site.floats(),
            "Grows with the position.",
            positions=("at",),
            example="ramp",
        ),
        ramp,
    ),
    (
        Op(
            "recall",
            (X, Param("k", Kind.TENSOR)),
            recall_type,
            "Sums what is like x.",
            flops=lambda site: site.x.elements * site.tensors["k"].axes[0].size * 4,
            positions=("past", "left_pad"),
            cached=("k",),
            cache_length=lambda site: site.tensors["k"].axes[0].size,
            example="recall(k)",
        ),
        recall,
    ),
    (
        Op(
            "mixed",
            (X, Param("padded", Kind.BOOL, True)),
            mixed_type,
            "Mixes each position with the two before.",
            tail=lambda site: 2 if site.attr["padded"] else 0,
            without_tail=("padded",),
            example="mixed",
        ),
        mixed,
    ),
    (
        Op(
            "blur",
            (X,),
            lambda site: site.floats().with_noncausal(site.x.axes[0].size.vars),
            "Takes the mean away.",
            example="blur",
        ),
        blur,
    ),
)
KINDS = {
    "pointwise": "soften",
    "positional": "ramp",
    "stateful": "recall(k)",
    "tailed": "mixed",
}

SPEC = """
model Two(vocab = 30, n = 70, D = 12, depth = 3) {{
  input tokens: int[T <= n] < vocab
  x = tokens -> embed(vocab, D) -> norm
  k = x -> linear(D)
  h = (x + k) -> norm -> {use} -> {{ linear(D) -> {inner} }} * depth -> norm
  output logits: float[T, vocab] = h -> linear(vocab)
  loss next_token(logits, tokens)
}}
"""


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for op, function in ROWS:
        for table in (OPS, OPERATORS, CALLED):
            monkeypatch.setitem(table, op.name, op)
        monkeypatch.setitem(EMIT, op.name, function)


def model(use: str, kernels: str = "best", inner: str | None = None) -> Model:
    text = SPEC.format(use=use, inner=use if inner is None else inner)
    return archdsl.compile(archdsl.parse(text, "two.arch"), device="CPU", kernels=kernels)


def tokens(count: int) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 30, (2, count))


@pytest.mark.few(1)
@pytest.mark.parametrize("kernels", ["best", "tinygrad"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_run_and_stepped(kind: str, kernels: str) -> None:
    """Decoding steps against whole sequences: float32, within 1e-5 of the largest logit."""
    ours, ids = model(KINDS[kind], kernels), tokens(40)
    right = ours(tokens=ids)["logits"].numpy()
    plain = model(KINDS[kind], kernels, inner="soften")(tokens=ids)["logits"].numpy()
    assert kind == "pointwise" or not np.allclose(right, plain, atol=1e-3)
    decoder = ours.decoder(2)
    steps = [decoder.feed(ids[:, :32]), decoder.feed(ids[:, 32:33]), decoder.feed(ids[:, 33:])]
    assert np.abs(np.concatenate(steps, 1) - right).max() < 1e-5 * np.abs(right).max()
    unequal = decoder.prefill([ids[0, :35].tolist(), ids[1, :4].tolist()])
    ends = np.stack([right[0, 34], right[1, 3]])
    assert np.abs(unequal - ends).max() < 1e-5 * np.abs(right).max()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_trained(kind: str) -> None:
    """The gradient along a direction against the loss on both sides of it, to 2 percent."""
    ours, ids = model(KINDS[kind], inner="norm"), tokens(20)
    ours.loss(tokens=ids).backward()
    weight = ours.parameters["norm.weight"]
    assert weight.grad is not None
    gradient, values = weight.grad.numpy(), weight.numpy()
    step = 0.05 * gradient / np.linalg.norm(gradient)
    losses = []
    for sign in (1, -1):
        weight.assign(Tensor(values + sign * step, device="CPU")).realize()
        losses.append(ours.loss(tokens=ids).item())
    slope = (losses[0] - losses[1]) / 2
    assert slope == pytest.approx(float((gradient * step).sum()), rel=0.02)


def test_it_is_checked_and_costed() -> None:
    ours = model("recall(k)")
    assert ours.cost(T=10).flops > model("soften").cost(T=10).flops
    # One value is kept for all that look at it: k, outside of the stack.
    assert str(ours.cost().cache_formula) == "48 T"
    (state,) = split_decoding(ours.graph).states
    assert (str(state.elements), state.layers) == ("12 T", 1)
    # Of the input of each layer, and of that of the first one, two positions.
    tailed = model("mixed")
    assert str(tailed.cost().cache_formula) == str(48 * 2 * 4)
    assert [str(each.elements) for each in split_decoding(tailed.graph).states] == ["24", "72"]
    with pytest.raises(ArchError, match="float values are needed here, not int"):
        archdsl.compile(archdsl.parse(SPEC.format(use="recall(tokens)", inner="ramp")))


def test_it_is_diffed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, use in (("a", "soften"), ("b", "ramp")):
        (tmp_path / f"{name}.arch").write_text(SPEC.format(use=use, inner=use))
    assert main(["diff", "a.arch", "b.arch"]) == 0
    told = capsys.readouterr().out
    assert "soften" in told
    assert "ramp" in told


def test_what_looks_at_later_positions_is_refused_with_its_line() -> None:
    with pytest.raises(ArchError) as raised:
        model("blur")
    told = raised.value.diagnostics[0]
    assert told.code == "not-causal"
    assert [note.span.text for note in told.notes if note.span] == ["blur"]


def test_every_operator_says_how_it_is_stepped() -> None:
    """An operator with a mask declares its positions, and its inputs are checked."""
    known = {"at", "past", "left_pad", "cache_positions"}
    for op in OPERATORS.values():
        assert set(op.positions) <= known
        names = {param.name for param in op.params if param.kind is Kind.TENSOR}
        assert set(op.cached) <= names
        # A composite operator has the positions of its parts.
        masked = any(p.kind is Kind.MASK for p in op.params) and op.name in EMIT
        assert not masked or {"past", "left_pad"} <= set(op.positions)
        flags = {param.name for param in op.params if param.kind is Kind.BOOL}
        assert set(op.without_tail) <= flags
