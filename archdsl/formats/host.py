"""Tensors as bytes in host memory: what all readers and writers share.

A reader returns each tensor as a `LazyTensor`: dtype and shape are known at once, elements are
read on demand. They are a view of the file, which is mapped privately: nothing is copied before
`.to(device)`, changes to the tensor do not reach the file, and its pages leave memory when the
last array over them is deleted. tinygrad's DISK device is not used: it opens files for writing,
which fails in a read-only folder, and keeps one mapping per path, even if the file is replaced.

Only this module of the folder uses tinygrad. It imports tinygrad late, so that finding a file
is fast.
"""

from __future__ import annotations

import math
import mmap
import struct
import sys
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.files import open_file
from archdsl.frozen import Frozen

if TYPE_CHECKING:
    from tinygrad import Tensor

Bytes: TypeAlias = NDArray[np.uint8]
Value: TypeAlias = "LazyTensor | Tensor | NDArray[Any]"  # accepted by the writers

# tinygrad's name of a dtype -> the numpy dtype that holds its bits.
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

# MAP_NORESERVE: without it Linux refuses to map a file larger than memory. Python 3.11 has no
# name for it (asm-generic/mman-common.h).
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0

# The exceptions that zipfile, json, numpy and our readers raise for a damaged file.
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
    tokenize.TokenError,  # of numpy, for an array's header
)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns the exceptions that a reader raises for a damaged file into an ArchError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        fail("file", f"{path}: cannot read the file", found=reason, cause=error)
    except _DAMAGE as error:
        found = str(error) if isinstance(error, ValueError) else repr(error)
        fail(
            "checkpoint",
            f"{path}: cannot read the file as {kind}",
            found=found,
            help="if the file is damaged or truncated, download it again and compare the sizes",
            cause=error,
        )


class Groups(NamedTuple):
    """A quantized matrix [out, in]: integers, and one scale per group of each row.

    Each part is [out, blocks, n], a row of the matrix in blocks of equal size. `values` are the
    `in` numbers of a row as int8, or two 4-bit numbers in each uint8: in every 16 bytes, the
    lower 4 bits are 16 numbers and the upper 4 bits the next 16. A number is value * scale +
    offset; `scales` and `offsets` are float16 or float32, one per group. A stack of matrices
    has one more axis in front.
    """

    values: NDArray[Any]
    scales: NDArray[Any]
    offsets: NDArray[Any] | None = None


class LazyTensor(Frozen):
    """A tensor with a known dtype and shape, whose elements are read on demand.

    `dtype` is a key of `CARRIER`. Each `read` calls `load`, which returns the elements in
    row-major order and of the carrier's dtype. `groups` returns them quantized, for a matrix
    that is quantized in its file.

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
        """The elements as an array of this shape, with dtype `CARRIER[dtype]`."""
        elements = self.load()
        if elements.dtype != CARRIER[self.dtype]:
            raise TypeError(f"loaded {elements.dtype} for a tensor of {self.dtype}")
        return elements.reshape(self.shape)

    def tensor(self) -> Tensor:
        """A tensor on tinygrad's NPY device; if possible without a copy."""
        return as_tensor(
            np.require(self.read(), requirements=["C", "W"]), self.dtype, self.shape
        )


def lazy_view(data: Bytes, dtype: str, shape: Sequence[int]) -> LazyTensor:
    """A tensor whose elements are these bytes of a file; `read` does not copy them."""
    return LazyTensor(dtype, tuple(shape), lambda: mapped_view(data).view(CARRIER[dtype]))


def mapped_view(data: Bytes) -> Bytes:
    """A view of bytes. If they belong to a mapped file, their pages leave memory when the last
    array over the view is deleted, and are read again for the next view."""
    view = np.frombuffer(
        data.data, np.uint8
    )  # arrays over it keep it alive: its base is not an array
    file = _mapped(data)
    if hasattr(file, "madvise"):
        start = data.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
        # Only whole pages: other bytes of a page may be in use.
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        size = (start + len(data)) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if size > 0:
            leave = weakref.finalize(view, file.madvise, mmap.MADV_DONTNEED, first, size)
            leave.atexit = False
    return view


def _mapped(data: Any) -> Any:
    """The owner of an array's memory: a file mapped by `map_file`, or another object."""
    while isinstance(data, np.ndarray):
        data = data.base
    return data.obj if isinstance(data, memoryview) else data


def map_file(path: Path) -> Bytes:
    """The bytes of a non-empty file, mapped privately (copied only on write)."""
    with open_file(path) as stream:
        # Writable, because some tinygrad devices refuse read-only memory.
        access = mmap.PROT_READ | mmap.PROT_WRITE
        mapped = mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE | _NO_RESERVE, access)
    return np.frombuffer(mapped, np.uint8)


def element_count(shape: Sequence[object]) -> int:
    """The number of elements of a shape that was read from a file.

    Raises ValueError if numpy cannot hold an array of this shape.

    >>> element_count([2, 3]), element_count([]), element_count([4, 0])
    (6, 1, 0)
    """
    sizes = [n for n in shape if type(n) is int and n >= 0]
    if len(sizes) != len(shape) or len(sizes) > 64 or math.prod(n or 1 for n in sizes) >> 60:
        raise ValueError(f"{list(shape)!r:.80} is not a valid shape")
    return math.prod(sizes)


def as_tensor(bits: NDArray[Any], dtype: str, shape: Sequence[int]) -> Tensor:
    """A tensor over an array, without a copy.

    `bits` is contiguous, writable, of dtype `CARRIER[dtype]`, and row-major. The tensor is on
    tinygrad's NPY device, which cannot compute.

    >>> as_tensor(np.array([0x3F80, 0xC000], np.uint16), "bfloat16", [2, 1]).dtype.name
    '__bf16'
    """
    from tinygrad import Tensor, dtypes

    flat = Tensor(bits.reshape(-1), device="NPY")
    wanted = getattr(dtypes, dtype)
    return (flat if flat.dtype == wanted else flat.bitcast(wanted)).reshape(tuple(shape))


def dtype_name(value: Value) -> str:
    """The key of `CARRIER` for a tensor or array; the name of its dtype if there is none."""
    if isinstance(value, LazyTensor):
        return value.dtype
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.name
    from tinygrad import dtypes

    return next((n for n in CARRIER if getattr(dtypes, n) == value.dtype), str(value.dtype))


def bits_of(value: Value) -> NDArray[Any]:
    """The elements of a tensor or array: row-major, native byte order, the carrier's dtype."""
    if isinstance(value, LazyTensor):
        return np.ascontiguousarray(value.read())
    carrier = CARRIER[dtype_name(value)]
    if isinstance(value, np.ndarray | np.generic):
        native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
        return native.view(carrier)
    from tinygrad import dtypes

    array: NDArray[Any] = value.bitcast(getattr(dtypes, carrier.name)).numpy()
    return array
