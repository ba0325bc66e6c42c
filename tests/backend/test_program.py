"""Programs are captured at their first call, which reports progress."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from tinygrad import Tensor
from tinygrad.schedule import schedule_cache

import archdsl
from archdsl.backend.program import Program
from archdsl.backend.tensors import realize_outside_capture
from archdsl.progress import Task, listening

SIZES = {"vocab": 32, "context": 16, "D": 64, "heads": 2, "device": "CPU"}


def given(*numbers: float) -> Tensor:
    return Tensor(np.array(numbers, np.float32), device="CPU").realize()


def test_a_function_is_captured_once_and_serves_every_call() -> None:
    calls = []

    def double(x: Tensor) -> Tensor:
        calls.append(x)
        return (x * 2).contiguous().realize()

    program = Program(double, "CPU")
    for number in (1.0, 2.0, 3.0):
        assert program(given(number, 0.5)).tolist() == [2 * number, 1.0]
    assert len(calls) == 1


def test_what_is_kept_is_no_part_of_the_program() -> None:
    table: list[Tensor] = []

    def looked_up(x: Tensor) -> Tensor:
        if not table:
            table.append(realize_outside_capture(Tensor([1.0, 2.0], device="CPU") + 1))
        return (x * table[0]).contiguous().realize()

    program = Program(looked_up, "CPU")
    assert program(given(1, 1)).tolist() == [2, 3]
    table[0].assign(Tensor([5.0, 7.0], device="CPU")).realize()
    assert program(given(1, 1)).tolist() == [5, 7]


def test_the_first_call_alone_is_told() -> None:
    told: list[tuple[str, int]] = []

    def listener(task: Task) -> nullcontext[None]:
        told.append((task.what, task.done()))
        return nullcontext()

    program = Program(lambda x: (x - 7).contiguous().realize(), "CPU")
    with listening(listener):
        for _ in range(3):
            program(given(1, 2, 3))
    assert told == [("compiling for CPU", 0)]


@pytest.mark.few(1)
@pytest.mark.parametrize("kernels", ["best", "tinygrad"])
def test_copies_of_a_block_are_scheduled_once(kernels: str) -> None:
    """tinygrad reuses the schedule of a layer; only the first layer may differ."""
    scheduled = []
    for depth in (3, 9):
        model = archdsl.compile("gpt.arch", **SIZES, depth=depth, kernels=kernels)
        assert model.parameters  # drawn, and the device opened
        schedule_cache.clear()
        model(tokens=[[1, 2, 3]])
        scheduled.append(len(schedule_cache))
        schedule_cache.clear()
        model.decoder(1).feed(np.array([[5]]))
        scheduled.append(len(schedule_cache))
    assert scheduled[:2] == scheduled[2:]
