"""Where a program looks for itself in the store before it is traced, and is kept after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tinygrad import Tensor

from archdsl.backend import program_store
from archdsl.backend.kernels.graph_runner import is_supported
from archdsl.backend.stored_program import Constants, Known, StoredProgram, entry_of, whole
from archdsl.backend.tensors import shape
from archdsl.backend.tinygrad_seam import DEBUG, JIT, PROFILE, TRAINING, memory, settings
from archdsl.backend.toolchain import ensure_compiler
from archdsl.cache import key_of

# tinygrad's settings that change no program.
_ASIDE = frozenset({"DEV", "PARALLEL", "CACHELEVEL", "CAPTURING", "LRU"})


def is_cacheable(device: str) -> bool:
    """Whether programs for an open device are stored now. Random numbers have a state that has
    no name; and who debugs tinygrad wants to see what it does."""
    if DEBUG or PROFILE or TRAINING or not JIT or not program_store.enabled():
        return False
    return is_supported(device)


class ProgramCache:
    """The place of one program in the store."""

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
        """The program as it was stored for these inputs; None where it has to be traced."""
        known = self._known()
        if not all(map(whole, known.values())):
            self._key = ""  # a change of theirs is still to be made, by the traced program
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
        except (KeyError, IndexError, ValueError, TypeError):  # one that does not fit is none
            return None

    def save(self, captured: Any, newest: int) -> None:
        """Stores what was captured instead, of the inputs that were looked up; buffers with
        numbers above `newest` were made for it."""
        if not self._key or captured is None:
            return
        args = (captured, self._inputs, newest, self._known(), self._constants)
        if entry := entry_of(*args):
            program_store.write(self._key, entry)


def _description(value: Any) -> object:
    """What a program is captured for of an argument: a variable without its value."""
    if isinstance(value, Tensor):
        return shape(value), str(value.dtype)
    variable, _ = value.unbind()
    return variable.expr, variable.vmin, variable.vmax


def _layout(known: Known) -> list[tuple[str, int, str, str]]:
    """The name, size and dtype of each tensor, and the first name of its memory."""
    first: dict[int, str] = {}
    found = []
    for name, tensor in known.items():
        buffer = memory(tensor)
        found.append((name, buffer.size, str(buffer.dtype), first.setdefault(id(buffer), name)))
    return found


def _settings() -> list[tuple[str, object]]:
    """tinygrad's settings, which say how a program is lowered."""
    return [(name, value) for name, value in settings() if name not in _ASIDE]


def _environment(function: Callable[..., Any]) -> tuple[object, ...]:
    code = getattr(function, "__func__", function).__code__  # a method's is its function's
    return program_store.environment(ensure_compiler(), code.co_filename)
