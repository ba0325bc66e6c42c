"""Learning rate schedules: the share of the highest rate at each step of a run.

A run of `steps` steps has the highest rate at step `warmup`, counted from 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from archdsl.execution.arguments import check_choice
from archdsl.training.settings import Settings, warmup_steps


def learning_rate(settings: Settings, step: int) -> float:
    """The learning rate at a step, counted from 0.

    It rises linearly from 0 over the first `warmup` steps. Then `schedule` decides:

    - `cosine`: half a period of a cosine, down to `last_rate` (Loshchilov and Hutter 2016).
    - `linear`: a line, down to `last_rate`.
    - `constant`: the highest rate.
    - `wsd`: the highest rate; over the last `decay_share` of the steps, 1 - sqrt of the time,
      down to `last_rate` (Hägele et al. 2024, section 3).
    - `inverse_sqrt`: by 1 / sqrt of the time (Vaswani et al. 2017, section 5.3, equation 3,
      where the highest rate is (d_model * warmup)^-0.5).

    `last_rate` is a share of the highest rate, which the last step has; later steps too.

    >>> run = Settings(steps=6, warmup=2, learning_rate=1.0, last_rate=0.2, schedule="linear")
    >>> [round(learning_rate(run, step), 2) for step in range(7)]
    [0.5, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    """
    after = SCHEDULES[check_choice("the schedule cannot be", settings.schedule, SCHEDULES)]
    warmup, now = warmup_steps(settings), step + 1
    if now < warmup:
        return settings.learning_rate * now / warmup
    return settings.learning_rate * after(settings, now)


def _falling(settings: Settings, begin: float, now: int) -> float:
    """How much of the way down is done: 0 at step `begin`, 1 at the last step."""
    length = settings.steps - begin
    return 1.0 if length <= 0 else min(max((now - begin) / length, 0.0), 1.0)


def _highest(settings: Settings) -> int:
    """The step with the highest rate, counted from 1."""
    return max(warmup_steps(settings), 1)


def _between(settings: Settings, share: float) -> float:
    """The highest rate for share 1, `last_rate` for share 0."""
    return settings.last_rate + (1 - settings.last_rate) * share


def _cosine(settings: Settings, now: int) -> float:
    done = _falling(settings, _highest(settings), now)
    return _between(settings, (1 + math.cos(math.pi * done)) / 2)


def _linear(settings: Settings, now: int) -> float:
    return _between(settings, 1 - _falling(settings, _highest(settings), now))


def _constant(settings: Settings, now: int) -> float:
    return 1.0


def _wsd(settings: Settings, now: int) -> float:
    begin = max(settings.steps * (1 - settings.decay_share), _highest(settings))
    return _between(settings, 1 - math.sqrt(_falling(settings, begin, now)))


def _inverse_sqrt(settings: Settings, now: int) -> float:
    return math.sqrt(_highest(settings) / now)


SCHEDULES: dict[str, Callable[[Settings, int], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "wsd": _wsd,
    "inverse_sqrt": _inverse_sqrt,
}
