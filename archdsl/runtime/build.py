"""From a spec to a model that is ready to run: the compiler's stages, one behind the other."""

from __future__ import annotations

from collections.abc import Mapping

from archdsl.runtime.model import Model
from archdsl.semantics.analysis import analyse
from archdsl.semantics.models import Setting
from archdsl.syntax import ast


def build(
    spec: str | ast.File,
    variant: str | None,
    settings: Mapping[str, Setting],
    device: str | None,
    dtype: str,
    seed: int,
    kernels: str = "best",
    quantize: str | None = None,
    tune: float | None = None,
) -> Model:
    """What `archdsl.compile` does, its settings as a mapping of their own."""
    analysis = analyse(spec, variant, settings)
    return Model(analysis.graph, analysis.maps, device, dtype, seed, kernels, quantize, tune)
