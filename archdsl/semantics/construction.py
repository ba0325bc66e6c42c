"""The graph under construction: its nodes, the place being walked, how mistakes are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from archdsl.diagnostics import Note, Span, did_you_mean
from archdsl.graph.nodes import Node
from archdsl.graph.ops import OPS
from archdsl.graph.types import Varying
from archdsl.semantics.places import Places
from archdsl.semantics.report import Report
from archdsl.semantics.values import POISON, Env, Poison


class Construction:
    """What the walk over expressions and the use of operators share."""

    def __init__(self, report: Report, varying: dict[str, Varying]):
        self.report = report
        self.varying = varying
        self.places = Places(report)
        self.nodes: list[Node] = []
        self.calls: list[Span] = []  # the calls of blocks around the place, outermost first
        self.ids = 0

    def fresh(self) -> str:
        self.ids += 1
        return f"%{self.ids}"

    @contextmanager
    def collecting(self) -> Iterator[list[Node]]:
        """Nodes made inside go to a list of their own."""
        outer, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = outer

    def wrong(self, code: str, message: str, span: Span, **more: Any) -> Poison:
        """Reports a mistake here, with the calls that led here where it is inside a block."""
        notes = tuple(more.pop("notes", ()))
        # The block's text may be another file's: the user looks for the call in theirs.
        calls = [c for c in self.calls if c != span]
        notes += tuple(Note("in the block that is called here", call) for call in calls[:1])
        self.report.add(code, message, span, notes=notes, **more)
        return POISON

    def unknown(self, name: str, span: Span, env: Env, more: tuple[str, ...] = ()) -> Poison:
        names = [*more, *env.names, *env.scope.blocks, *OPS]
        help = did_you_mean(name, names)
        if name in OPS or name in env.scope.blocks:
            return self.wrong(
                "not-a-tensor",
                f"`{name}` is a block, and a value is needed here",
                span,
                help=f"bring a tensor in: `x -> {name}`",
            )
        return self.wrong("unknown-name", f"nothing is named `{name}` here", span, help=help)
