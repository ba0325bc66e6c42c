"""Serializes a captured program, and runs a serialized program without tracing.

TinyJit captures a CPU program as one `CPUGraphRunner`: a table of kernels and their arguments.
The table is stored with the machine code of the kernels. Each address in it is stored as a
reference: an input, a persistent tensor by its name (a weight, a cache), a constant table with
its content, the thread pool, or the program's own memory. A program that uses anything else is
not stored.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tinygrad import Device, Tensor, UOp, dtypes

from archdsl.backend.kernels import thread_pool
from archdsl.backend.kernels.graph_runner import FIRST, WIDTH, CPUGraphRunner, Pause, run
from archdsl.backend.program_store import Entry
from archdsl.backend.tensors import copy_tensor, shape, to_device
from archdsl.backend.tinygrad_seam import (
    Buffer,
    BufferSpec,
    DType,
    Ops,
    Target,
    TinyELF,
    address,
    get_call_arg_uops,
    graph_cache,
    memory,
)

# Tensors that outlive a program's calls, by name; and tables, by the values they depend on.
Known: TypeAlias = Mapping[str, Tensor]
Constants: TypeAlias = dict[tuple[object, ...], Tensor]

_MAX_CONSTANT = 2**25  # bytes of a table that is stored with a program
_SCALARS = (str, int, float, bool, type(None))

# -- from a capture to an entry --


class _NotStorable(Exception):
    """A program uses memory that cannot be described."""


def entry_of(
    captured: Any,
    inputs: Sequence[Tensor],
    newest: int,
    known: Known,
    constants: Constants,
) -> Entry | None:
    """Serializes a program that was captured for these inputs; None if that is impossible.

    Buffers with numbers above `newest` were created during the capture.
    """
    calls = graph_of(captured)
    if calls is None or not all(map(is_whole, inputs)):
        return None
    try:
        return _Description(calls, inputs, newest, known, constants).entry(captured.ret)
    except _NotStorable:
        return None


def graph_of(captured: Any) -> CPUGraphRunner | None:
    """The graph runner of a capture; None if it has several."""
    if len(captured.linear.src) != 1:
        return None
    body = captured.linear.src[0].src[0]
    found = graph_cache.get(body) if body.op is Ops.CUSTOM_FUNCTION else None
    return found if isinstance(found, CPUGraphRunner) and not found.symbolic_dims else None


def is_whole(tensor: Tensor) -> bool:
    """Whether a tensor is a whole realized buffer in row-major order."""
    uop = tensor.uop
    while uop.op is Ops.RESHAPE:
        uop = uop.src[0]
    return uop.op is Ops.BUFFER and uop.base.realized is not None


class _Description:
    """Collects the parts of an entry."""

    def __init__(
        self,
        calls: CPUGraphRunner,
        inputs: Sequence[Tensor],
        newest: int,
        known: Known,
        constants: Constants,
    ):
        self._calls, self._newest = calls, newest
        self._inputs = [{"shape": shape(x), "dtype": _name_of(x.dtype)} for x in inputs]
        self._named: dict[int, list[tuple[Any, dict[str, Any]]]] = {}
        self._name(memory(thread_pool.tensor()), {"kind": "thread_pool"})
        for name, tensor in known.items():
            self._name(memory(tensor), {"kind": "known", "name": name})
        self._constants: dict[tuple[object, ...], dict[str, Any]] = {}
        for key, tensor in constants.items():
            self._name(memory(tensor), {"kind": "constant", "key": key})
        self._tensors = constants
        self._bases: list[dict[str, Any]] = []
        self._numbers: dict[object, int] = {}
        self._contents: list[bytes] = []
        self._written: dict[int, list[tuple[int, int]]] = {}

    def _name(self, buffer: Any, what: dict[str, Any]) -> None:
        self._named.setdefault(id(buffer.base), []).append((buffer, what))

    def entry(self, returned: Any) -> Entry:
        fixes = [fix for row in range(len(self._calls.calls)) for fix in self._row(row)]
        codes: dict[bytes, int] = {}
        kernels: list[dict[str, str]] = []
        of_row: list[int] = []
        for _, ast, _, _ in self._calls.calls:
            object_ = ast.to_elf()
            number = codes.setdefault(object_.lib, len(codes))
            if number == len(kernels):
                kernels.append({"name": object_.name})
            of_row.append(number)
        table = self._calls.table.copy()
        table[:, 0] = of_row
        for row, place, _, _ in fixes:
            table[row, place] = 0
        header = {
            "inputs": self._inputs,
            "kernels": kernels,
            "bases": self._bases,
            "outputs": self._outputs(returned),
            "single": isinstance(returned, Tensor),
            "variables": self._variables(),
        }
        arrays = [table.tobytes(), np.array(fixes, np.int64).reshape(-1, 4).tobytes()]
        return Entry(header, [*arrays, *codes, *self._contents])

    def _row(self, row: int) -> list[tuple[int, int, int, int]]:
        """The row, column, base, and offset in the base of each address in a row."""
        _, ast, buffers, _ = self._calls.calls[row]
        slots = dict(self._calls.uop_replace[row])
        arguments = get_call_arg_uops(self._calls.linear.src[row])
        fixes = []
        for place, position in enumerate(ast.arg.globals):
            buffer: Any = buffers[position]
            if position in slots:
                base, offset = (
                    self._base("input", {"kind": "input", "slot": slots[position]}),
                    0,
                )
            else:
                base, offset = self._found(buffer, arguments[position])
                self._follow(base, offset, buffer.nbytes, position, ast.arg)
            fixes.append((row, FIRST + place, base, offset))
        return fixes

    def _found(self, buffer: Any, argument: UOp) -> tuple[int, int]:
        """The base of a buffer, and its offset in the base."""
        for named, what in self._named.get(id(buffer.base), ()):
            offset = buffer.offset - named.offset
            if offset >= 0 and offset + buffer.nbytes <= named.nbytes:
                if what["kind"] == "constant":
                    what = self._constant(what["key"])
                return self._base(None, {**what, "bytes": named.nbytes}), offset
        created = [uop for uop in argument.toposort() if uop.op is Ops.BUFFER]
        if len(created) != 1 or created[0].arg.slot <= self._newest:
            raise _NotStorable
        base = buffer.base
        return self._base(id(base), _own(base)), buffer.offset

    def _base(self, mark: object, what: dict[str, Any]) -> int:
        """The index of a base; `mark` distinguishes bases with the same description."""
        key = (mark, repr(what))
        if key not in self._numbers:
            self._numbers[key] = len(self._bases)
            self._bases.append(what)
        return self._numbers[key]

    def _constant(self, key: tuple[object, ...]) -> dict[str, Any]:
        """The description of a constant table, whose content is stored once."""
        tensor = self._tensors[key]
        if not all(isinstance(each, _SCALARS) for each in key):
            raise _NotStorable
        if tensor.nbytes() > _MAX_CONSTANT or not is_whole(tensor):
            raise _NotStorable
        if key not in self._constants:
            content = bytes(memory(tensor).as_memoryview())
            self._constants[key] = {
                "kind": "constant",
                "key": list(key),
                "shape": shape(tensor),
                "dtype": _name_of(tensor.dtype),
                "block": len(self._contents),
            }
            self._contents.append(content)
        return self._constants[key]

    def _follow(self, base: int, offset: int, size: int, position: int, info: Any) -> None:
        """Raises _NotStorable if the program's own memory is read before it is written.

        Its value would be from before the capture.
        """
        if self._bases[base]["kind"] != "own":
            return
        written = self._written.setdefault(base, [])
        if position in info.ins and not _covered(written, offset, offset + size):
            raise _NotStorable
        if position in info.outs:
            self._written[base] = _merged(written, offset, offset + size)

    def _outputs(self, returned: Any) -> list[tuple[str, int, tuple[int, ...]]]:
        """The name, base and shape of each returned tensor."""
        if returned is None:
            return []
        tensors = {"": returned} if isinstance(returned, Tensor) else returned
        if not isinstance(tensors, dict) or not all(isinstance(n, str) for n in tensors):
            raise _NotStorable
        found = []
        for name, tensor in tensors.items():
            buffer = memory(tensor) if is_whole(tensor) else None
            mark = (
                (id(buffer), repr(_own(buffer))) if buffer and buffer.base is buffer else None
            )
            if mark not in self._numbers:
                raise _NotStorable  # a view, or not the program's own memory
            found.append((name, self._numbers[mark], shape(tensor)))
        return found

    def _variables(self) -> dict[str, list[tuple[int, int]]]:
        """The rows and columns of each variable in the table."""
        found: dict[str, list[tuple[int, int]]] = {name: [] for name in self._calls.vars}
        for row, pairs in self._calls.var_vals_replace.items():
            count = len(self._calls.calls[row][1].arg.globals)
            for place, number in pairs:
                found[self._calls.vars[number]].append((row, FIRST + count + place))
        return found


def _own(buffer: Any) -> dict[str, Any]:
    return {"kind": "own", "size": buffer.size, "dtype": _name_of(buffer.dtype)}


def _covered(written: list[tuple[int, int]], start: int, end: int) -> bool:
    return any(a <= start and end <= b for a, b in written)


def _merged(written: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Adds a range of bytes to ranges, and merges those that touch."""
    apart = [(a, b) for a, b in written if b < start or end < a]
    near = [(a, b) for a, b in written if not (b < start or end < a)]
    low = min([start, *(a for a, _ in near)])
    return [*apart, (low, max([end, *(b for _, b in near)]))]


def _name_of(dtype: DType) -> str:
    """tinygrad's name of a dtype, such as float32."""
    return str(dtype).removeprefix("dtypes.")


# -- from an entry to a program --


class StoredProgram:
    """A stored program, linked to the tensors of this process."""

    pauses: Sequence[Pause] = ()

    def __init__(self, entry: Entry, known: Known, constants: Constants):
        header = entry.header
        self._expected = [(tuple(x["shape"]), x["dtype"]) for x in header["inputs"]]
        # Keeps all memory in the table alive.
        self._buffers = [_base(each, entry, known, constants) for each in header["bases"]]
        codes = entry.blocks[2 : 2 + len(header["kernels"])]
        self._kernels = [
            _loaded(each["name"], bytes(code))
            for each, code in zip(header["kernels"], codes, strict=True)
        ]
        self.table = np.frombuffer(entry.blocks[0], np.uint64).reshape(-1, WIDTH).copy()
        self._link(np.frombuffer(entry.blocks[1], np.int64).reshape(-1, 4), header["bases"])
        self._variables = {
            name: tuple(np.array(places, np.int64).reshape(-1, 2).T)
            for name, places in header["variables"].items()
        }
        outputs = {
            name: Tensor(UOp.from_buffer(self._buffers[base])).reshape(tuple(sizes))
            for name, base, sizes in header["outputs"]
        }
        pairs = zip(header["bases"], self._buffers, strict=True)
        self._own = {id(buffer) for each, buffer in pairs if each["kind"] == "own"}
        self._returned: Any = outputs[""] if header["single"] else outputs or None
        self._taken: list[Tensor] = []

    def _link(self, fixes: NDArray[np.int64], bases: list[dict[str, Any]]) -> None:
        """Writes the addresses of this process into the table, except those of inputs."""
        starts = np.array([kernel.addr for kernel in self._kernels], np.uint64)
        self.table[:, 0] = starts[self.table[:, 0]]
        addresses = [0 if each is None else address(each) for each in self._buffers]
        rows, places, numbers, offsets = fixes.T
        begin = np.array(addresses, np.uint64)[numbers]
        self.table[rows, places] = begin + offsets.astype(np.uint64)
        slots = np.array([each.get("slot", -1) for each in bases], np.int64)[numbers]
        self._inputs = [
            (rows[slots == slot], places[slots == slot]) for slot in range(len(self._expected))
        ]

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Runs the program. Each call returns the same tensors, with new values."""
        everything = (*given, *(named[name] for name in sorted(named)))
        tensors = [each for each in everything if isinstance(each, Tensor)]
        known = len(tensors) == len(self._taken)
        if not known or any(
            a.uop is not b.uop for a, b in zip(tensors, self._taken, strict=True)
        ):
            self._take(tensors)
        for each in everything:
            if isinstance(each, UOp):
                variable, value = each.unbind()
                # A step without a cache does not depend on the number of past positions.
                if variable.expr in self._variables:
                    self.table[self._variables[variable.expr]] = value
        run(self.table, self.pauses)
        return self._returned

    def _take(self, tensors: Sequence[Tensor]) -> None:
        """Writes the addresses of the inputs into the table."""
        found = [(shape(each), _name_of(each.dtype)) for each in tensors]
        if found != self._expected or not all(map(is_whole, tensors)):
            raise ValueError(f"expected inputs {self._expected}, found {found}")
        # An earlier result of the program would be overwritten while it is read: copy it.
        self._taken = [copy_tensor(t) if id(memory(t)) in self._own else t for t in tensors]
        for places, tensor in zip(self._inputs, self._taken, strict=True):
            self.table[places] = address(memory(tensor))


def _base(what: Mapping[str, Any], entry: Entry, known: Known, constants: Constants) -> Any:
    """The buffer of a base in this process; None for an input.

    Raises KeyError if a tensor is missing or has another size.
    """
    match what["kind"]:
        case "input":
            return None
        case "thread_pool":
            return memory(thread_pool.tensor())
        case "own":
            dtype, options = getattr(dtypes, what["dtype"]), BufferSpec(nolru=True)
            return Buffer("CPU", what["size"], dtype, None, options).allocate()
        case "constant":
            return memory(_constant(what, entry, constants))
    tensor = known[what["name"]]
    buffer = memory(tensor)
    if not is_whole(tensor) or buffer.nbytes != what["bytes"]:
        raise KeyError(what["name"])
    return buffer


def _constant(what: Mapping[str, Any], entry: Entry, constants: Constants) -> Tensor:
    """A constant table, copied to the device once for all programs of a model."""
    key = tuple(what["key"])
    if key not in constants:
        kernels = len(entry.header["kernels"])
        content = entry.blocks[2 + kernels + what["block"]]
        bits = np.frombuffer(content, _BITS[getattr(dtypes, what["dtype"]).itemsize])
        constants[key] = to_device(bits.reshape(what["shape"]), "CPU", what["dtype"])
    return constants[key]


_BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@functools.lru_cache(1000)  # the programs of a model share most of their kernels
def _loaded(name: str, code: bytes) -> Any:
    """Loads the machine code of a kernel."""
    return Device["CPU"].runtime(TinyELF(code, name, Target("CPU"), ()))
