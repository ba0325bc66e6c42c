"""Processes that train together: equal to one process, and ended together."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.backend.optimizers import Rule
from archdsl.backend.tensors import fill_zeros
from archdsl.diagnostics import ArchError
from archdsl.execution import parts
from archdsl.execution.parts import BucketSum
from archdsl.execution.train_step import Parts, TrainStep
from archdsl.formats.checkpoint import read_checkpoint
from archdsl.training import loop, metrics, processes
from archdsl.training.processes import Processes, Several
from tests.backend.on_cpu import tensor
from tests.training import fakes

WAIT = 600  # seconds, on a busy machine


class World:
    """What `Several` uses of MPI, for threads of one process."""

    IN_PLACE, Exception = None, RuntimeError

    def __init__(self, count: int):
        self._count, self._given = count, dict[int, Any]()
        self._meeting = threading.Barrier(count)
        self._rank = threading.local()

    @property
    def COMM_WORLD(self) -> World:  # MPI's name
        return self

    def become(self, rank: int) -> Several:
        self._rank.value = rank
        return Several(self)

    def Get_rank(self) -> int:
        return int(self._rank.value)

    def Get_size(self) -> int:
        return self._count

    def _exchanged(self, value: Any) -> dict[int, Any]:
        self._given[self.Get_rank()] = value
        self._meeting.wait(60)
        found = dict(self._given)
        self._meeting.wait(60)
        return found

    def Allreduce(self, where: None, numbers: NDArray[Any]) -> None:
        numbers[...] = sum(self._exchanged(numbers.copy()).values())

    def bcast(self, value: Any, root: int) -> Any:
        return self._exchanged(value)[root]

    def Finalize(self) -> None:
        self._meeting.wait(60)


def together(count: int, function: Callable[[Several], Any]) -> list[Any]:
    """What a function gives in each of several processes, which are threads."""
    world, found = World(count), dict[int, Any]()

    def run(rank: int) -> None:
        found[rank] = function(world.become(rank))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return [found[rank] for rank in range(count)]


def test_each_example_has_one_process() -> None:
    shares = together(3, lambda those: those.share(np.arange(7)))
    assert [each.tolist() for each in shares] == [[0, 1, 2], [3, 4], [5, 6]]
    assert Processes().share(np.arange(3)).tolist() == [0, 1, 2]


def test_the_seeds_differ_and_that_of_one_process_stays() -> None:
    seeds = together(3, lambda those: those.seed(5, 9))
    assert seeds[0] == Processes().seed(5, 9) == (5, 9)
    assert len(set(seeds)) == 3


def test_more_processes_than_examples() -> None:
    def refused(those: Processes) -> str:
        with pytest.raises(ArchError) as error:
            those.check_batch(4)
        return error.value.diagnostics[0].message

    message = "a batch of 4 cannot be divided over 5 processes"
    assert together(5, refused) == [message] * 5


class Tripled:
    """A sum over three processes with the same numbers, which arrives when it is waited for."""

    def __init__(self, numbers: NDArray[np.float32]):
        self.numbers = numbers

    def Test(self) -> None:
        pass

    def Wait(self) -> None:
        self.numbers *= 3


def test_gradients_are_added_up_in_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BUCKET", 10)
    rng, sizes = np.random.default_rng(0), list[int]()
    arrays = [rng.standard_normal((n, 4)).astype("f") for n in (1, 1, 2, 5)]
    gradients = [tensor(each, "float32") for each in arrays]

    def begin(numbers: NDArray[np.float32]) -> Tripled:
        sizes.append(numbers.size)
        return Tripled(numbers)

    found = BucketSum(gradients, begin)
    # Whatever the order, the last bucket is the first one on its way.
    for number, sent in ((1, []), (2, []), (3, [20, 8]), (0, [20, 8, 8])):
        found.ready(number)
        assert sizes == sent
    square = found.finish()
    assert square == pytest.approx(9 * sum(np.square(each).sum() for each in arrays))
    for each, array in zip(gradients, arrays, strict=True):
        assert np.array_equal(each.numpy(), 3 * array)


PLAIN = """use "blocks.arch"
model Plain(D = 8) {
  input x: float[D]
  output z: float[D] = x -> first: linear(D) -> tanh -> linear(D) -> tanh -> linear(D)
  loss squared_error(z, y: float[D])
}
"""
GPT: dict[str, Any] = {"vocab": 8, "context": 8, "D": 8, "heads": 2, "depth": 2}


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "first", "recompute"),
    [
        ("plain", "first.weight", False),
        pytest.param("gpt", "embed.weight", False, marks=pytest.mark.slow),
        pytest.param("gpt", "embed.weight", True, marks=pytest.mark.slow),
    ],
)
def test_buckets_are_sent_beside_the_backward_pass(
    kind: str, first: str, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last weights' gradients are on their way while those of the first are not computed,
    and they are those that are sent when all is computed."""
    monkeypatch.setattr(parts, "BUCKET", 60)
    rng, batch = np.random.default_rng(0), dict[str, NDArray[Any]]()
    if kind == "plain":
        model = archdsl.compile(archdsl.parse(PLAIN), device="CPU")
        batch = {name: rng.standard_normal((3, 8)).astype(np.float32) for name in "xy"}
    else:
        model = archdsl.compile("gpt.arch", device="CPU", **GPT)
        batch = {"tokens": rng.integers(0, 8, (3, 8)).astype(np.int32)}
    sent = list[tuple[NDArray[np.float32], NDArray[np.float32]]]()

    def begin(numbers: NDArray[np.float32]) -> Tripled:
        sent.append((numbers.copy(), step.gradients[first].numpy()))
        return Tripled(numbers)

    how = Parts(lambda numbers: numbers, lambda gradients: BucketSum(gradients, begin))
    step = TrainStep(model.executable, Rule(), parts=how, recompute=recompute, clip=None)
    # A rate of 0: all steps have the same gradients.
    found = [step([batch], 0.0, (0, 0))]  # sends all buckets at the end
    at_end, sent = sent, []
    fill_zeros(step.gradients[first])
    found.append(step([batch], 0.0, (0, 0)))
    assert found[0].norm == found[1].norm > 0
    for (one, _), (other, _) in zip(at_end, sent, strict=True):
        assert np.array_equal(one, other)
    computed = [bool(gradient.any()) for _, gradient in sent]
    assert (computed[0], computed[-1]) == (False, True)


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ArchError, match=r"archdsl\[mpi\]"):
        processes.processes.__wrapped__()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert processes.processes.__wrapped__().count == 1


def test_the_first_process_alone_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = threading.local()
    monkeypatch.setattr(loop, "processes", lambda: here.value)
    monkeypatch.setattr(loop, "finish_at_exit", Several.finish)
    monkeypatch.setattr(Several, "make_equal", lambda self, executable, step: None)

    def run(those: Several) -> loop.Result:
        here.value = those
        executable: Any = fakes.Executable()
        folder = tmp_path / f"run {those.rank}"
        return loop.fit(executable, folder, fakes.DATA, fakes.SETTINGS, spec=fakes.SPEC)

    with fakes.learners(draws=False):
        first, second = together(2, run)
    assert (first.step, second.step) == (12, 12)
    assert [each.name for each in tmp_path.iterdir()] == ["run 0"]
    lines = list(metrics.read(tmp_path / "run 0" / metrics.NAME))
    assert [each["step"] for each in lines if "valid" in each] == [5, 10, 12]


# -- with MPI --

SLOW = [pytest.mark.reference("mpi4py"), pytest.mark.slow]
MPI = ["--allow-run-as-root", "--oversubscribe"]


def environment() -> Mapping[str, str]:
    return os.environ | {"NUM_CPU_THREADS": "1", "ARCHDSL_PROGRAMS": "1"}


def command(folder: Path, steps: int, batch: int = 5) -> list[str]:
    """Trains a small GPT on texts."""
    text = folder.parent / "text.txt"
    if not text.exists():
        words = np.random.default_rng(3).choice(["cat", "sat", "on", "mat", "the"], 3000)
        text.write_text(" ".join(words))
    sizes = {"context": 16, "D": 16, "heads": 2, "depth": 1, "vocab": 10}
    settings = [word for name, size in sizes.items() for word in ("--set", f"{name}={size}")]
    options = (
        f"--length 16 --batch {batch} --learning-rate 1e-2 --warmup 2 --eval-every 5".split()
    )
    return [
        *(sys.executable, "-m", "archdsl", "train", "gpt.arch", *settings, "--data", str(text)),
        *("--tokenizer", "characters", "--steps", str(steps), "--save-every", "3", *options),
        *("--eval-batches", "3", "-o", str(folder)),
    ]


def several(count: int, words: list[str]) -> list[str]:
    mpirun = shutil.which("mpirun") or pytest.skip("mpirun is not installed")
    return [mpirun, *MPI, "-n", str(count), *words]


def done(words: list[str]) -> None:
    found = subprocess.run(
        words, env=environment(), capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def same(one: Path, other: Path) -> None:
    """The losses of all steps, and the last weights."""
    runs = [list(metrics.read(each / metrics.NAME)) for each in (one, other)]
    for first, second in zip(*runs, strict=True):
        for name in first.keys() & {"step", "loss", "valid", "norm"}:
            assert second[name] == pytest.approx(first[name], rel=1e-5), (first, second)
    weights = [
        read_checkpoint(each / "last" / "model.safetensors").tensors for each in (one, other)
    ]
    for path, right in weights[0].items():
        if not path.endswith("k.bias"):  # its gradient is 0, but for rounding
            found = weights[1][path].read()
            assert np.abs(found - right.read()).max() <= 1e-4 * np.abs(right.read()).max(), path


@pytest.mark.reference("mpi4py")
@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_others_continue(tmp_path: Path) -> None:
    """Two processes, one of which is killed; then three; the same as one that was not."""
    done(command(tmp_path / "one", 60))
    run = tmp_path / "several"
    job = subprocess.Popen(
        several(2, command(run, 60)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(job, lambda: bool(list(run.glob("checkpoints/[1-9]*"))))
    os.kill(process_of(run, 1), signal.SIGKILL)
    said, _ = job.communicate(timeout=60)
    assert job.returncode != 0
    assert "rank 1" in said
    assert "signal 9" in said
    done(several(3, [sys.executable, "-m", "archdsl", "train", "--resume", str(run)]))
    same(tmp_path / "one", run)


def process_of(run: Path, rank: int) -> int:
    """The number of the process of a rank that trains in a folder."""
    for each in Path("/proc").glob("[0-9]*"):
        try:
            words = (each / "cmdline").read_bytes().decode().split("\0")
            variables = (each / "environ").read_bytes().decode().split("\0")
        except OSError:  # it has ended
            continue
        if str(run) in words and f"OMPI_COMM_WORLD_RANK={rank}" in variables:
            return int(each.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.reference("mpi4py")
@pytest.mark.slow
def test_a_process_that_fails_ends_the_job(tmp_path: Path) -> None:
    """The second process has no data: it says so, and the first does not wait for it."""
    words = command(tmp_path / "run", 5)
    other = [each.replace("text.txt", "none.txt") for each in words]
    choice = 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then exec $OTHER; else exec $ONE; fi'
    variables = {"ONE": " ".join(words), "OTHER": " ".join(other)}
    found = subprocess.run(
        several(2, ["sh", "-c", choice]),
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert found.returncode != 0
    assert "none.txt" in found.stderr


@pytest.mark.reference("mpi4py")
@pytest.mark.slow
def test_signals_end_the_job_and_lose_nothing(tmp_path: Path) -> None:
    """SIGUSR2 stops after a step; Ctrl-C ends the job at its last checkpoint."""
    done(command(tmp_path / "one", 60))
    run = tmp_path / "several"
    again = [sys.executable, "-m", "archdsl", "train", "--resume", str(run)]
    said = signalled(several(2, command(run, 60)), run, 6, signal.SIGUSR2)
    assert "SIGUSR2 to mpirun stops the run after a step" in said
    found = re.search(r"stopped after step (\d+); `archdsl train --resume \S+` continues", said)
    assert found is not None, said
    assert (run / "last").resolve().name == found[1]
    signalled(several(2, again), run, int(found[1]) + 6, signal.SIGINT)
    done(several(2, again))
    same(tmp_path / "one", run)


def signalled(words: list[str], run: Path, step: int, which: signal.Signals) -> str:
    """What a job prints that gets a signal once it has a checkpoint of this step, or of a
    later one."""
    job = subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(job, lambda: any(int(e.name) >= step for e in run.glob("checkpoints/[1-9]*")))
    job.send_signal(which)
    said, _ = job.communicate(timeout=60)
    assert job.returncode != 0
    return said


def wait_for(job: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + WAIT
    while not condition():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.05)
