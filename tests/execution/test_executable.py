"""A model in a process: its outputs, its weights, its threads, its copies and its caches."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Device

import archdsl
from archdsl.backend import tinygrad_memory
from archdsl.backend.tensors import to_device
from archdsl.backend.tinygrad_seam import one_thread
from archdsl.diagnostics import ArchError
from archdsl.execution.executable import with_outputs
from archdsl.graph.nodes import Apply
from archdsl.model import Model

SIZES: dict[str, Any] = {"vocab": 100, "context": 64, "D": 64, "heads": 4, "depth": 2}


def gpt(seed: int = 0, **more: Any) -> Model:
    return archdsl.compile("gpt.arch", device="CPU", seed=seed, **SIZES, **more)


def ids(seed: int = 0, *shape: int) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 100, shape or (1, 16))


# -- outputs --


def test_only_what_is_asked_for_is_computed() -> None:
    text = """
      model Two(vocab = 100, D = 64) {
        input tokens: int[T <= 64] < vocab
        h = tokens -> embed(vocab, D) -> linear(D)
        output hidden: float[T, D] = h
        output logits: float[T, vocab] = h -> linear(vocab)
      }"""
    model, tokens = archdsl.compile(archdsl.parse(text), device="CPU"), ids()
    both = model(tokens=tokens)
    for asked in ("hidden", ["hidden"]):
        (alone,) = model(tokens=tokens, outputs=asked).items()
        assert alone[0] == "hidden"
        assert np.array_equal(alone[1].numpy(), both["hidden"].numpy())
    graph = with_outputs(model.executable.graph, ["hidden"])
    assert [node.op for node in graph.nodes if isinstance(node, Apply)] == ["embed", "linear"]
    assert len(model.executable._captures) == 2  # of all, and of this one
    with pytest.raises(ArchError, match=r"no output hiden[\s\S]*did you mean `hidden`"):
        model(tokens=tokens, outputs=("hiden",))


# -- weights --


@pytest.mark.long
def test_what_is_assigned_to_quantized_weights_runs_and_is_saved(tmp_path: Path) -> None:
    model, tokens = gpt(quantize="int8"), ids()
    decoder = model.decoder(1)
    before = model(tokens=tokens)["logits"].numpy()
    assert np.abs(decoder.feed(tokens) - before).max() < 0.02 * np.abs(before).max()
    quantized = list(model.parameters.quantized)
    assert len(quantized) > 10

    for name in quantized:
        model.parameters[name].numpy()  # to read a weight changes nothing
    assert np.array_equal(model(tokens=tokens)["logits"].numpy(), before)

    for name in quantized:
        weight = model.parameters[name]
        weight.assign(weight * -0.5).realize()
    after = model(tokens=tokens)["logits"].numpy()
    assert np.abs(after - before).max() > 0.1 * np.abs(before).max()
    decoder.reset()
    assert np.abs(decoder.feed(tokens) - after).max() < 0.02 * np.abs(after).max()

    model.save(tmp_path / "w.safetensors")
    other = gpt(seed=7)
    other.load(tmp_path / "w.safetensors")
    right = other(tokens=tokens)["logits"].numpy()
    assert np.abs(after - right).max() < 0.02 * np.abs(right).max()  # of 8 bits


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"]
)
def test_a_model_is_neither_copied_nor_pickled(copied: Any) -> None:
    with pytest.raises(ArchError, match=r"pickled or copied[\s\S]*model.save\(path\)"):
        copied(gpt())


# -- threads --


def test_one_model_in_several_threads() -> None:
    """First calls of several shapes too, whose captures wait for one another."""
    model = gpt()
    inputs = [ids(seed, 1, length) for seed, length in enumerate((16, 16, 16, 9, 30, 64))]
    plain = gpt()
    right = [plain(tokens=each)["logits"].numpy() for each in inputs]

    def repeated(number: int) -> bool:
        answers = (model(tokens=inputs[number])["logits"].numpy() for _ in range(60))
        return all(np.array_equal(answer, right[number]) for answer in answers)

    with ThreadPoolExecutor(len(inputs)) as pool:
        assert all(pool.map(repeated, range(len(inputs))))


def test_a_new_tensor_waits_for_a_capture_in_another_thread() -> None:
    """A capture iterates over the buffers of the process, which must not change meanwhile."""
    made = threading.Event()

    def make() -> None:
        to_device(np.zeros(3, np.float32), "CPU")
        made.set()

    thread = threading.Thread(target=make)
    with one_thread:
        thread.start()
        assert not made.wait(0.1)
    thread.join(10)
    assert made.is_set()


def test_several_models_in_threads() -> None:
    tokens = ids()
    right = [gpt(seed)(tokens=tokens)["logits"].numpy() for seed in range(4)]

    def first_and_later(seed: int) -> bool:
        model = gpt(seed)
        answers = (model(tokens=tokens)["logits"].numpy() for _ in range(30))
        return all(np.array_equal(answer, right[seed]) for answer in answers)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(first_and_later, range(4)))


def test_generations_of_one_model_in_threads() -> None:
    model, prompts = gpt(), [[1, 2, 3], [7, 8], [50, 51, 52, 53]]

    def spoken(prompt: list[int]) -> list[Any]:
        return [piece.tokens for piece in model.generate(prompt, 12, temperature=0)]

    right = [spoken(prompt) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        for _ in range(3):
            assert list(pool.map(spoken, prompts)) == right


FIRST_CALLS = """
import threading, numpy, archdsl
sizes = {"vocab": 100, "context": 64, "D": 64, "heads": 4, "depth": 2, "device": "CPU"}
model, plain = (archdsl.compile("gpt.arch", **sizes) for _ in range(2))
right = [plain(tokens=[[1] * n])["logits"].numpy() for n in range(1, 7)]
said = [piece.tokens for piece in plain.generate([1, 2, 3], 5, temperature=0)]
wrong = []
def call(n):
    if not numpy.array_equal(model(tokens=[[1] * n])["logits"].numpy(), right[n - 1]):
        wrong.append(n)
def speak(n):
    if [piece.tokens for piece in model.generate([1, 2, 3], 5, temperature=0)] != said:
        wrong.append("speak")
threads = [threading.Thread(target=f, args=(n,)) for n in range(1, 7) for f in (call, speak)]
[each.start() for each in threads], [each.join() for each in threads]
assert not wrong, wrong
"""


@pytest.mark.long
def test_first_calls_and_generations_at_once_do_not_wait_for_one_another() -> None:
    subprocess.run([sys.executable, "-c", FIRST_CALLS], check=True, timeout=100)


# -- caches --


@pytest.mark.long
def test_captures_and_decoders_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archdsl.execution.executable.CAPTURES", 3)
    monkeypatch.setattr("archdsl.model.DECODERS", 2)
    model = gpt()
    for rows in range(1, 6):
        model(tokens=ids(0, rows, 8))
        model.decoder(rows)
    assert len(model.executable._captures) == 3
    assert len(model._decoders) == 2
    assert model.decoder(5) is model.decoder(5)


def test_memory_of_deleted_outputs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs of each length have another size."""
    monkeypatch.setattr("archdsl.execution.executable.KEPT_MEMORY", 50_000)
    model, cache = gpt(), Device["CPU"].allocator.cache

    def kept() -> int:
        return sum(size * len(buffers) for (size, _), buffers in cache.items())

    model(tokens=ids(0, 1, 64))
    found = []
    for length in range(33, 65, 3):
        model(tokens=ids(0, 1, length))["logits"].numpy()
        found.append(kept())
    assert max(found) <= 2 * 64 * 100 * 4 + 64 * 100 * 4
    same = model(tokens=ids(0, 1, 64))["logits"].uop.base.buffer.get_buf("CPU").va_addr
    again = model(tokens=ids(0, 1, 64))["logits"].uop.base.buffer.get_buf("CPU").va_addr
    assert same == again  # the next output of the same size takes the same memory


@pytest.mark.long
def test_kernels_of_old_shapes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHDSL_PROGRAMS", "0")
    monkeypatch.setattr("archdsl.backend.tinygrad_memory.MOST_KERNELS", 5)
    model, right = gpt(), {}
    for rows in range(1, 4):
        right[rows] = model(tokens=ids(0, rows, 8))["logits"].numpy()
        assert all(len(each) <= 5 for each in tinygrad_memory.CACHES)
    for rows, expected in right.items():  # captured programs keep their kernels
        gc.collect()
        assert np.array_equal(model(tokens=ids(0, rows, 8))["logits"].numpy(), expected)
    model.loss(tokens=ids(0, 2, 8)).backward()


FORKED = """
import multiprocessing, sys, archdsl
from archdsl.diagnostics import ArchError
sizes = {"vocab": 100, "context": 16, "D": 16, "heads": 2, "depth": 1, "device": "CPU"}
model = archdsl.compile("gpt.arch", **sizes)
model(tokens=[[1, 2]])
def child(queue):
    for compute in (lambda: model(tokens=[[1, 2]]),
                    lambda: model.loss(tokens=[[1, 2]]),
                    lambda: next(iter(model.generate([1], 1))),
                    lambda: archdsl.compile("gpt.arch", **sizes)(tokens=[[1, 2]])):
        try:
            compute()
            queue.put("computed")
        except ArchError as error:
            queue.put(str(error))
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
found = [queue.get(timeout=60) for _ in range(4)]
process.join()
assert found[0] == "computed" and all("spawn" in each for each in found[1:]), found
"""


@pytest.mark.long
def test_a_forked_process_runs_what_is_captured_and_compiles_nothing() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=100)
