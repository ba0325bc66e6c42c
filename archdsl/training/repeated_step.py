"""Single steps of training, for a caller who has a loop of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.execution.arguments import is_number
from archdsl.execution.executable import Executable
from archdsl.execution.train_step import Batch, Step
from archdsl.training.finetuning import frozen_weights
from archdsl.training.loop import train_step
from archdsl.training.settings import settings_from

NAMES = (
    *("optimizer", "weight_decay", "beta1", "beta2", "epsilon", "momentum"),
    *("clip", "ema", "freeze", "seed"),
)
"""The settings of a single step."""


class RepeatedStep:
    """The steps of a model, with settings that do not change; they are counted for dropout."""

    def __init__(self, executable: Executable, settings: Mapping[str, Any]):
        for name in settings:
            if name not in NAMES:
                fail(
                    "unknown-argument",
                    f"a step has no setting `{name}`",
                    expected=listing(NAMES),
                    help=did_you_mean(name, NAMES),
                )
        self._given, self._number = dict(settings), 0
        self._settings = settings_from(settings)
        frozen = frozen_weights(executable.graph, self._settings.freeze)
        self._step = train_step(executable, self._settings, frozen)

    def __call__(self, batch: Batch, rate: float, settings: Mapping[str, Any]) -> Step:
        """One step at a learning rate; `settings` must be those of the first step."""
        if settings != self._given:
            fail(
                "argument-value",
                "all steps of a model have the same settings",
                expected=_shown(self._given),
                found=_shown(settings),
                help="compile the model again to begin anew",
            )
        if not is_number(rate) or not 0 <= rate < math.inf:
            fail(
                "argument-value",
                f"the learning rate cannot be {rate!r:.40}",
                expected="a number of at least 0",
            )
        found = self._step([batch], float(rate), (self._settings.seed, self._number))
        self._number += 1
        return found


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items()) or "no setting"
