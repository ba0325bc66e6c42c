"""Diagnosed: the kernels that take longest, each with its source in a file of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from archdsl.execution.decoder import Decoder
from benchmarks.device import fast, limits, sizes
from benchmarks.device.runner import Line, Unit
from benchmarks.device.sizes import DECODERS, Sizes

_LENGTH = 128
_LONGEST = 10


def units(limit: Line, folder: Path, quick: bool) -> Iterator[Unit]:
    """Prefill and step of a GPT and of a Llama."""
    dtype = fast.best_dtype(limit)
    for name, offered in DECODERS.items():
        size = sizes.chosen(
            offered, limit["memory"], limits.best(limit, dtype)[0], False, quick
        )
        for new in (min(_LENGTH, min(size.lengths)), 1):
            what = f"prefill of {new}" if new > 1 else "a step"
            options = {"limit": limit, "dtype": dtype, "size": size, "new": new}
            yield Unit(
                "diagnosed",
                f"{name}, {dtype}, {what}",
                __name__,
                "longest",
                {**options, "folder": str(folder)},
                f"diagnosed {name}",
            )


def longest(limit: Line, dtype: str, size: Sizes, new: int, folder: str) -> Line:
    """The kernels of a program that take longest, with their shares of the device's limits."""
    from tinygrad.helpers import Context

    executable = fast.model_of(size, limit["device"], dtype).executable
    decoder = Decoder(executable, 1, new + 8)
    tokens = np.full((1, new), 9)
    with Context(JIT=2):  # type: ignore[no-untyped-call]  # no graph of several kernels
        decoder.feed(tokens, last=True)
        with _timed() as times:
            decoder.truncate(0)
            decoder.feed(tokens, last=True)
    found = sorted(times.items(), key=lambda each: -sum(each[1][0]))
    total = sum(sum(seconds) for seconds, _ in times.values())
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    flops, read = limits.best(limit, dtype)
    lines = []
    for number, (program, (seconds, values)) in enumerate(found[:_LONGEST], start=1):
        info, _, source, *_ = program.src
        name = info.arg.function_name
        file = place / f"{size.spec.partition('.')[0]}-{new}-{number:02}-{name}.txt"
        file.write_text(source.arg)
        operations, moved = _estimated(info.arg.estimates, values)
        mean = sum(seconds) / len(seconds)
        lines.append(
            {
                "kernel": name,
                "launches": len(seconds),
                "seconds": sum(seconds),
                "share_of_time": sum(seconds) / total,
                "share_of_product_limit": operations / mean / flops,
                "share_of_read_limit": moved / mean / read,
                "source": str(file),
            }
        )
    count = sum(len(seconds) for seconds, _ in times.values())
    return {
        "model": size.title,
        "kernels": len(times),
        "launches": count,
        "seconds_in_kernels": total,
        "longest": lines,
    }


def _estimated(estimates: Any, values: Mapping[str, int]) -> tuple[float, float]:
    """Operations and bytes of a kernel, for these values of its variables."""
    from tinygrad.uop.ops import sym_infer

    return sym_infer(estimates.ops, dict(values)), sym_infer(estimates.mem, dict(values))


class _timed:
    """Within the block tinygrad waits for each kernel, and its time is kept by program."""

    def __enter__(self) -> dict[Any, tuple[list[float], Mapping[str, int]]]:
        from tinygrad.engine import realize
        from tinygrad.uop.ops import Ops

        self.module, self.before = realize, realize.track_stats
        found: dict[Any, tuple[list[float], Mapping[str, int]]] = {}

        def note(ctx: Any, call: Any, start: Any, seconds: Any) -> None:
            if call.src[0].op is Ops.PROGRAM and seconds and seconds[0] is not None:
                kept, _ = found.setdefault(call.src[0], ([], ctx.var_vals))
                kept.append(seconds[0])

        realize.track_stats = note
        self.context = realize.ExecContext
        realize.ExecContext = lambda *a, **k: self.context(*_waiting(a), **k)  # type: ignore[misc]
        return found

    def __exit__(self, *error: object) -> None:
        self.module.track_stats = self.before
        self.module.ExecContext = self.context  # type: ignore[misc]


def _waiting(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of tinygrad's ExecContext, with `wait`, the fifth, set."""
    return (*given[:4], True, *given[5:]) if len(given) >= 5 else given
