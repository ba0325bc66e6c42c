"""The order of the examples."""

import numpy as np
import pytest

from archdsl.diagnostics import ArchError
from archdsl.training.order import POOL, ByLength, Order, order_of
from archdsl.training.settings import settings_from


@pytest.mark.parametrize(("count", "batch"), [(1, 3), (2, 1), (7, 3), (1000, 32), (4097, 1000)])
def test_each_epoch_has_each_example_once(count: int, batch: int) -> None:
    order = Order(count, batch, seed=3)
    steps = -(-3 * count // batch)
    numbers = np.concatenate([order.numbers(step) for step in range(steps)])
    for epoch in range(3):
        found = numbers[epoch * count : (epoch + 1) * count]
        assert np.array_equal(np.sort(found), np.arange(count))


def test_epochs_and_seeds_have_different_orders() -> None:
    first, second = Order(500, 500, 0), Order(500, 500, 1)
    orders = [first.numbers(0), first.numbers(1), second.numbers(0), np.arange(500)]
    for number, one in enumerate(orders):
        for other in orders[:number]:
            assert (one == other).mean() < 0.05


def test_an_order_follows_from_its_step_and_seed() -> None:
    assert np.array_equal(Order(999, 10, 5).numbers(70), Order(999, 10, 5).numbers(70))


def test_the_order_looks_random() -> None:
    """Each place of the first ten is uniform, and neighbours are not related."""
    orders = np.array([Order(100, 100, seed).numbers(0) for seed in range(50)])  # [50, 100]
    deviation = 100 / np.sqrt(12 * 50)
    assert (abs(orders.mean(0) - 49.5) < 5 * deviation).all()
    neighbours = np.corrcoef(orders[:, :-1].ravel(), orders[:, 1:].ravel())[0, 1]
    assert abs(neighbours + 1 / 99) < 0.06


@pytest.mark.parametrize("count", [10**9, 10**12, 2**40, 2**40 + 1])
def test_a_large_order_has_no_example_twice(count: int) -> None:
    order = Order(count, 4096, seed=1)
    numbers = np.concatenate([order.numbers(step) for step in (0, 1, 10**6)])
    assert len(np.unique(numbers)) == len(numbers)
    assert numbers.min() >= 0
    assert numbers.max() < count
    assert abs(numbers.mean() / count - 0.5) < 0.02


def test_a_batch_spans_epochs() -> None:
    numbers = Order(4, 10, seed=0).numbers(0)
    assert np.bincount(numbers[:8], minlength=4).tolist() == [2, 2, 2, 2]


def test_batches_by_length_have_the_examples_of_their_pool() -> None:
    order = Order(4096, 8, seed=2)
    lengths = np.random.default_rng(0).integers(1, 100, 4096)
    grouped = ByLength(order, lengths)
    steps = range(POOL, 2 * POOL)
    batches = np.array([grouped.numbers(step) for step in steps])  # [POOL, 8]
    plain = np.array([order.numbers(step) for step in steps])
    assert np.array_equal(np.sort(batches, None), np.sort(plain, None))
    found = lengths[batches]
    assert (found.max(1) - found.min(1)).max() <= 10
    assert (np.diff(found[:, 0]) < 0).any()  # not from short to long
    assert np.array_equal(ByLength(order, lengths).numbers(POOL + 5), batches[5])
    assert not np.array_equal(ByLength(order, lengths).numbers(5), batches[5])


def test_examples_of_one_length_are_not_grouped() -> None:
    with pytest.raises(ArchError, match="`by_length` changes nothing"):
        order_of([1, 2, 3], settings_from({"by_length": True}))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"batch": 0}, {"seed": -1}])
def test_an_impossible_order_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ArchError, match=f"cannot have {next(iter(wrong))} = "):
        Order(**({"count": 5, "batch": 1, "seed": 0} | wrong))
