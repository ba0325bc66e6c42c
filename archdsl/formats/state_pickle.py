"""Reads the pickle inside a PyTorch file without importing or calling anything it names.

A pickle is a program for a small stack machine that can call any Python function. `Machine`
runs such a program with only the instructions that a state dict needs, and knows only the names
in `_STORAGES`, `_DTYPES` and `_BUILDERS`. Any other name or instruction is an error.

The instructions are those of pickletools; torch/serialization.py and torch/_utils.py show how
PyTorch uses them. torch_pickle reads the elements.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from archdsl.diagnostics import fail
from archdsl.frozen import Frozen
from archdsl.limits import check_limit, most_of

_T = TypeVar("_T")

_STORAGES = {
    "torch.BoolStorage": "bool",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.ShortStorage": "int16",
    "torch.IntStorage": "int32",
    "torch.LongStorage": "int64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.storage.UntypedStorage": "uint8",
}
_DTYPES = {
    "torch.uint16": "uint16",
    "torch.uint32": "uint32",
    "torch.uint64": "uint64",
    "torch.float8_e4m3fn": "fp8e4m3",
    "torch.float8_e5m2": "fp8e5m2",
}


class Storage(Frozen):
    """A range of elements in the file, which several tensors may share."""

    key: str
    dtype: str


class View(Frozen):
    """A tensor as a view of a storage. Offset and strides count elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: Sequence[int]
    stride: Sequence[int]


class PythonName(Frozen):
    """A Python name in the file, such as `torch.FloatStorage`."""

    name: str


def expect(kind: type[_T], value: object) -> _T:
    """The value; raises ValueError if it does not have that type."""
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} instead of a {kind.__name__}")
    return value


def _tensor(
    storage: object,
    offset: int,
    shape: Sequence[int],
    stride: Sequence[int],
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
) -> View:
    if metadata:
        raise ValueError("a conjugated or negated tensor")
    source = expect(Storage, storage)
    return View(source, source.dtype, offset, shape, stride)


def _tensor_of_dtype(
    storage: object,
    offset: int,
    shape: Sequence[int],
    stride: Sequence[int],
    requires_grad: object,
    hooks: object,
    dtype: object,
) -> View:
    name = expect(PythonName, dtype).name
    return View(expect(Storage, storage), _DTYPES[name], offset, shape, stride)


def _parameter(data: object, *_: object) -> View:
    return expect(View, data)


def _ordered_dict(pairs: Sequence[Sequence[Any]] = ()) -> dict[str | int, Any]:
    return _fill({}, [item for pair in pairs for item in pair])


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}


def _fill(target: object, items: Sequence[Any]) -> dict[str | int, Any]:
    """Adds alternating keys and values to a dict."""
    entries = expect(dict, target)
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing nested tuples can take forever; the keys of a state dict are not tuples.
        if not isinstance(key, str | int):
            raise ValueError(f"a key of type {type(key).__name__}")
        entries[key] = value
    return entries


class _Bounded:
    """A stream as pickletools reads it, which raises ArchError (`limit`) beyond a size."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._room = most_of("pickle_bytes")
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        # `read` allocates what it is asked for.
        return self._counted(self._stream.read(min(size, self._room + 1)))

    def readline(self) -> bytes:
        return self._counted(self._stream.readline(self._room + 1))

    def _counted(self, data: bytes) -> bytes:
        self._room -= len(data)
        if self._room < 0:
            check_limit("pickle_bytes", most_of("pickle_bytes") - self._room, self._path)
        return data


class Machine:
    """Builds only numbers, text, lists, dicts and `View`s from pickles.

    `storages` are the storages that the pickles use, by key. Raises ArchError for a name or
    instruction that a state dict does not need, and ValueError, LookupError or TypeError for an
    invalid program.

    >>> import io, pickle
    >>> Machine(Path("a")).run(io.BytesIO(pickle.dumps({"step": (1, 0.5)})))
    {'step': (1, 0.5)}
    >>> Machine(Path("a")).run(io.BytesIO(pickle.dumps(print)))
    Traceback (most recent call last):
    archdsl.diagnostics.ArchError: error[checkpoint]: a: the file contains `builtins.print`...
    """

    def __init__(self, path: Path) -> None:
        self.storages: dict[str, Storage] = {}
        self._path = path
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what lies under each mark
        self._memo: dict[int, Any] = {}

    def run(self, stream: IO[bytes]) -> Any:
        """The value of the pickle at the stream's position, which moves to its end."""
        self._stack, self._below, self._memo = [], [], {}
        bounded: Any = _Bounded(stream, self._path)
        for step, (opcode, argument, _) in enumerate(pickletools.genops(bounded)):
            if step & 0xFFF == 0:
                check_limit("pickle_steps", step, self._path)
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, instruction: str, argument: Any) -> None:
        stack = self._stack
        match instruction:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._below.append(stack)
                self._stack = []
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(instruction == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                stack.append(argument)
            case "FLOAT" | "BINFLOAT" | "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(instruction[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "TUPLE":
                items = self._above_mark()
                self._stack.append(tuple(items))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                items = self._above_mark()
                self._stack.append(items)
            case "APPEND":
                item = stack.pop()
                expect(list, stack[-1]).append(item)
            case "APPENDS":
                items = self._above_mark()
                expect(list, self._stack[-1]).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = self._above_mark()
                self._stack.append(_fill({}, items))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _fill(stack[-1], [key, value])
            case "SETITEMS":
                items = self._above_mark()
                _fill(self._stack[-1], items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(self._named(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = expect(str, stack.pop()), expect(str, stack.pop())
                stack.append(self._named(f"{module}.{name}"))
            case "REDUCE":
                arguments, builder = expect(tuple, stack.pop()), expect(PythonName, stack.pop())
                stack.append(_BUILDERS[builder.name](*arguments))
            case "BUILD":
                stack.pop()  # attributes of an OrderedDict: the versions of modules
                expect(dict, stack[-1])
            case "BINPERSID":
                stack.append(self._storage(*expect(tuple, stack.pop())))
            case _:
                wanted = "" if argument is None else f" with {argument!r:.80}"
                self._refuse(f"the instruction `{instruction}`{wanted}")

    def _above_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _named(self, name: str) -> PythonName:
        if name not in _BUILDERS and name not in _STORAGES and name not in _DTYPES:
            self._refuse(f"`{name}`")
        return PythonName(name)

    def _storage(
        self,
        kind: object,
        of: object,
        key: object,
        device: object,
        length: object,
        *rest: object,
    ) -> Storage:
        # Before PyTorch 0.2, a storage could be part of another; `rest` gave its position.
        if kind != "storage" or any(item is not None for item in rest):
            raise ValueError("a persistent id that is not a whole storage")
        storage = Storage(expect(str, key), _STORAGES[expect(PythonName, of).name])
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"the storage `{storage.key}` has two dtypes")
        return storage

    def _refuse(self, found: str) -> NoReturn:
        fail(
            "checkpoint",
            f"{self._path}: the file contains {found}, which is not allowed in a state dict",
            expected="only tensors by name: code in a checkpoint is never run",
            help="save the weights alone: torch.save(model.state_dict(), path)",
        )
