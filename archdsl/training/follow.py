"""The processes behind the first one: they compute what it tells, and write nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from archdsl.execution.train_state import assign
from archdsl.execution.train_step import TrainStep
from archdsl.training.batches import Batches
from archdsl.training.processes import Processes
from archdsl.training.schedules import learning_rate
from archdsl.training.settings import Settings
from archdsl.training.signals import stopping

STEP, EVALUATE, END = "step", "evaluate", "end"


def follow(step: TrainStep, batches: Batches, settings: Settings, processes: Processes) -> int:
    """Computes this process's share of all steps; gives how many steps the run has then.

    A signal is for the first process, which is told to stop too.
    """
    with ThreadPoolExecutor(1) as reader, stopping():
        expected, following = -1, None
        while True:
            what, number = processes.tell()
            if what == END:
                assign(step.weights, step.averages)
                return number
            if what == EVALUATE:
                batches.validation_loss(step)
                continue
            if following is None or number != expected:
                following = reader.submit(batches.of_step, number)
            read = following.result()
            expected = number + 1
            following = reader.submit(batches.of_step, expected)
            step(read, learning_rate(settings, number), processes.seed(settings.seed, number))
            batches.amounts(read)
