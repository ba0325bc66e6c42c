"""What a training run reports while it runs, as data. The command line and callers show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from archdsl.frozen import Frozen


class Event(Frozen):
    """The state of a run after a step.

    - `step` of `steps` is done; `loss` is the training loss of this step, before its update.
    - `rate` is the learning rate, `norm` the length of the gradient before clipping.
    - `speed` counts `unit`s per second of training: "tokens", or "examples" if the model has
      no axis that varies. Evaluation and checkpoints do not count.
    - `seconds` is the time of the run so far, `seconds_left` an estimate of the rest.
    - `flops` are those of matrix products per second, a backward pass counted as two forward
      passes (Kaplan et al. 2020, section 2.1). `share` is their share of the machine's, if the
      peak is known.
    - `valid` is the validation loss if this step was followed by an evaluation, `saved` whether
      it was followed by a checkpoint, `sample` a generated text.
    """

    step: int
    steps: int
    loss: float
    rate: float
    norm: float
    unit: str
    speed: float
    seconds: float
    seconds_left: float
    flops: float
    share: float | None = None
    valid: float | None = None
    saved: bool = False
    sample: str | None = None


class Notice(Frozen):
    """A sentence for people, such as that a damaged checkpoint was skipped."""

    text: str


Report: TypeAlias = Callable[[Event | Notice], None]
"""Receives what a run reports. It may raise, which ends the run without a checkpoint."""
