"""Kernels are launched one by one if a driver refuses their graph."""

from __future__ import annotations

import numpy as np
import pytest
from tinygrad import Device, Tensor

from archdsl.backend.graph_fallback import or_calls
from archdsl.backend.program import Program
from archdsl.backend.target import open_device
from archdsl.backend.tinygrad_seam import GraphRunner


class Refusing(GraphRunner):
    """A graph that a driver refuses: when it is built, or when it is run."""

    when = "built"

    def __init__(self, *given: object, **named: object):
        super().__init__(*given, **named)  # type: ignore[arg-type]
        if self.when == "built":
            raise RuntimeError("CUDA Error 1, invalid argument")

    def __call__(self, *given: object, **named: object) -> None:
        raise RuntimeError("CUDA Error 1, invalid argument")


@pytest.mark.parametrize("when", ["built", "run"])
def test_the_kernels_run_one_by_one(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = open_device("CPU")
    refusing = type("Refusing", (Refusing,), {"when": when})
    monkeypatch.setattr("archdsl.backend.program.runner_for", lambda device: None)
    monkeypatch.setattr(Device[device], "graph", refusing)
    program = Program(lambda x: ((x + 1).contiguous() * 3).realize(), device)
    refused = pytest.warns(UserWarning, match="graph of 2 kernels.*one by one: CUDA Error 1")
    with refused:
        found = program(Tensor(np.float32([1, 2]), device=device).realize())
    assert found.tolist() == [6, 9]
    assert program(Tensor(np.float32([4, 5]), device=device).realize()).tolist() == [15, 18]


def test_a_device_without_graphs_keeps_none() -> None:
    assert or_calls(None) is None
