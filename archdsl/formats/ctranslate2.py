"""Reads CTranslate2's `model.bin`: tensors and settings by name, in one file.

The layout is that of `ModelSpec._serialize` in CTranslate2's `ctranslate2/specs/model_spec.py`:
the format version, the name and revision of the model class, then name, shape, type and bytes
of each variable, then aliases of variables. A setting, such as the number of heads, is a
variable without axes. Weights that are quantized to integers are not supported. The specs
interpret the names.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archdsl.diagnostics import fail, listing
from archdsl.formats.host import (
    CARRIER,
    Bytes,
    LazyTensor,
    element_count,
    lazy_view,
    map_file,
    reading,
)
from archdsl.formats.strict_json import unique_names

# The format has no magic number. A file starts with the version and a text: `WhisperSpec`.
START = re.compile(rb"[^\0]\0\0\0[^\0]\0\w+Spec\0")

_KIND = "a CTranslate2 model"
_VERSION = 6

# tinygrad's names of the types 0 to 5.
_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_SCALE = "_scale"
# The functions 0 to 6 that a setting `activation` numbers (`Activation` in common_spec.py).
_ACTIVATIONS = ("relu", "gelu_tanh", "swish", "gelu", "gelu_sigmoid", "tanh", "sigmoid")
_LAYER = re.compile(r"layer_([0-9]{1,6})")
_LAYERS = "layers"
_DEEP = 30  # no name has more parts


def read_ctranslate2(path: Path) -> tuple[dict[str, LazyTensor], dict[str, object]]:
    """The variables of a file by name, in file order, then its aliases; and its settings.

    Each is a view of the memory-mapped file. The parts of a name are separated by slashes, as
    in `encoder/layer_0/ffn/linear_0/weight`. A matrix is [out, in]. The settings are `spec`,
    the name of the model class, its `revision`, the variables without axes, activations by
    name, and the numbers of layers, as in `{"encoder": {"num_heads": 8, "layers": 6}}`.

    Raises ArchError (`checkpoint`) if the file is damaged, has another version, or has
    quantized weights.
    """
    with reading(path, _KIND):
        kind, revision, tensors, aliases = _Variables(map_file(path)).read()
        _refuse_quantized(path, tensors)
        for alias, name in aliases.items():
            if name not in tensors:
                raise ValueError(f"`{alias:.80}` is an alias of `{name:.80}`, which is missing")
        named = ((alias, tensors[name]) for alias, name in aliases.items())
        settings = {"spec": kind, "revision": revision, **_settings(tensors)}
        return unique_names([*tensors.items(), *named]), settings


class _Variables:
    """A cursor over the bytes of a file."""

    def __init__(self, raw: Bytes) -> None:
        self._raw = raw
        self._at = 0

    def read(self) -> tuple[str, int, dict[str, LazyTensor], dict[str, str]]:
        """The model class and its revision, the variables by name, and the name of the variable
        behind each alias."""
        (version,) = self._numbers("I")
        if version != _VERSION:
            raise ValueError(f"format version {version} is not supported; only {_VERSION} is")
        kind = self._text()
        revision, variables = self._numbers("II")
        tensors = unique_names((self._text(), self._variable()) for _ in range(variables))
        (count,) = self._numbers("I")
        aliases = unique_names((self._text(), self._text()) for _ in range(count))
        if self._at != len(self._raw):
            raise ValueError(f"{len(self._raw) - self._at} extra bytes at the end")
        return kind, revision, tensors, aliases

    def _variable(self) -> LazyTensor:
        (axes,) = self._numbers("B")
        shape = self._numbers(f"{axes}I")
        type_, size = self._numbers("BI")
        if type_ >= len(_DTYPES):
            raise ValueError(f"unknown type {type_} of a variable")
        dtype = _DTYPES[type_]
        if size != element_count(shape) * CARRIER[dtype].itemsize:
            raise ValueError(f"{size} bytes for a variable {dtype}{list(shape)}")
        return lazy_view(self._take(size), dtype, shape)

    def _text(self) -> str:
        (size,) = self._numbers("H")
        text = self._take(size).tobytes().decode()
        if text.find("\0") != size - 1:
            raise ValueError(f"a name that does not end with a zero byte: {text!r:.80}")
        return text[:-1]

    def _numbers(self, letters: str) -> tuple[Any, ...]:
        data = self._take(struct.calcsize(f"<{letters}")).tobytes()
        return struct.unpack(f"<{letters}", data)

    def _take(self, size: int) -> Bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._raw):
            raise ValueError(
                f"{size} bytes at offset {start} exceed the file of {len(self._raw)} bytes"
            )
        return self._raw[start : self._at]


def _settings(tensors: Mapping[str, LazyTensor]) -> dict[str, Any]:
    """The variables without axes, and the number of layers of each stack, as nested dicts."""
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *within, last = name.split("/")
        if not tensor.shape:
            value = tensor.read().item()
            named = last == "activation" and value in range(len(_ACTIVATIONS))
            _place(found, within)[last] = _ACTIVATIONS[value] if named else value
        for depth, part in enumerate(within):
            if layer := _LAYER.fullmatch(part):
                stack = _place(found, within[:depth])
                stack[_LAYERS] = max(stack.get(_LAYERS, 0), int(layer[1]) + 1)
    return found


def _place(found: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    if len(path) > _DEEP:
        raise ValueError(f"a name of {len(path)} parts")
    for part in path:
        found = found.setdefault(part, {})
        if type(found) is not dict:
            raise ValueError(f"`{part:.80}` is a variable, and the beginning of others' names")
    return found


def _refuse_quantized(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    for name in (name.removesuffix(_SCALE) for name in tensors if name.endswith(_SCALE)):
        if name in tensors:
            fail(
                "checkpoint",
                f"{path}: `{name}` is quantized, which is not supported",
                expected=f"weights of dtype {listing(d for d in _DTYPES if 'float' in d)}",
                found=f"{tensors[name].dtype} with a scale",
                help="convert the model again, with `--quantization float16`",
            )
