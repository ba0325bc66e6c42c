"""Dropout whose masks follow from a key and a place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor

from archdsl.backend.dropout import dropout

RATE = 0.3


def dropped(
    key: list[int], place: str = "a", rate: float = RATE, layer: tuple[int, ...] = ()
) -> NDArray[Any]:
    """What dropout makes of ones [40, 50]."""
    call: Any = SimpleNamespace(
        x=Tensor.ones(40, 50, device="CPU").contiguous().realize(),
        attr={"rate": rate},
        context=SimpleNamespace(
            key=Tensor(np.array(key, np.uint32), device="CPU"),
            layer_number=lambda i: Tensor(np.array([i], np.uint32), device="CPU"),
        ),
        layer=layer,
        place=place,
    )
    return dropout(call).numpy()


def test_a_key_and_a_place_decide_the_mask() -> None:
    first = dropped([1, 2])
    assert np.array_equal(first, dropped([1, 2]))
    assert set(np.unique(first)) == {0, np.float32(1 / (1 - RATE))}
    others = [dropped([1, 3]), dropped([2, 2]), dropped([1, 2], "b")]
    others += [dropped([1, 2], layer=layer) for layer in ((1,), (0, 1), (1, 1))]
    share = 2 * RATE * (1 - RATE)  # of the numbers differs in independent masks
    for other in others:
        assert (first != other).mean() == pytest.approx(share, abs=0.05)
    for each in (first, *others):
        assert (each == 0).mean() == pytest.approx(RATE, abs=0.05)


def test_a_rate_of_0_drops_nothing() -> None:
    assert (dropped([1, 2], rate=0.0) == 1).all()
