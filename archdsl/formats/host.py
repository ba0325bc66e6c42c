"""Tensors as bytes in the host's memory, both ways: what every reader and writer shares.

A reader gives each tensor as a `LazyTensor`: dtype and shape at once, elements when asked for.
These are a window onto the file, which is mapped privately: nothing is copied before
`.to(device)`, nothing done to the tensor reaches the file, and its pages leave memory with
the last array over them. tinygrad's own
DISK device is not used, since it opens files for writing (weights in a read-only folder
could not be read) and keeps one mapping per path (a file that was replaced would be read as
it was before).

This is the only module of the folder that touches tinygrad, and it imports it late, so that
finding a file stays quick. What a format's bytes mean is left to that format's module.
"""

from __future__ import annotations

import math
import mmap
import struct
import sys
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail

if TYPE_CHECKING:
    from tinygrad import Tensor

Bytes: TypeAlias = NDArray[np.uint8]
Value: TypeAlias = "LazyTensor | Tensor | NDArray[Any]"  # what the writers take

# tinygrad's name of a dtype -> the numpy dtype that carries its bits.
CARRIER: dict[str, np.dtype[Any]] = {
    "bool": np.dtype("bool"),
    "int8": np.dtype("int8"),
    "uint8": np.dtype("uint8"),
    "int16": np.dtype("int16"),
    "uint16": np.dtype("uint16"),
    "int32": np.dtype("int32"),
    "uint32": np.dtype("uint32"),
    "int64": np.dtype("int64"),
    "uint64": np.dtype("uint64"),
    "float16": np.dtype("float16"),
    "float32": np.dtype("float32"),
    "float64": np.dtype("float64"),
    "bfloat16": np.dtype("uint16"),
    "fp8e4m3": np.dtype("uint8"),
    "fp8e5m2": np.dtype("uint8"),
}

# Linux would refuse to map a file larger than its memory, as if every page were to be
# written; this flag says otherwise (asm-generic/mman-common.h; Python 3.11 has no name for it).
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0

# All that zipfile, json, numpy and our own readers trip over in a damaged file.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    SyntaxError,
)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a damaged file makes a reader stumble over into an ArchError."""
    try:
        yield
    except OSError as error:
        fail("file", f"{path}: the file cannot be read", found=str(error), cause=error)
    except _DAMAGE as error:
        found = str(error) if isinstance(error, ValueError) else repr(error)
        fail(
            "checkpoint",
            f"{path}: it cannot be read as {kind}",
            found=found,
            help="if it is damaged or cut short, fetch it again and compare the sizes",
            cause=error,
        )


class Groups(NamedTuple):
    """A matrix [out, in] as whole numbers and, for each few of a row, a scale.

    `values` are [out, in] of int8, or [out, in / 2] of uint8 that hold two of 4 bits each: of
    every 16 the lower halves are 16 numbers, and the upper ones the 16 that follow. `scales`,
    with which they are multiplied, and `offsets`, which are added then, are [out, in / group]
    of float32.
    """

    values: NDArray[Any]
    scales: NDArray[np.float32]
    offsets: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is known by dtype and shape, and is not in memory before it is read.

    `dtype` is a key of `CARRIER`. `load` makes the elements, row-major and of the carrier's
    dtype, anew for each `read`; `groups` does for a matrix that is quantized in its file.

    >>> half = LazyTensor("bfloat16", (2, 1), lambda: np.array([0x3F80, 0xC000], np.uint16))
    >>> half
    LazyTensor(dtype='bfloat16', shape=(2, 1))
    >>> half.read().shape, half.tensor().dtype.name
    ((2, 1), '__bf16')
    """

    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], NDArray[Any]] = field(repr=False, compare=False)
    groups: Callable[[], Groups] | None = field(default=None, repr=False, compare=False)

    def read(self) -> NDArray[Any]:
        """The elements, as an array of the shape and of dtype `CARRIER[dtype]`."""
        elements = self.load()
        if elements.dtype != CARRIER[self.dtype]:
            raise TypeError(f"{elements.dtype} was loaded for a tensor of {self.dtype}")
        return elements.reshape(self.shape)

    def tensor(self) -> Tensor:
        """A tensor on tinygrad's NPY device over what `read` gives, not copied if it can be."""
        return as_tensor(
            np.require(self.read(), requirements=["C", "W"]), self.dtype, self.shape
        )


def window(data: Bytes, dtype: str, shape: Sequence[int]) -> LazyTensor:
    """The tensor whose elements are these bytes of a file, which `read` does not copy."""
    return LazyTensor(dtype, tuple(shape), lambda: opened(data).view(CARRIER[dtype]))


def opened(data: Bytes) -> Bytes:
    """A view of bytes. Where they are of a mapped file, their pages leave memory with the last
    array over that view, and come again for the next."""
    view = np.frombuffer(data.data, np.uint8)  # arrays over it keep it: its base is no array
    file = _mapped(data)
    if hasattr(file, "madvise"):
        start = data.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
        # Whole pages: what lies beside the bytes on one may be in use.
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        size = (start + len(data)) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if size > 0:
            leave = weakref.finalize(view, file.madvise, mmap.MADV_DONTNEED, first, size)
            leave.atexit = False
    return view


def _mapped(data: Any) -> Any:
    """What an array's memory is of: a file mapped by `map_file`, or anything else."""
    while isinstance(data, np.ndarray):
        data = data.base
    return data.obj if isinstance(data, memoryview) else data


def map_file(path: Path) -> Bytes:
    """The bytes of a file that is not empty, mapped privately (copied only on write)."""
    with path.open("rb") as stream:
        # Writable, though nobody writes: some of tinygrad's devices refuse read-only memory.
        access = mmap.PROT_READ | mmap.PROT_WRITE
        mapped = mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE | _NO_RESERVE, access)
    return np.frombuffer(mapped, np.uint8)


def count(shape: Sequence[object]) -> int:
    """How many elements a shape has that was read from a file.

    Raises ValueError where it is no shape that numpy could hold.

    >>> count([2, 3]), count([]), count([4, 0])
    (6, 1, 0)
    """
    sizes = [n for n in shape if type(n) is int and n >= 0]
    if len(sizes) != len(shape) or len(sizes) > 64 or math.prod(n or 1 for n in sizes) >> 60:
        raise ValueError(f"{list(shape)!r:.80} is not the shape of a tensor")
    return math.prod(sizes)


def as_tensor(bits: NDArray[Any], dtype: str, shape: Sequence[int]) -> Tensor:
    """A tensor over memory that is not copied.

    `bits` is contiguous and writable, of dtype `CARRIER[dtype]`, with the elements of
    `shape` in row-major order. The tensor lies on tinygrad's NPY device, which computes
    nothing.

    >>> as_tensor(np.array([0x3F80, 0xC000], np.uint16), "bfloat16", [2, 1]).dtype.name
    '__bf16'
    """
    from tinygrad import Tensor, dtypes

    flat = Tensor(bits.reshape(-1), device="NPY")
    wanted = getattr(dtypes, dtype)
    return (flat if flat.dtype == wanted else flat.bitcast(wanted)).reshape(tuple(shape))


def dtype_name(value: Value) -> str:
    """The key of `CARRIER` for a tensor or an array; its own dtype's name if there is none."""
    if isinstance(value, LazyTensor):
        return value.dtype
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.name
    from tinygrad import dtypes

    return next((n for n in CARRIER if getattr(dtypes, n) == value.dtype), str(value.dtype))


def bits_of(value: Value) -> NDArray[Any]:
    """The elements of a tensor or an array, row-major and native, as the carrier's dtype."""
    if isinstance(value, LazyTensor):
        return np.ascontiguousarray(value.read())
    carrier = CARRIER[dtype_name(value)]
    if isinstance(value, np.ndarray | np.generic):
        native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
        return native.view(carrier)
    from tinygrad import dtypes

    array: NDArray[Any] = value.bitcast(getattr(dtypes, carrier.name)).numpy()
    return array
