"""Tuned: what a search for faster kernels finds in a given time, and what it gains."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from archdsl.backend.tuning import Tuner
from archdsl.execution.decoder import Decoder
from archdsl.execution.executable import Executable
from benchmarks.device import fast, limits, sizes
from benchmarks.device.runner import Line, Unit
from benchmarks.device.sizes import DECODERS, Sizes

_LENGTH = 128
_SHOWN = 10


def units(limit: Line, seconds: float, quick: bool) -> Iterator[Unit]:
    """The unit of this part: a GPT, tuned for so many seconds."""
    dtype = fast.best_dtype(limit)
    flops, _ = limits.best(limit, dtype)
    size = sizes.chosen(DECODERS["GPT"], limit["memory"], flops, False, quick)
    options = {"device": limit["device"], "dtype": dtype, "size": size, "seconds": seconds}
    name = f"GPT, {dtype}, --tune {seconds:g}"
    yield Unit("tuned", name, __name__, "tuning", options, seconds=seconds + 60)


def tuning(device: str, dtype: str, size: Sizes, seconds: float) -> Line:
    """The time of a prefill and of a step, before and after."""
    model = fast.model_of(size, device, dtype)
    plain, tuner = model.executable, Tuner(seconds)
    tuned = Executable(model.graph, device, dtype, 0, "best", None, tuner)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        before, after = _times(plain, size), _times(tuned, size)
    return {
        "model": size.title,
        **{f"{name}_seconds_before": value for name, value in before.items()},
        **{f"{name}_seconds_after": value for name, value in after.items()},
        "kernels_known": tuner.known,
        "kernels_faster": len(tuner.found),
        "schedules": {
            name: [str(step) for step in steps]
            for name, steps in list(tuner.found.items())[:_SHOWN]
        },
        "warnings": [str(each.message) for each in said][:_SHOWN],
    }


def _times(executable: Executable, size: Sizes) -> dict[str, float]:
    length = min(_LENGTH, min(size.lengths))
    decoder = Decoder(executable, 1, length + 8)
    prompt, token = [list(range(8, 8 + length))], np.full((1, 1), 9)

    def step() -> None:
        decoder.truncate(length)
        decoder.feed(token)

    _, prefill = fast.timed(lambda: decoder.prefill(prompt))
    _, decode = fast.timed(step)
    return {"prefill": prefill, "step": decode}
