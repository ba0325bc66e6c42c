"""Operators on axes by name and by data against NumPy: sum, max, top, contract, take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from tests.backend.test_operators import model, normal
from tests.reference.agreement import apart

TOKENS = np.array([[1, 2, 3, 0, 0, 0], [1, 2, 3, 4, 5, 6]])


def test_contract_two_tensors() -> None:
    a, b = normal(2, 4, 5, 3), normal(2, 6, 5, 3)
    found = model("""
        input a: float[4, 5, 3]
        input b: float[6, 5, 3]
        output y: float[4, 6, 3] = contract("i k c, j k c -> i j c", a, b)
        output z: float[3, 4, 5] = contract("i k c -> c i k", a)
    """)(a=a, b=b)
    assert apart(found["y"], np.einsum("zikc,zjkc->zijc", a, b)) < 1e-6
    assert apart(found["z"], a.transpose(0, 3, 1, 2)) == 0


def test_padding_counts_as_0() -> None:
    x, y = normal(2, 6, 4), normal(2, 6, 3)
    x[0, 3:] = 1e3
    found = model("""
        input tokens: int[T <= 8] < 9 pad 0
        input x: float[T, 4]
        input y: float[T, 3]
        output both: float[4, 3] = contract("T K, T V -> K V", x, y)
        output one: float[4] = contract("T K -> K", x)
        output sums: float[4] = x -> sum(T)
        output most: float[4] = x -> max(T)
    """)(tokens=TOKENS, x=x, y=y)
    rows = [(x[0, :3], y[0, :3]), (x[1], y[1])]
    assert apart(found["both"], [a.T @ b for a, b in rows]) < 1e-6
    for name in ("one", "sums"):
        assert apart(found[name], [a.sum(0) for a, _ in rows]) < 1e-6
    assert apart(found["most"], [a.max(0) for a, _ in rows]) == 0


def test_whole_numbers_are_joined() -> None:
    """The first is the same along the axes that it lacks."""
    found = model("""
        input table: float[9, 2]
        pairs = positions(6) -> reshape("(A B) -> A B", A = 3)
        output y: float[3, 3, 2] = take(table, concat(positions(1) + 8, pairs))
    """)(table=(table := normal(1, 9, 2)))["y"]
    assert apart(found, table[:, [[8, 0, 1], [8, 2, 3], [8, 4, 5]]]) == 0
    with pytest.raises(ArchError, match="an index can be as large as 8"):
        model("""
            input table: float[8, 2]
            output y: float[7, 2] = take(table, concat(positions(6), positions(1) + 8))
        """)


def test_of_equal_numbers_the_first_is_in_the_top() -> None:
    x = np.array([[[3, 1, 3, 2], [0, 0, 0, 0], [1, 2, 3, 4]]], np.float32)
    found = model("""
        input x: float[3, 4]
        output one: float[3, 4] = x -> top(1)
        output two: float[3, 4] = top(x, 2)
    """)(x=x)
    assert found["one"].tolist() == [[[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]]
    assert found["two"].tolist() == [[[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]]]


def test_take() -> None:
    table, scores = normal(2, 9, 3), normal(2, 2, 5, 7)
    ids, pairs = np.array([[4, 0, 8], [1, 1, 2]]), np.arange(2 * 5 * 4).reshape(2, 5, 4) % 7
    places = np.arange(2 * 9).reshape(2, 9) * 3 % 5
    found = model("""
        input ids: int[S <= 8] < 9
        input table: float[9, 3]
        input scores: float[2, T <= 8, 7]
        input pairs: int[T, 4] < 7
        input places: int[9] < 5
        output y: float[S, 3] = take(table, ids)
        output z: float[4, 2, T] = scores -> take(pairs, "h q n, q k -> k h q")
        output placed: int[S] = take(places, ids)
    """)(ids=ids, table=table, scores=scores, pairs=pairs, places=places)
    assert apart(found["y"], [a[i] for a, i in zip(table, ids, strict=True)]) == 0
    assert (found["placed"].numpy() == np.take_along_axis(places, ids, 1)).all()
    right = np.take_along_axis(scores, pairs[:, None], -1)
    assert apart(found["z"], right.transpose(0, 3, 1, 2)) == 0


LEARNED = """
  input x: float[4, 3]
  input m: float[3, 5]
  input ids: int[4] < 4
  h = x -> linear(3)
  y = contract("i k, k j -> i j", h, m) -> take(ids) -> reshape("i j -> j i") -> max
  z = h * (h -> top(2)) -> contract("i k, k j -> i j", m) -> reshape("i j -> j i") -> sum
  output out: float[5] = y + z
  loss cross_entropy(out, label: int < 5)
"""


@pytest.mark.long
@pytest.mark.reference("torch")
def test_gradients() -> None:
    import torch

    found = model(LEARNED)
    x, m, ids = normal(1, 4, 3), normal(1, 3, 5), np.array([[0, 2, 2, 1]])
    found.loss(x=x, m=m, ids=ids, label=np.array([3])).backward()
    weight = found.parameters["linear.weight"]
    w = torch.tensor(weight.numpy(), requires_grad=True)
    h = torch.tensor(x[0]) @ w.T
    largest = torch.zeros_like(h).scatter(1, h.topk(2).indices, 1)
    out = (h @ torch.tensor(m[0]))[ids[0]].amax(0) + ((h * largest) @ torch.tensor(m[0])).sum(0)
    torch.nn.functional.cross_entropy(out, torch.tensor(3)).backward()
    assert weight.grad is not None
    assert w.grad is not None
    assert apart(weight.grad.numpy(), w.grad.numpy()) < 1e-5


STEPPED = """
model M(vocab = 11, n = 12, D = 6) {{
  input tokens: int[T <= n] < vocab
  x = tokens -> embed(vocab, D)
  q = x -> q: linear(D) -> reshape("T (H h) -> T H h", H = 2)
  h = ({value}) * (x -> top(2))
  output logits: float[T, vocab] = h -> linear(vocab)
  loss next_token(logits, tokens)
}}
"""


def stepped(value: str) -> Any:
    return archdsl.compile(archdsl.parse(STEPPED.format(value=value)))


def test_steps_of_what_mixes_no_positions() -> None:
    heads = 'x -> reshape("T (h D) -> T h D", h = 3)'
    product = f'contract("T H h, T h D -> T H D", q, {heads})'
    found = stepped(f'{product} -> reshape("T H D -> T (H D)") -> linear(D)')
    tokens = np.random.default_rng(1).integers(0, 11, (2, 7))
    whole, decoder = found(tokens=tokens)["logits"].numpy(), found.decoder(2)
    parts = [decoder.feed(tokens[:, :3]), decoder.feed(tokens[:, 3:])]
    assert apart(np.concatenate(parts, 1), whole) < 1e-5


@pytest.mark.parametrize(
    "value",
    [
        'contract("T H h, S H h -> T S", q, q) -> softmax -> contract("T S, S D -> T D", x)',
        'contract("T D, S D -> T S", x, x) -> top(3) -> linear(6)',
        'contract("D, T D -> T D", x -> max(T), x)',
    ],
)
def test_sums_over_positions_are_not_causal(value: str) -> None:
    with pytest.raises(ArchError):
        stepped(value)
