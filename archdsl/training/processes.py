"""Training by several processes, on one machine or several, with MPI.

`mpirun -n 2 archdsl train …` starts equal processes. Each computes its share of every batch.
Losses, their counts, and gradients are added up, so a step is the same as by one process. The
first process leads: it alone writes the folder of the run, and tells the others what follows.
"""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.frozen import Frozen

if TYPE_CHECKING:
    from archdsl.execution.executable import Executable
    from archdsl.execution.losses import Losses
    from archdsl.execution.parts import Request
    from archdsl.execution.train_step import Parts, TrainStep

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # set by mpirun and by Slurm's PMI
_STARTED = ("PMIX_RANK",)  # by Slurm with PMIx, which does not say how many there are
_MESSAGE = 1 << 28  # bytes; MPI counts in 32 bits


class Shares(Frozen):
    """How many processes or devices compute a share of each batch; so many are `here`, on this
    machine."""

    count: int = 1
    here: int = 1


ALONE = Shares()


class Processes:
    """The processes that train together. This class is one process alone, `Several` are more.

    `rank` is the number of this process, and `count` how many there are.
    """

    rank, count = 0, 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def parts(self) -> Parts | None:
        """How a step adds up what the processes compute."""
        return None

    def check_batch(self, size: int) -> None:
        """Raises `ArchError` (`argument-value`) if a batch has too few examples to divide."""
        if size < self.count:
            fail(
                "argument-value",
                f"a batch of {size} cannot be divided over {self.count} processes",
                expected=f"`batch` of at least {self.count}",
            )

    def shares(self) -> Shares:
        """The shares of a batch. All processes must ask."""
        return ALONE

    def share(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The examples of a batch that this process computes."""
        return numbers

    def add(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of numbers over all processes."""
        return numbers

    def total(self, losses: Losses) -> Losses:
        """The losses of all processes."""
        return losses

    def seed(self, *seed: int) -> tuple[int, ...]:
        """The seed of dropout in this process, from that of the step."""
        return seed

    def tell(self, what: str = "", number: int = 0) -> tuple[str, int]:
        """What the first process tells the others, in all processes."""
        return what, number

    def make_equal(self, executable: Executable, step: TrainStep) -> None:
        """Gives all processes the weights and the state of the first one."""

    def finish(self) -> None:
        """Waits for all processes. After it, they can no longer send anything."""


class Several(Processes):
    """Processes connected by MPI."""

    def __init__(self, mpi: Any):
        self._mpi, self._world = mpi, mpi.COMM_WORLD
        self.rank, self.count = self._world.Get_rank(), self._world.Get_size()
        self._finished = False

    @property
    def parts(self) -> Parts:
        from archdsl.execution.parts import BucketSum
        from archdsl.execution.train_step import Parts

        return Parts(self.add, lambda gradients: BucketSum(gradients, self._begin))

    def shares(self) -> Shares:
        with _reporting(self._mpi):
            here = self._world.Split_type(self._mpi.COMM_TYPE_SHARED)
            return Shares(self.count, here.Get_size())

    def share(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array_split(numbers, self.count)[self.rank]

    def add(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.array(numbers, np.float64)
        with _reporting(self._mpi):
            self._world.Allreduce(self._mpi.IN_PLACE, found)
        return found

    def _begin(self, numbers: NDArray[np.float32]) -> Request:
        with _reporting(self._mpi):
            return _Sum(self._mpi, self._world.Iallreduce(self._mpi.IN_PLACE, numbers))

    def total(self, losses: Losses) -> Losses:
        return losses.total(self.add)

    def seed(self, *seed: int) -> tuple[int, ...]:
        # A number that no step has, so no two processes have the same masks.
        return seed if self.leads else (*seed, 2**31 + self.rank)

    def tell(self, what: str = "", number: int = 0) -> tuple[str, int]:
        with _reporting(self._mpi):
            told: tuple[str, int] = self._world.bcast((what, number), root=0)
        return told

    def make_equal(self, executable: Executable, step: TrainStep) -> None:
        from archdsl.execution.parts import make_equal

        make_equal(executable, step, self._send)

    def _send(self, data: NDArray[np.uint8]) -> None:
        with _reporting(self._mpi):
            for start in range(0, len(data), _MESSAGE):
                self._world.Bcast(data[start : start + _MESSAGE], root=0)

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._mpi.Finalize()


class _Sum:
    """A request of MPI, whose errors are reported."""

    def __init__(self, mpi: Any, request: Any):
        self._mpi, self._request = mpi, request

    def Test(self) -> None:
        with _reporting(self._mpi):
            self._request.Test()

    def Wait(self) -> None:
        with _reporting(self._mpi):
            self._request.Wait()


@contextmanager
def _reporting(mpi: Any) -> Iterator[None]:
    try:
        yield
    except mpi.Exception as error:
        fail(
            "device",
            "the processes that train together lost each other",
            found=str(error),
            help="`--resume FOLDER` continues the run, with any number of processes",
            cause=error,
        )


@functools.cache
def processes() -> Processes:
    """The processes that MPI started with this one.

    Raises `ArchError` (`device`) if MPI started several and `mpi4py` is missing.
    """
    sizes = [size for name in _SIZES if (size := os.environ.get(name))]
    if sizes == ["1"] * len(sizes) and (sizes or not any(map(os.environ.get, _STARTED))):
        return Processes()
    try:
        mpi4py = import_module("mpi4py")
        # Without this, Python waits at its end for all processes, also if this one failed.
        mpi4py.rc.finalize = False
        found = Several(import_module("mpi4py.MPI"))
    except (ImportError, RuntimeError) as error:
        fail(
            "device",
            "MPI started several processes, but they cannot find each other",
            found=str(error),
            help="pip install 'archdsl[mpi]'",
            cause=error,
        )
    return found if found.count > 1 else Processes()


def is_killed_on_interrupt() -> bool:
    """Whether `mpirun` of Open MPI started this process: on SIGINT and SIGTERM it kills all of
    them, drops what they print, and leaves no time for a step."""
    return os.environ.get(_SIZES[0], "1") != "1"


def finish_at_exit(those: Processes) -> None:
    """Waits for all processes when this one ends.

    It is called once the training is complete: a process that fails ends at once, and MPI then
    ends the others.
    """
    atexit.register(those.finish)
