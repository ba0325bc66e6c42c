"""Checkpoints: tensors by name, in the formats in which people publish them.

`read_checkpoint` opens a folder or a file without reading its tensors, `read_weights` gives
those of a file to tinygrad. `single` recognises a file's format by its content and hands over
to its reader, one module each: safetensors, gguf, npz, ctranslate2, torch_pickle (with
state_pickle). `atomic` replaces files whole, `package` finds files inside installed packages,
`strict_json` reads configs and headers, `host` is the border to tinygrad. What the names mean,
and whether a model has all its weights, is left to the caller.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archdsl.formats.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from archdsl.formats.host import LazyTensor
from archdsl.formats.npz import write_npz
from archdsl.formats.package import resolve
from archdsl.formats.safetensors import write_safetensors
from archdsl.formats.single import read_file

if TYPE_CHECKING:
    from tinygrad import Tensor

__all__ = [
    "Checkpoint",
    "LazyTensor",
    "read_checkpoint",
    "read_weights",
    "resolve",
    "write_checkpoint",
    "write_npz",
    "write_safetensors",
]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in the file's order and dtypes (bfloat16 and float16 too).

    `path` is a file's, or `package:NAME/inner/file` for a file in an installed package. The
    tensors lie on tinygrad's NPY device, which computes nothing: `.to(device)` copies one to
    where it is used, and until then it takes no memory of its own where the format allows.

    Raises ArchError: `file` where there is no such file, `checkpoint` where it is not one of
    weights, or a damaged one. No code in a file is ever run.

    >>> import tempfile, numpy
    >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> write_safetensors(path, {"w": numpy.eye(2, dtype="float32")})
    >>> read_weights(path)["w"].numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    tensors, _ = read_file(resolve(str(path)))
    return {name: stored.tensor() for name, stored in tensors.items()}
