"""Reads and writes checkpoints: tensors by name, in the common file formats.

`read_checkpoint` opens a folder or a file without reading its tensors; `read_weights` reads a
file as tinygrad tensors. `single` detects the format of a file by its content. Each format has
a module: safetensors, gguf, npz, ctranslate2, torch_pickle (with state_pickle). `atomic`
replaces a file in one step, `package` finds files inside installed packages, `other_files`
copies the files of a folder that are no weights, `strict_json` reads configs and headers, and
`host` converts to tinygrad. The caller interprets the names, and
checks that no weight is missing.
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

    `path` is a file, or `package:NAME/inner/file` for a file in an installed package. The
    tensors are on tinygrad's NPY device, which cannot compute: `.to(device)` copies a tensor to
    a device. Until then it takes no memory, if the format allows that.

    Raises ArchError: `file` if the file does not exist, `checkpoint` if it is damaged or not a
    file of weights. Code in a file is never run.

    >>> import tempfile, numpy
    >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> write_safetensors(path, {"w": numpy.eye(2, dtype="float32")})
    >>> read_weights(path)["w"].numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    tensors, _ = read_file(resolve(str(path)))
    return {name: stored.tensor() for name, stored in tensors.items()}
