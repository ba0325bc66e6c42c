"""Learning rates: warmup, the way down, and settings that cannot be."""

from __future__ import annotations

import itertools
import math

import pytest

from archdsl.diagnostics import ArchError
from archdsl.training.schedules import SCHEDULES, learning_rate
from archdsl.training.settings import Settings, warmup_steps

STEPS = 200


def rates(schedule: str, warmup: int = 20, decay_share: float = 0.2) -> list[float]:
    run = Settings(
        steps=STEPS,
        warmup=warmup,
        learning_rate=2.0,
        schedule=schedule,
        last_rate=0.1,
        decay_share=decay_share,
    )
    return [learning_rate(run, step) for step in range(STEPS)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_rises_to_its_highest_and_never_again(schedule: str) -> None:
    found = rates(schedule)
    assert found[:20] == pytest.approx([2.0 * (i + 1) / 20 for i in range(20)])
    assert max(found) == found[19] == 2.0
    assert all(a >= b for a, b in itertools.pairwise(found[19:]))
    assert rates(schedule, warmup=0)[0] == 2.0


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_the_last_step_has_the_last_rate(schedule: str) -> None:
    assert rates(schedule)[-1] == pytest.approx(0.2)
    run = Settings(steps=STEPS, learning_rate=2.0, schedule=schedule)
    assert learning_rate(run, 10 * STEPS) == pytest.approx(0.2)


def test_each_schedule_has_its_form() -> None:
    half = 20 + (STEPS - 20) // 2 - 1  # half of the way down
    assert rates("cosine")[half] == rates("linear")[half] == pytest.approx(1.1)
    quarter = 20 + (STEPS - 20) // 4 - 1
    assert rates("cosine")[quarter] == pytest.approx(0.2 + 1.8 * (1 + math.sqrt(0.5)) / 2)
    assert set(rates("constant")[19:]) == {2.0}
    assert set(rates("wsd")[19:160]) == {2.0}  # the last fifth falls
    assert rates("wsd")[169] == pytest.approx(0.2 + 1.8 * 0.5)
    assert rates("wsd", decay_share=0.5)[124] == pytest.approx(0.2 + 1.8 * 0.5)


def test_inverse_sqrt_is_the_rate_of_the_paper() -> None:
    width, warmup = 512, 40
    highest = (width * warmup) ** -0.5
    run = Settings(steps=STEPS, warmup=warmup, learning_rate=highest, schedule="inverse_sqrt")
    for step in range(STEPS):
        now = step + 1
        right = width**-0.5 * min(now**-0.5, now * warmup**-1.5)
        assert learning_rate(run, step) == pytest.approx(right, rel=1e-12)


def test_a_warmup_that_is_not_given_is_a_tenth_of_the_run() -> None:
    assert [warmup_steps(Settings(steps=n)) for n in (5, 50, 100_000)] == [0, 5, 100]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ArchError, match="the schedule cannot be cosin") as caught:
        learning_rate(Settings(schedule="cosin"), 0)
    (diagnostic,) = caught.value.diagnostics
    assert "cosine" in str(diagnostic.help)
    assert "wsd" in str(diagnostic.expected)
    with pytest.raises(ArchError, match="the warmup is longer than the run"):
        learning_rate(Settings(steps=10, warmup=11), 0)
