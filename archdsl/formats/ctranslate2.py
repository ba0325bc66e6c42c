"""CTranslate2's `model.bin`: tensors and settings by name, in one flat file.

The layout is what `ModelSpec._serialize` of CTranslate2 writes, in `ctranslate2/specs/
model_spec.py`: the format's version, the name and revision of the kind of model, then for each
variable its name, shape, type and bytes, then further names for some of them. A setting, such
as the number of heads, is a variable without axes. Weights that are quantized to integers are
refused; what the names mean is left to the specs.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archdsl.diagnostics import fail, listing
from archdsl.formats.host import (
    CARRIER,
    Bytes,
    LazyTensor,
    count,
    map_file,
    reading,
    window,
)
from archdsl.formats.strict_json import distinct

# A file has no magic number. It begins with the version and a text such as `WhisperSpec`.
START = re.compile(rb"[^\0]\0\0\0[^\0]\0\w+Spec\0")

_KIND = "a model of CTranslate2"
_VERSION = 6

# The numbers of the types, from 0, as tinygrad's names of them.
_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_SCALE = "_scale"


def read_ctranslate2(path: Path) -> dict[str, LazyTensor]:
    """A file's variables by name, in its order, then those of its further names.

    Each is a window onto the file. The parts of a name stand between slashes, as in
    `encoder/layer_0/ffn/linear_0/weight`; a matrix is [out, in].

    Raises ArchError (`checkpoint`) where the file is damaged, of another version, or has
    quantized weights.
    """
    with reading(path, _KIND):
        tensors, aliases = _Variables(map_file(path)).read()
        _refuse_quantized(path, tensors)
        for alias, name in aliases.items():
            if name not in tensors:
                raise ValueError(f"`{alias:.80}` stands for `{name:.80}`, which is not there")
        further = ((alias, tensors[name]) for alias, name in aliases.items())
        return distinct([*tensors.items(), *further])


class _Variables:
    """A place in a file's bytes, which moves on with all that is read."""

    def __init__(self, raw: Bytes) -> None:
        self._raw = raw
        self._at = 0

    def read(self) -> tuple[dict[str, LazyTensor], dict[str, str]]:
        """The variables by name, and by each further name the one that it stands for."""
        (version,) = self._numbers("I")
        if version != _VERSION:
            raise ValueError(f"version {version} of the format; read is {_VERSION}")
        self._text()  # the kind of model; which one it is, the names of the variables tell
        _, variables = self._numbers("II")
        tensors = distinct((self._text(), self._variable()) for _ in range(variables))
        (further,) = self._numbers("I")
        aliases = distinct((self._text(), self._text()) for _ in range(further))
        if self._at != len(self._raw):
            raise ValueError(f"{len(self._raw) - self._at} bytes behind the end")
        return tensors, aliases

    def _variable(self) -> LazyTensor:
        (axes,) = self._numbers("B")
        shape = self._numbers(f"{axes}I")
        type_, size = self._numbers("BI")
        if type_ >= len(_DTYPES):
            raise ValueError(f"a variable of the type {type_}, which the format does not have")
        dtype = _DTYPES[type_]
        if size != count(shape) * CARRIER[dtype].itemsize:
            raise ValueError(f"{size} bytes for a variable of {dtype}{list(shape)}")
        return window(self._take(size), dtype, shape)

    def _text(self) -> str:
        (size,) = self._numbers("H")
        text = self._take(size).tobytes().decode()
        if text.find("\0") != size - 1:
            raise ValueError(f"a name that is not closed by a zero: {text!r:.80}")
        return text[:-1]

    def _numbers(self, letters: str) -> tuple[Any, ...]:
        data = self._take(struct.calcsize(f"<{letters}")).tobytes()
        return struct.unpack(f"<{letters}", data)

    def _take(self, size: int) -> Bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._raw):
            raise ValueError(
                f"{size} bytes from byte {start} on, in a file of {len(self._raw)}"
            )
        return self._raw[start : self._at]


def _refuse_quantized(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    for name in (name.removesuffix(_SCALE) for name in tensors if name.endswith(_SCALE)):
        if name in tensors:
            fail(
                "checkpoint",
                f"{path}: `{name}` is quantized, and cannot be read",
                expected=f"weights of {listing(d for d in _DTYPES if 'float' in d)}",
                found=f"{tensors[name].dtype} with a scale",
                help="convert the model again with `--quantization float16`",
            )
