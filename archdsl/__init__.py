"""archdsl: a language for attention architectures, and its compiler to tinygrad.

    spec = archdsl.parse(text)                       # the syntax tree of a spec
    text = archdsl.format(spec)                      # the formatted text
    diagnostics = archdsl.check("specs/gpt.arch")    # all errors, as a list
    model = archdsl.compile("specs/gpt.arch", D=768) # a model with random weights
    model = archdsl.from_pretrained("some/folder")   # a published checkpoint
    tokenizer = archdsl.read_tokenizer("some/folder")  # the tokenizer for `model.stream_text`

Names are imported on first use. Only `compile` and `from_pretrained` import tinygrad.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from archdsl.analysis import check
    from archdsl.diagnostics import ArchError, Diagnostic
    from archdsl.model import Model
    from archdsl.syntax.ast import File
    from archdsl.syntax.parser import parse
    from archdsl.syntax.printer import format
    from archdsl.text.tokenizer import read_tokenizer

__version__ = "0.1.0"
__all__ = [
    "ArchError",
    "Diagnostic",
    "check",
    "compile",
    "format",
    "from_pretrained",
    "parse",
    "read_tokenizer",
]

_HOMES = {
    "ArchError": "archdsl.diagnostics",
    "Diagnostic": "archdsl.diagnostics",
    "check": "archdsl.analysis",
    "format": "archdsl.syntax.printer",
    "parse": "archdsl.syntax.parser",
    "read_tokenizer": "archdsl.text.tokenizer",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `archdsl` has no `{name}`")
    return getattr(import_module(_HOMES[name]), name)


def load_ipython_extension(shell: object) -> None:
    """What `%load_ext archdsl` calls: see `archdsl.notebook`."""
    import_module("archdsl.notebook").load(shell)


def compile(
    spec: str | File,
    variant: str | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    seed: int = 0,
    kernels: str = "best",
    quantize: str | None = None,
    tune: float | None = None,
    **settings: int | float | bool | str,
) -> Model:
    """Compiles a spec, given as a path, `path:variant` or a parsed file, to a model.

    - `settings`: values of the model's parameters.
    - `device`: a tinygrad device. Default: the environment variable `DEV`, or the best device.
    - `dtype`: of the weights: float32, float16 or bfloat16.
    - `seed`: of random weights.
    - `kernels`: "best", or "tinygrad" for tinygrad's kernels only.
    - `quantize`: "int8" stores matrices in 8 bits with a scale per 32 numbers; "stored" keeps
      the quantized matrices of a file as they are.
    - `tune`: searches for faster tinygrad kernels, for at most so many seconds.

    Raises `ArchError` with all errors of the spec.

    The first call with a new batch size or length bucket captures a program. A model caches the
    last 32 forward passes and up to 4 decoders per thread. Several threads may call a model;
    its calls run one at a time, and calls of different models run in parallel. A decoder
    belongs to the thread that requested it. Only one thread of a process may train.

    >>> model = compile("gpt.arch", vocab=100, context=8, D=32, heads=4, depth=2)
    >>> model.cost(T=8).params
    32228
    """
    from archdsl.model import build

    return build(spec, variant, settings, device, dtype, seed, kernels, quantize, tune)


def from_pretrained(
    path: str | Path,
    *,
    spec: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
    kernels: str = "best",
    quantize: str | None = None,
    tune: float | None = None,
    ignore: Sequence[str] = (),
    **settings: int | float | bool | str,
) -> Model:
    """Loads a published checkpoint as a model.

    `path` is a folder with `config.json` and weights (.safetensors or .bin, sharded or not), a
    .gguf file, nanoGPT's `ckpt.pt`, or `package:NAME/inner` for one in an installed package.
    `spec` is the spec; by default it is found in the standard library by the config. The
    default of `dtype` is the checkpoint's dtype, or float32 if it has several; on the CPU,
    quantized matrices of a file then stay quantized (`quantize="stored"`). `ignore` lists
    fields of the config that the spec does not know and the model does not depend on.
    `settings` replace parameters that the config sets, such as `height` of images. For other
    options see `compile`.

    Raises `ArchError` for a config field or value that the spec does not support, and for
    missing, extra or misshapen weights.
    """
    from archdsl.pretrained import from_pretrained

    return from_pretrained(
        path, spec, device, dtype, seed, kernels, quantize, tune, ignore, settings
    )
