"""Loads a program from the store instead of tracing it, and saves it after tracing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tinygrad import Tensor

from archdsl.backend import program_store
from archdsl.backend.kernels.graph_runner import is_supported
from archdsl.backend.stored_program import Constants, Known, StoredProgram, entry_of, is_whole
from archdsl.backend.tensors import shape
from archdsl.backend.tinygrad_seam import DEBUG, JIT, PROFILE, TRAINING, memory, settings
from archdsl.backend.toolchain import ensure_compiler
from archdsl.cache import key_of

# tinygrad's settings that do not affect programs.
_IGNORED = frozenset({"DEV", "PARALLEL", "CACHELEVEL", "CAPTURING", "LRU"})


def is_cacheable(device: str) -> bool:
    """Whether programs for an open device can be stored now.

    Not in training: the state of random numbers has no name. Not while tinygrad is debugged or
    profiled: the user wants to see what it does.
    """
    if DEBUG or PROFILE or TRAINING or not JIT or not program_store.enabled():
        return False
    return is_supported(device)


class ProgramCache:
    """The stored form of one program."""

    def __init__(
        self,
        key: tuple[object, ...],
        function: Callable[..., Any],
        known: Callable[[], Known],
        constants: Constants,
    ):
        self._about, self._function = key, function
        self._known, self._constants = known, constants
        self._key = ""
        self._inputs: list[Tensor] = []

    def load(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> StoredProgram | None:
        """The stored program for these inputs; None if it must be traced."""
        known = self._known()
        if not all(map(is_whole, known.values())):
            self._key = ""  # tracing must realize a pending change of a tensor
            return None
        everything = [*enumerate(given), *((name, named[name]) for name in sorted(named))]
        self._inputs = [each for _, each in everything if isinstance(each, Tensor)]
        taken = [(name, _description(each)) for name, each in everything]
        self._key = key_of(
            self._about, taken, _layout(known), _settings(), _environment(self._function)
        )
        entry = program_store.read(self._key)
        if entry is None:
            return None
        try:
            return StoredProgram(entry, known, self._constants)
        except (KeyError, IndexError, ValueError, TypeError):  # it does not match the tensors
            return None

    def save(self, captured: Any, newest: int) -> None:
        """Stores the program that was captured for the inputs of `load`.

        Buffers with numbers above `newest` were created during the capture.
        """
        if not self._key or captured is None:
            return
        args = (captured, self._inputs, newest, self._known(), self._constants)
        if entry := entry_of(*args):
            program_store.write(self._key, entry)


def _description(value: Any) -> object:
    """What a program depends on of an argument: not the value of a variable."""
    if isinstance(value, Tensor):
        return shape(value), str(value.dtype)
    variable, _ = value.unbind()
    return variable.expr, variable.vmin, variable.vmax


def _layout(known: Known) -> list[tuple[str, int, str, str]]:
    """The name, size and dtype of each tensor, and the first tensor with the same memory."""
    first: dict[int, str] = {}
    found = []
    for name, tensor in known.items():
        buffer = memory(tensor)
        found.append((name, buffer.size, str(buffer.dtype), first.setdefault(id(buffer), name)))
    return found


def _settings() -> list[tuple[str, object]]:
    """tinygrad's settings that affect how a program is lowered."""
    return [(name, value) for name, value in settings() if name not in _IGNORED]


def _environment(function: Callable[..., Any]) -> tuple[object, ...]:
    code = getattr(function, "__func__", function).__code__  # a method has its function's
    return program_store.environment(ensure_compiler(), code.co_filename)
