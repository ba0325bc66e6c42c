"""The training loop: steps, evaluations, samples and checkpoints, in the folder of a run.

All that a step does follows from the settings and its number: its examples, its learning rate
and the masks of dropout. So a run that continues from a checkpoint has the same metrics and the
same weights, bit for bit, as one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from numpy.typing import NDArray

from archdsl.backend.optimizers import Rule
from archdsl.diagnostics import fail
from archdsl.execution import checkpoints as weights_files
from archdsl.execution.adapters import adapter_weights, base_hash
from archdsl.execution.executable import Executable
from archdsl.execution.find_nan import report_not_finite
from archdsl.execution.machine import processor, versions
from archdsl.execution.peak_rate import peak_rate
from archdsl.execution.train_state import assign
from archdsl.execution.train_step import Parts, Step, TrainStep
from archdsl.formats.host import LazyTensor, Value, bits_of, dtype_name
from archdsl.frozen import Frozen
from archdsl.training import checkpoints, curves, metrics, samples
from archdsl.training.batches import Batches
from archdsl.training.checkpoints import Checkpoint, Position
from archdsl.training.data import Data
from archdsl.training.events import Event, Notice, Report
from archdsl.training.finetuning import trained_graph
from archdsl.training.follow import END, EVALUATE, STEP, follow
from archdsl.training.processes import Processes, finish_at_exit, processes
from archdsl.training.run_folder import Identity, RunFolder, open_run
from archdsl.training.schedules import learning_rate
from archdsl.training.settings import Settings
from archdsl.training.signals import Stop, stopping
from archdsl.training.tensorboard import event_writer
from archdsl.training.trained import BEST, LAST, MODEL

Batch = Mapping[str, NDArray[Any]]
RECENT = 20  # steps whose times give the speed
_PACKAGES = ("archdsl", "tinygrad", "numpy")


class Result(Frozen):
    """The end of a run: its last step, and the losses there.

    `valid` is None without validation data, `loss` if the run was already complete. `signal` is
    the number of the signal that stopped the run, None if it is complete.
    """

    folder: Path
    step: int
    loss: float | None
    valid: float | None
    best_step: int | None
    best_valid: float | None
    seconds: float
    signal: int | None


def train_step(
    executable: Executable,
    settings: Settings,
    frozen: frozenset[str],
    parts: Parts | None = None,
) -> TrainStep:
    """The training step that the settings describe; the weights at `frozen` stay."""
    rule = Rule(
        settings.optimizer,
        settings.weight_decay,
        settings.beta1,
        settings.beta2,
        settings.epsilon,
        settings.momentum,
    )
    return TrainStep(
        executable,
        rule,
        frozen=frozen,
        clip=settings.clip,
        ema=settings.ema,
        accumulate=settings.accumulate,
        recompute=settings.recompute,
        graph=trained_graph(executable.graph, settings),
        parts=parts,
    )


def fit(
    executable: Executable,
    folder: str | Path,
    data: Data,
    settings: Settings,
    *,
    spec: str,
    frozen: frozenset[str] = frozenset(),
    source: str | None = None,
    resume: bool = False,
    report: Report | None = None,
    sample: Callable[[], str] | None = None,
    those: Processes | None = None,
) -> Result:
    """Trains a model, and writes the folder of the run.

    - `spec`: the text of the model, as `describe.expand` writes it.
    - `frozen`: the paths of the weights that stay as they are.
    - `source`: the published checkpoint with the weights besides an adapter. The checkpoints of
      the run then have the adapter alone.
    - `resume`: continues the run in `folder` from its last checkpoint.
    - `report`: receives an `Event` after each step.
    - `sample`: generates a text with the weights of the moment.
    - `those`: the processes that train together, by default those that MPI started.

    With `ema`, evaluations, samples and the weights of checkpoints are the averages, and at the
    end the model has them.

    A checkpoint is written before the first step, every `save_every` steps, after an evaluation
    with the least loss so far, and at the end. SIGINT and SIGTERM end the run after the current
    step, with a checkpoint. A step that finds NaN or infinity raises `ArchError` (`overflow`);
    in float16 it is skipped, because the loss scale is adapted. See `run_folder.open_run` for
    the other errors.
    """
    those = those or processes()
    those.check_batch(settings.batch)
    if not those.leads:
        done = join(executable, data, settings, frozen, those)
        finish_at_exit(those)
        return Result(Path(folder), done, None, None, None, None, 0.0, None)
    source = source if source and adapter_weights(executable.graph) else ""
    identity = Identity(
        spec,
        settings,
        data.train.describe(),
        data.fingerprint,
        executable.dtype,
        base_hash(executable) if source else "",
        source,
    )
    machine = {
        "device": executable.device,
        "machine": processor(),
        "versions": versions(_PACKAGES),
    }
    tell = report or (lambda event: None)
    with open_run(Path(folder), identity, machine, resume) as run, stopping() as stop:
        for each in run.remarks:
            tell(Notice(each))
        if run.start is None:
            data.save_readers(run.path)
        if run.start:
            executable.fill(_weights(executable, run.start, source))
        step = train_step(executable, settings, frozen, those.parts)
        if run.start:
            position = run.start.position
            numbers = {
                "scale": position.scale,
                "since_overflow": position.since_overflow,
            }
            step.load_state(run.start.state(), numbers)
        those.make_equal(executable, step)
        begin = run.start.position.step if run.start else 0
        with (
            event_writer(run.path, begin, settings.tensorboard) as mirror,
            closing(metrics.Metrics(run.path / metrics.NAME, mirror)) as log,
            ThreadPoolExecutor(1) as reader,
        ):
            loop = _Loop(run, identity, step, data, those, log, tell, sample, reader)
            result = loop.run(stop)
    finish_at_exit(those)
    return result


def join(
    executable: Executable,
    data: Data,
    settings: Settings,
    frozen: frozenset[str],
    those: Processes,
) -> int:
    """Computes the share of a process that does not lead; gives the steps of the run."""
    step = train_step(executable, settings, frozen, those.parts)
    those.make_equal(executable, step)
    return follow(step, Batches(data, step, settings, those), settings, those)


def _weights(executable: Executable, start: Checkpoint, source: str) -> dict[str, LazyTensor]:
    """The weights that training continues from, by path."""
    path = str(start.folder / MODEL)
    found = start.weights() | start.raw()
    wanted = {each: executable.weights[each] for each in _stored(executable, source)}
    return weights_files.fit(path, found, wanted, {}, map=None)


def _stored(executable: Executable, source: str) -> Collection[str]:
    """The paths of the weights in a checkpoint: those of the adapter, if the others are in a
    published checkpoint."""
    return adapter_weights(executable.graph) if source else executable.weights


class _Loop:
    """A run in progress."""

    def __init__(
        self,
        run: RunFolder,
        identity: Identity,
        step: TrainStep,
        data: Data,
        those: Processes,
        log: metrics.Metrics,
        tell: Report,
        sample: Callable[[], str] | None,
        reader: ThreadPoolExecutor,
    ):
        self.run_folder, self.settings, self.step = run, identity.settings, step
        self.batches, self.processes = Batches(data, step, self.settings, those), those
        self.evaluates, self.log, self.tell = data.valid is not None, log, tell
        self.stored = _stored(step.executable, identity.source)
        # Of several processes we do not know which share a machine.
        self.peak = peak_rate(step.executable) if those.count == 1 else None
        self.sample, self.reader = sample, reader
        self.position = run.start.position if run.start else Position(0)
        self.position = replace(
            self.position, spec=identity.spec_hash, data=identity.fingerprint
        )
        self.times: deque[float] = deque(maxlen=RECENT)
        self.began = time.perf_counter() - self.position.seconds
        self.loss: float | None = None
        self.draws = True
        self.saved = self.position.step if run.start else None

    def run(self, stop: Stop) -> Result:
        """Trains until the last step, or a signal."""
        if self.run_folder.start is None:
            self._save()
        else:
            self._tidy()  # a process may have been killed before it did
        following = self._read(self.position.step)
        while self.position.step < self.settings.steps and stop.signal is None:
            batches = following.result()
            if self.position.step + 1 < self.settings.steps:
                following = self._read(self.position.step + 1)
            self._one(batches)
        if self.saved != self.position.step:
            self._save()
        self.processes.tell(END, self.position.step)
        done = self.position.step >= self.settings.steps
        assign(self.step.weights, self.step.averages)
        return Result(
            self.run_folder.path,
            self.position.step,
            self.loss,
            self.position.valid,
            self.position.best_step,
            self.position.best_valid,
            self.position.seconds,
            None if done else stop.signal,
        )

    def _read(self, number: int) -> Future[list[Batch]]:
        """The batches of a step, read while the step before it is computed."""
        return self.reader.submit(self.batches.of_step, number)

    def _one(self, batches: list[Batch]) -> None:
        """One step, and what follows it."""
        settings, number = self.settings, self.position.step
        rate = learning_rate(settings, number)
        start = time.perf_counter()
        self.processes.tell(STEP, number)
        found = self.step(batches, rate, seed=self.processes.seed(settings.seed, number))
        took = time.perf_counter() - start
        self.times.append(took)
        now, last = number + 1, number + 1 == settings.steps
        amount, flops = self.batches.amounts(batches)
        self.log.append(
            step=now,
            loss=found.loss,
            terms=found.losses.terms.tolist(),
            norm=found.norm,
            rate=rate,
            **{f"{self.batches.counter.unit}_per_second": amount / took},
            seconds=self._seconds(),
        )
        self._check(found, now, batches)
        self.loss = found.loss
        position = replace(self.position, step=now, valid=None)
        self.position = replace(
            position, scale=self.step.scale, since_overflow=self.step.since_overflow
        )
        evaluates = _due(now, settings.eval_every) or (last and settings.eval_every > 0)
        best = evaluates and self._evaluate()
        if (evaluates or last) and self.draws:
            self.draws = curves.draw(self.run_folder.path, self.tell)
        text = self._sampled() if _due(now, settings.sample_every) else None
        if best or last or _due(now, settings.save_every):
            self._save()
        usual = median(self.times)
        work = flops / usual
        self.tell(
            Event(
                now,
                settings.steps,
                found.loss,
                rate,
                found.norm,
                self.batches.counter.unit,
                amount / usual,
                self._seconds(),
                usual * (settings.steps - now),
                work,
                work / self.peak if self.peak else None,
                self.position.valid,
                self.saved == now,
                text,
            )
        )

    def _seconds(self) -> float:
        return time.perf_counter() - self.began

    def _check(self, found: Step, number: int, batches: list[Batch]) -> None:
        """Raises `ArchError` if a step found NaN or infinity, and cannot be skipped. It names
        what is not finite."""
        if found.moved or (self.step.executable.dtype == "float16" and found.scale > 1):
            return
        help = (
            "lower `learning_rate`, or raise `warmup`; the weights before are in "
            f"{self.run_folder.path / LAST}"
        )
        seed = (self.settings.seed, number - 1)
        report_not_finite(self.step, batches, seed, f" in step {number}", help)
        what = "loss" if not math.isfinite(found.loss) else "gradient"
        fail(
            "overflow",
            f"the {what} of step {number} is not finite",
            found=f"loss {found.loss:g}, length of the gradient {found.norm:g}",
            help=help,
        )

    def _evaluate(self) -> bool:
        """Computes the validation loss; whether it is the least so far."""
        if not self.evaluates:
            return False
        self.processes.tell(EVALUATE)
        losses = self.batches.validation_loss(self.step)
        self.log.append(
            step=self.position.step, valid=losses.value, terms=losses.terms.tolist()
        )
        position = replace(self.position, valid=losses.value)
        before = position.best_valid
        best = math.isfinite(losses.value) and (before is None or losses.value < before)
        if best:
            position = replace(position, best_step=position.step, best_valid=losses.value)
        self.position = position
        return best

    def _sampled(self) -> str | None:
        """A generated text, which is added to the samples."""
        if self.sample is None:
            return None
        with self.step.averaged():
            text = self.sample()
        self.log.append(step=self.position.step, sample=text)
        samples.write(self.run_folder.path)
        return text

    def _save(self) -> None:
        """Writes a checkpoint, and deletes those that are not kept."""
        self.log.flush()
        self.position = replace(self.position, seconds=self._seconds())
        weights = self.step.executable.parameters
        raw = {path: _copied(self.step.weights[path]) for path in self.step.averages}
        with self.step.averaged():
            checkpoints.write(
                self.run_folder.checkpoints,
                self.position,
                {path: weights[path] for path in self.stored},
                self.step.state(),
                raw,
            )
        self.saved = self.position.step
        self._tidy()

    def _tidy(self) -> None:
        """Sets the links to the last checkpoint and the best, and deletes what is not kept."""
        step, best = self.position.step, self.position.best_step
        self.run_folder.link(LAST, step)
        if best is not None:
            self.run_folder.link(BEST, best)
        checkpoints.prune(self.run_folder.checkpoints, step, self.settings.keep, best)


def _copied(tensor: Value) -> LazyTensor:
    """A copy of a weight, in the memory of the host."""
    bits = bits_of(tensor).copy()
    return LazyTensor(dtype_name(tensor), bits.shape, lambda: bits)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
