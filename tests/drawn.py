"""Random weights of a spec, without compiling it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.analysis import analyse
from archdsl.graph.sites import parameters


def drawn_weights(spec: str, **settings: Any) -> dict[str, NDArray[np.float32]]:
    """The weights of a model by its own names."""
    rng = np.random.default_rng(0)
    return {
        each.path: rng.normal(size=each.weight.shape).astype(np.float32)
        for each in parameters(analyse(spec, settings=settings).graph)
    }
