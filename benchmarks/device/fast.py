"""Fast: a GPT, a Llama and a ViT, beside PyTorch, as shares of the device's measured limits."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Any

import numpy as np

from archdsl.bench.candidates import Subject, inputs, read_bytes
from archdsl.execution.decoder import Decoder
from archdsl.graph.cost import cost
from archdsl.model import Model, build
from benchmarks.device import limits, sizes
from benchmarks.device.runner import Line, Unit
from benchmarks.device.sizes import DECODERS, IMAGES, TRAINED, Sizes
from benchmarks.gpt2 import prefill_flops

_STEPS = 16  # tokens of a measured decoding
_ROUNDS = 5
_SECONDS = 5.0  # of a measurement, after which no other round begins


def units(limit: Line, quick: bool) -> Iterator[Unit]:
    """The units of this part, for a device with these limits."""
    device, dtype, memory = limit["device"], best_dtype(limit), limit["memory"]
    flops, _ = limits.best(limit, dtype)
    size = sizes.chosen(DECODERS["GPT"], memory, flops, False, quick)
    first = {"size": size, "device": device, "dtype": dtype}
    yield Unit("fast", "GPT, first token of a process", __name__, "first_token", first)
    size = sizes.chosen(TRAINED, memory, limits.best(limit, "float32")[0], True, quick)
    yield _unit("GPT, step of training", "training", {"size": size, "dtype": "float32"}, limit)
    size = sizes.chosen(IMAGES, memory, flops, False, quick)
    for rows in size.rows:
        options = {"size": size, "dtype": dtype, "rows": rows}
        yield _unit(f"ViT, batch of {rows}", "images", options, limit)
    # These take longest, so they come last, if there is no time for all.
    for name, offered in DECODERS.items():
        size = sizes.chosen(offered, memory, flops, False, quick)
        for length in size.lengths[: 1 if quick else None]:
            for rows in size.rows:
                options = {"size": size, "dtype": dtype, "length": length, "rows": rows}
                for kind in ("prefill", "step"):
                    what = f"{name}, {kind} {_WHERE[kind]} {length}, batch of {rows}"
                    yield _unit(what, kind, options, limit)


_WHERE = {"prefill": "of", "step": "behind"}


def _unit(name: str, kind: str, options: dict[str, Any], limit: Line) -> Unit:
    process = f"{options['size'].spec} {kind == 'training'}"
    name = f"{name}, {options['dtype']}: archdsl"
    seconds = 90 if kind == "training" else 60
    return Unit("fast", name, __name__, kind, {**options, "limit": limit}, process, seconds)


def torch_units(limit: Line, quick: bool) -> Iterator[Unit]:
    """The same by PyTorch, if it is installed; each kind in a process of its own."""
    if "torch_device" in limit:
        # Compiling takes PyTorch half a minute.
        for way in ("SDPA", "eager") if quick else ("SDPA", "eager", "compiled"):
            yield from _by_torch(units(limit, quick), limit, way)


def _by_torch(ours: Iterable[Unit], limit: Line, way: str) -> Iterator[Unit]:
    for unit in ours:
        if unit.function == "first_token" or (way, unit.function) == ("compiled", "step"):
            continue  # a step of another length is compiled again
        options = {name: each for name, each in unit.options.items() if name != "limit"}
        yield Unit(
            "torch",
            unit.name.replace("archdsl", f"PyTorch, {way}"),
            "benchmarks.device.torch_models",
            unit.function,
            {**options, "name": limit["torch_device"], "way": way},
            f"{unit.process} by PyTorch, {way}",
        )


def best_dtype(limit: Line) -> str:
    """The dtype with the fastest products; bfloat16 of equally fast ones."""
    order = [each for each in ("bfloat16", "float16", "float32") if each in limit["flops"]]
    return max(order, key=lambda dtype: round(limits.best(limit, dtype)[0] / 1e9, -1))


def prefill(size: Sizes, dtype: str, length: int, rows: int, limit: Line) -> Line:
    """Prompts of one length, to the logits of their next tokens."""
    decoder, prompts = _decoder(size, limit["device"], dtype, length, rows)
    first, seconds = timed(lambda: decoder.prefill(prompts))
    flops = rows * prefill_flops(Subject(size.spec, size.settings), length)
    return {
        "model": size.title,
        "prefill_seconds": seconds,
        "tokens_per_second": rows * length / seconds,
        "share_of_product_limit": flops / seconds / limits.best(limit, dtype)[0],
        "first_seconds": first,
        **memory_used(limit["device"]),
    }


def step(size: Sizes, dtype: str, length: int, rows: int, limit: Line) -> Line:
    """Tokens behind these prompts, one by one."""
    decoder, prompts = _decoder(size, limit["device"], dtype, length, rows)
    decoder.prefill(prompts)
    token = np.full((rows, 1), 9)

    def steps() -> None:
        decoder.truncate(length)
        for _ in range(_STEPS):
            decoder.feed(token)

    first, many = timed(steps)
    seconds = many / _STEPS
    moved = read_bytes(decoder.executable.graph, dtype)
    return {
        "model": size.title,
        "step_seconds": seconds,
        "tokens_per_second": rows / seconds,
        "share_of_read_limit": moved / seconds / limits.best(limit, dtype)[1],
        "first_seconds": first,
        **memory_used(limit["device"]),
    }


@functools.lru_cache(1)
def _decoder(
    size: Sizes, device: str, dtype: str, length: int, rows: int
) -> tuple[Decoder, list[list[int]]]:
    model = model_of(size, device, dtype)
    random = np.random.default_rng(3)
    prompts: list[list[int]] = random.integers(8, 900, (rows, length)).tolist()
    return Decoder(model.executable, rows, length + _STEPS + 1), prompts


def images(size: Sizes, dtype: str, rows: int, limit: Line) -> Line:
    """A forward pass of images."""
    device = limit["device"]
    model = model_of(size, device, dtype)
    given = inputs(model.graph, rows, 1)
    first, seconds = timed(lambda: model(**given)["logits"].numpy())
    flops = rows * cost(model.graph).flops
    return {
        "model": size.title,
        "seconds": seconds,
        "per_second": rows / seconds,
        "share_of_product_limit": flops / seconds / limits.best(limit, dtype)[0],
        "first_seconds": first,
        **memory_used(device),
    }


def training(size: Sizes, dtype: str, limit: Line) -> Line:
    """A step of AdamW on a batch."""
    from benchmarks.training import ours

    rows, length, device = size.rows[0], size.lengths[0], limit["device"]
    step = ours(Subject(size.spec, size.settings, device=device, dtype=dtype), rows, length)
    first, seconds = timed(step)
    graph = Subject(size.spec, size.settings).graph()
    flops = 3 * rows * cost(graph, {"T": length}).flops
    return {
        "model": size.title,
        "step_seconds": seconds,
        "tokens_per_second": rows * length / seconds,
        "share_of_product_limit": flops / seconds / limits.best(limit, dtype)[0],
        "first_seconds": first,
        **memory_used(device),
    }


def first_token(device: str, dtype: str, size: Sizes) -> Line:
    """From the start of a process to the first token, with caches empty and filled."""
    code = (
        "import sys; from benchmarks.device.fast import print_first; print_first(*sys.argv[1:])"
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = f"{folder}/weights.safetensors"
        build(size.spec, None, size.settings, device, dtype, 0).save(weights)
        caches = {"XDG_CACHE_HOME": f"{folder}/cache", "CACHEDB": f"{folder}/cache/tinygrad.db"}
        environment = {**os.environ, **caches}
        environment.pop("ARCHDSL_PROGRAMS", None)
        names = [size.spec, repr(dict(size.settings)), weights, device, dtype]
        for state in ("empty", "filled"):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", code, *names],
                env=environment,
                check=True,
                capture_output=True,
            )
            found[f"caches_{state}_seconds"] = time.perf_counter() - start
    return {"model": size.title, **found}


def print_first(spec: str, settings: str, weights: str, device: str, dtype: str) -> None:
    """Runs in the process that `first_token` measures."""
    model = build(spec, None, ast.literal_eval(settings), device, dtype, 0)
    model.load(weights)
    print(int(model.decoder(1).prefill([list(range(2, 10))]).argmax()))


def memory_used(device: str) -> Line:
    """The bytes of buffers that tinygrad holds, and of all that the device has in use."""
    from tinygrad.helpers import GlobalCounters

    from archdsl.backend.tinygrad_devices import free_memory, total_memory

    found: Line = {"buffer_bytes": GlobalCounters.mem_used}
    free, total = free_memory(device), total_memory(device)
    if free is not None and total is not None:
        found["device_bytes_in_use"] = total - free
    return found


@functools.cache
def model_of(size: Sizes, device: str, dtype: str) -> Model:
    """The model of this process, with drawn weights."""
    return build(size.spec, None, size.settings, device, dtype, 0)


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """The time of the first call, which compiles, and the median of the calls after it."""
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    call()
    times: list[float] = []
    while len(times) < _ROUNDS and sum(times) < _SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return first, median(times)
