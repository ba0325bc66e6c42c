"""The table of emitters has the same operators as the table of the graph."""

from __future__ import annotations

from archdsl.backend.emit import EMIT
from archdsl.graph.ops import OPERATORS
from archdsl.passes.decompose import COMPOSITE


def test_every_operator_has_its_function_and_no_other() -> None:
    assert EMIT.keys() | COMPOSITE.keys() == OPERATORS.keys()
    assert not EMIT.keys() & COMPOSITE.keys()
