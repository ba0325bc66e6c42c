"""Tuned schedules compute the same, are cached, and are optional."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Device, Tensor
from tinygrad.codegen import to_program
from tinygrad.codegen.opt import Opt, OptOps
from tinygrad.codegen.opt.search import actions
from tinygrad.helpers import Context
from tinygrad.uop.ops import UOp

import archdsl
from archdsl.backend import tuning_worker
from archdsl.backend.program import Program
from archdsl.backend.target import probe, supports
from archdsl.backend.tuning import PROCESS, Schedule, Tuner, scheduled, searchable
from archdsl.diagnostics import ArchError
from archdsl.progress import Task, listening

Array = NDArray[Any]
Function = Callable[..., Tensor]

# The largest difference, in the scale of the largest number.
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}


@pytest.fixture(scope="module", params=["CPU", "CL"])
def device(request: pytest.FixtureRequest) -> str:
    backend = probe(request.param)
    if not backend.runs:
        pytest.skip(f"{backend.name} does not run here: {backend.reason}")
    return backend.name


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of schedules for each test, in memory."""
    stored: dict[str, bytes] = {}

    def get(table: str, key: object) -> Any:
        content = stored.get(repr((table, key)))
        return content and pickle.loads(content)

    def put(table: str, key: object, value: object) -> None:
        stored[repr((table, key))] = pickle.dumps(value)

    monkeypatch.setattr("archdsl.backend.tuning.diskcache_get", get)
    monkeypatch.setattr("archdsl.backend.tuning.diskcache_put", put)


def tensor(device: str, dtype: str, *sizes: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng((seed, *sizes)).standard_normal(sizes, np.float32)
    return Tensor(values, device=device).cast(dtype).realize()


def single(function: Function) -> Function:
    """A function that computes in float32 and returns the dtype of its input."""
    return lambda x: function(x.cast("float")).cast(x.dtype).contiguous()


def product(x: Tensor) -> Tensor:
    """x [M, K] times its own transpose: [M, M]."""
    return single(lambda y: y @ y.transpose())(x)


# What a model is made of, of a tensor [M, K].
FUNCTIONS: dict[str, Function] = {
    "product": product,
    "softmax": single(lambda x: x.softmax()),
    "norm": single(lambda x: x.layernorm()),
    "activation": single(lambda x: x.gelu() + 1),
    "turned": single(lambda x: x.transpose() * 3),
    "column sums": single(lambda x: x.square().sum(0)),
}
SHAPES = ((1, 7), (13, 33))
CASES = [
    (name, rows, columns, seed)
    for seed, (name, (rows, columns)) in enumerate(itertools.product(FUNCTIONS, SHAPES))
]


def close(found: Array, right: Array, dtype: str) -> bool:
    return bool(np.abs(found - right).max() <= TOLERANCE[dtype] * np.abs(right).max())


def numbers(function: Function, x: Tensor, device: str, tuner: Tuner | None = None) -> Array:
    program = Program(lambda given: function(given).realize(), device, tuner)
    found: Array = program(x).float().numpy()
    return found


def kernel(function: Function, x: Tensor) -> UOp:
    """The one kernel of a function."""
    linear, _ = function(x).linear_with_vars()
    (found,) = [call.src[0] for call in linear.src if searchable(call.src[0])]
    return found


def walked(kernel: UOp, device: str, rng: random.Random) -> tuple[Opt, ...]:
    """A random schedule of up to two of tinygrad's actions."""
    found: tuple[Opt, ...] = ()
    near = [a for a in actions if a.op is not OptOps.TC and (a.axis or 0) < 2]
    for action in rng.sample(near, 12):
        try:
            to_program(scheduled(kernel, (*found, action)), Device[device].renderer)
        except Exception:  # none for this kernel
            continue
        found = (*found, action)
        if len(found) == 2:
            break
    return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Schedule]:
    """Replaces the search by random schedules, which are checked in the same way."""
    taken: list[Schedule] = []
    rng = random.Random(5)

    def search(
        tuner: Tuner, kernels: list[UOp], device: str, end: float
    ) -> Iterator[tuple[UOp, Schedule, None]]:
        for each in kernels:
            schedule = walked(each, device, rng)
            renderer = Device[device].renderer
            plain, other = (to_program(scheduled(each, s), renderer) for s in (None, schedule))
            if tuning_worker.same_results(each, plain, other, device):
                taken.append(schedule)
                yield each, schedule, None
            else:
                yield each, None, None

    monkeypatch.setattr(Tuner, "search", search)
    return taken


@pytest.mark.few(3)
@pytest.mark.parametrize(("name", "rows", "columns", "seed"), CASES)
def test_what_may_be_found_computes_the_same(
    device: str, name: str, rows: int, columns: int, seed: int, drawn: list[Schedule]
) -> None:
    dtypes = [dtype for dtype in TOLERANCE if supports(device, dtype)]
    dtype = dtypes[seed % len(dtypes)]
    x = tensor(device, dtype, rows, columns, seed=seed)
    plain = numbers(FUNCTIONS[name], x, device)
    found = numbers(FUNCTIONS[name], x, device, Tuner(1000))
    assert close(found, plain, dtype), drawn
    assert drawn


def gpt(device: str, **options: Any) -> Any:
    sizes = {"vocab": 59, "context": 20, "D": 32, "heads": 4, "depth": 1}
    return archdsl.compile("gpt.arch", device=device, kernels="tinygrad", **sizes, **options)


# On OpenCL the kernels by themselves are above; a model's take a minute.
@pytest.mark.slow
@pytest.mark.parametrize("device", ["CPU", "CL"], indirect=True, scope="module")
def test_a_model_computes_the_same(device: str, drawn: list[Schedule]) -> None:
    """A whole sequence, and steps with a variable size."""
    tokens = np.random.default_rng(0).integers(0, 59, (2, 11))
    plain, tuned = gpt(device), gpt(device, tune=1000)
    right = plain(tokens=tokens)["logits"].numpy()
    assert close(tuned(tokens=tokens)["logits"].numpy(), right, "float32")
    count = len(drawn)
    decoder = tuned.decoder(2)
    steps = [decoder.feed(tokens[:, i : i + 1])[:, 0] for i in range(11)]
    assert close(np.stack(steps, 1), right, "float32")
    assert len(drawn) > count > 0


# -- the search --


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The searches that are reported as progress."""
    found: list[str] = []

    def listener(task: Task) -> nullcontext[None]:
        if task.what.startswith("tuning"):
            found.append(task.what)
        return nullcontext()

    with listening(listener):
        yield found


class Asked(Tuner):
    """Keeps every kernel unchanged, and records the kernels to search."""

    def __init__(self) -> None:
        super().__init__(100)
        self.kernels: list[UOp] = []

    def search(
        self, kernels: Sequence[UOp], device: str, end: float
    ) -> Iterator[tuple[UOp, Schedule, str | None]]:
        self.kernels += kernels
        yield from ((each, None, None) for each in kernels)


def asked(function: Function, x: Tensor, device: str = "CPU") -> int:
    """The number of kernels of a function without a cached result."""
    tuner = Asked()
    numbers(function, x, device, tuner)
    return len(tuner.kernels)


def test_what_is_found_is_kept(device: str, told: list[str]) -> None:
    x = tensor(device, "float32", 5, 24)
    right = numbers(product, x, device)
    assert close(numbers(product, x, device, Tuner(100)), right, "float32")
    assert told == [f"tuning for {device}"]
    # Whoever comes later needs neither the search nor time, of which a warning would tell.
    assert close(numbers(product, x, device, Tuner(1e-9)), right, "float32")
    assert asked(product, x, device) == 0


def test_other_settings_and_kernels_have_findings_of_their_own() -> None:
    x = tensor("CPU", "float32", 31, 64)
    assert (asked(product, x), asked(product, x)) == (1, 0)
    assert (asked(FUNCTIONS["activation"], x), asked(FUNCTIONS["activation"], x)) == (1, 0)
    with Context(NUM_CPU_THREADS=7):  # type: ignore[no-untyped-call]
        assert (asked(product, x), asked(product, x)) == (1, 0)
    with Context(ALLOW_TF32=1):  # type: ignore[no-untyped-call]
        assert (asked(product, x), asked(product, x)) == (1, 0)
    assert asked(product, x) == 0


OVER = r"1 kernel is not tuned: the limit of {} s is reached"
PROCESSES: dict[str, tuple[str, float, str]] = {
    "the time is over": (PROCESS, 0.01, OVER.format("0.01")),
    "it hangs": ("import time; time.sleep(60)", 1.5, OVER.format("1.5")),
    "it crashes": ("import os; os.abort()", 60, "the process that searched it ended"),
    "it fails": (
        "from archdsl.backend import tuning_worker; tuning_worker.search = None\n"
        "tuning_worker.work()",
        60,
        "its search failed: TypeError",
    ),
    "other results": (
        "from archdsl.backend import tuning_worker; tuning_worker.WIDTH = 1\n"
        "tuning_worker.same_results = lambda *given: False; tuning_worker.work()",
        100,
        "the schedule gives different results",
    ),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("happens", PROCESSES)
def test_what_goes_wrong_is_said_and_does_not_matter(happens: str) -> None:
    process, seconds, said = PROCESSES[happens]
    x = tensor("CPU", "float32", 3, 4)
    before = time.monotonic()
    with pytest.warns(UserWarning, match=f"^tuning for CPU: .*{said}"):
        found = numbers(product, x, "CPU", Tuner(seconds, process))
    assert time.monotonic() - before < 50
    assert close(found, numbers(product, x, "CPU"), "float32")
    assert asked(product, x) == 1  # of what failed nothing is kept


@pytest.mark.long
def test_one_kernel_takes_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that hangs a GPU must not take the time of the kernels after it."""
    process = (
        "import time; from archdsl.backend import tuning_worker\n"
        "tuning_worker.search = lambda *given: time.sleep(60)\n"
        "tuning_worker.work()"
    )
    monkeypatch.setattr("archdsl.backend.tuning._SHARE", 0.01)
    tuner, x = Tuner(50, process), tensor("CPU", "float32", 3, 4)
    start = time.monotonic()
    with pytest.warns(UserWarning, match=r"its search took more than 0\.5 s of 50 s"):
        numbers(product, x, "CPU", tuner)
    assert time.monotonic() - start < 50


def test_that_the_time_is_over_is_said_once() -> None:
    tuner, x = Tuner(0.5, "import time; time.sleep(60)"), tensor("CPU", "float32", 3, 4)
    with pytest.warns(UserWarning, match="is reached"):
        numbers(product, x, "CPU", tuner)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers(FUNCTIONS["activation"], x, "CPU", tuner)


class Impossible(Tuner):
    """Returns a schedule that does not compile, as after a change of tinygrad."""

    def search(
        self, kernels: Sequence[UOp], device: str, end: float
    ) -> Iterator[tuple[UOp, Schedule, str | None]]:
        yield from ((each, (Opt(OptOps.UPCAST, 0, 1000),), None) for each in kernels)


def test_a_finding_that_does_not_compile_is_said() -> None:
    x = tensor("CPU", "float32", 3, 4)
    with pytest.warns(UserWarning, match=r"it does not compile \(KernelOptError\)"):
        found = numbers(product, x, "CPU", Impossible(1))
    assert close(found, numbers(product, x, "CPU"), "float32")


class Upcast(Tuner):
    """Finds the same schedule for every kernel."""

    def search(
        self, kernels: Sequence[UOp], device: str, end: float
    ) -> Iterator[tuple[UOp, Schedule, str | None]]:
        yield from ((each, (Opt(OptOps.UPCAST, 0, 4),), None) for each in kernels)


def test_what_is_found_is_reported() -> None:
    x, tuner = tensor("CPU", "float32", 64), Upcast(1)
    found = numbers(lambda x: x * 2 + 1, x, "CPU", tuner)
    assert close(found, 2 * x.numpy() + 1, "float32")
    assert tuner.known == 1
    ((name, schedule),) = tuner.found.items()
    assert name.isidentifier()
    assert schedule == (Opt(OptOps.UPCAST, 0, 4),)


def test_other_results_are_told_from_rounding(device: str) -> None:
    x = tensor(device, "float32", 13, 16)
    renderer = Device[device].renderer

    def program(function: Function) -> UOp:
        return to_program(kernel(function, x), renderer)

    plain = kernel(product, x)
    right = program(product)

    def alike(function: Function) -> bool:
        return tuning_worker.same_results(plain, right, program(function), device)

    assert alike(single(lambda y: (y * 1.000001) @ y.transpose()))
    assert not alike(single(lambda y: (y * 1.001) @ y.transpose()))
    assert not alike(single(lambda y: (y @ y.transpose()).relu()))
    assert not alike(single(lambda y: (y @ y.transpose()) / 0))


# -- its process --

SEARCHING = """
import sys
from tinygrad import Tensor
from archdsl.backend.program import Program
from archdsl.backend.target import open_device
from archdsl.backend.tuning import Tuner

process = '''
import os, pathlib, time
from archdsl.backend import tuning_worker

def searched(kernel, device):
    path = pathlib.Path({path!r})
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    time.sleep(60)

tuning_worker.search = searched
tuning_worker.work()
'''
x = Tensor([1.5, 2.5], device=open_device("CPU")).realize()
Program(lambda x: (x * 2).realize(), "CPU", Tuner(60, process))(x)
"""


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_no_process_is_left_behind(name: str, tmp_path: Path) -> None:
    path = tmp_path / "process"
    running = subprocess.Popen(
        [sys.executable, "-c", SEARCHING.format(path=str(path))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not path.exists():
        assert running.poll() is None
        time.sleep(0.01)
    searching = int(path.read_text())
    assert alive(searching)
    running.send_signal(signal.Signals[name])
    running.communicate(timeout=20)
    end = time.monotonic() + 20
    while alive(searching):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("seconds", [0, -1.5, True, "60", float("nan"), float("inf")])
def test_what_are_no_seconds_is_refused(seconds: Any) -> None:
    with pytest.raises(ArchError, match="tune cannot be"):
        gpt("CPU", tune=seconds)
