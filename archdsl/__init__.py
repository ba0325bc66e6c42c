"""archdsl: attention architectures as short as the figures they come from.

    spec = archdsl.parse(text)                       # the tree of a spec's text
    text = archdsl.format(spec)                      # its canonical text
    diagnostics = archdsl.check("specs/gpt.arch")    # every mistake, none raised
    model = archdsl.compile("specs/gpt.arch", D=768) # ready to run and to load weights
    model = archdsl.from_pretrained("some/folder")   # a published checkpoint
    tokenizer = archdsl.read_tokenizer("some/folder")  # what `model.say` speaks text with

Each name is imported when it is first used; tinygrad by `compile` and `from_pretrained` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from archdsl.analysis import check
    from archdsl.diagnostics import ArchError, Diagnostic
    from archdsl.model import Model
    from archdsl.syntax.ast import File
    from archdsl.syntax.parser import parse
    from archdsl.syntax.printer import format
    from archdsl.text.text_tokenizer import read_tokenizer

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
    "read_tokenizer": "archdsl.text.text_tokenizer",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `archdsl` has no `{name}`")
    return getattr(import_module(_HOMES[name]), name)


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
    """The model of a spec: a path, `path:variant`, or a parsed file.

    `settings` replace the model's parameters by name. `device` is one of tinygrad's, the
    environment's `DEV` or the best of this machine where None; `dtype` is that of the
    weights: float32, float16 or bfloat16; `seed` is what fresh weights are drawn from;
    `kernels` are the "best" that the device has or "tinygrad"'s own alone; `quantize` "int8"
    keeps matrices in 8 bits, with a scale for each 32 numbers, and "stored" those of a file
    whose matrices are quantized as they are there; `tune` searches for quicker kernels of
    tinygrad's where they are compiled, for so many seconds at most in all.
    Raises `ArchError` with every mistake of the spec.

    A program is captured at the first call with inputs of new shapes. A model keeps the last 32
    forward passes and, for each thread, up to 4 decoders with their caches; older ones make
    room. Several threads may call one model: their calls take turns, and those of different
    models run in parallel. A decoder belongs to the thread that asked for it. Training, which
    is not captured, belongs to one thread of the process.

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
) -> Model:
    """The model of a published checkpoint, with its weights.

    `path` is a folder with `config.json` and weights (.safetensors or .bin, sharded or not), a
    .gguf file, or `package:NAME/inner` for either in an installed package. The spec that knows
    the config is found in the standard library, or is `spec`. `dtype` is the checkpoint's own
    where None, float32 where it has several; on the processor the quantized matrices of a file
    are then "stored", see `compile`, and are float32 where it is asked for. Raises `ArchError`
    for a field of the config that no spec knows or can compute, and for weights that are not
    exactly the model's.
    """
    from archdsl.pretrained import from_pretrained

    return from_pretrained(path, spec, device, dtype, seed, kernels, quantize, tune)
