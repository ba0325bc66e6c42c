"""The graph under construction: its nodes, the place being walked, how mistakes are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from archdsl.diagnostics import Diagnostic, Note, Span
from archdsl.graph.nodes import Node
from archdsl.graph.types import Varying
from archdsl.semantics.places import Places
from archdsl.semantics.report import Report
from archdsl.semantics.unknown import no_value
from archdsl.semantics.values import POISON, Env, Poison, Value, said


class Construction:
    """What the walk over expressions and the use of operators share."""

    def __init__(self, report: Report, varying: dict[str, Varying]):
        self.report = report
        self.varying = varying
        self.places = Places(report)
        self.nodes: list[Node] = []
        self.calls: tuple[Span, ...] = ()  # of the blocks around the place, outermost first
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

    @contextmanager
    def standing_in(self, env: Env) -> Iterator[None]:
        """What is wrong inside is told as standing in the body of these names."""
        outer, self.calls = self.calls, tuple(span for _, span in env.within)
        try:
            yield
        finally:
            self.calls = outer

    def tell(self, diagnostic: Diagnostic) -> Poison:
        """Reports a mistake here, with the call that led here where it is inside a block."""
        # The block's text may be another file's: the user looks for the call in theirs.
        notes = [Note("in the block that is called here", call) for call in self.calls[:1]]
        if diagnostic.span not in self.calls:
            diagnostic = replace(diagnostic, notes=(*diagnostic.notes, *notes))
        self.report.take([diagnostic])
        return POISON

    def wrong(self, code: str, message: str, span: Span, **more: Any) -> Poison:
        """The same, of a mistake's parts."""
        return self.tell(Diagnostic(code, message, span, **more))

    def unknown(self, name: str, span: Span, env: Env) -> Poison:
        return self.tell(no_value(name, span, env.names, env.scope))

    def misfit(
        self, callee: str, param: str, span: Span, expected: str, found: Value, **more: Any
    ) -> Poison:
        """Reports an argument that its parameter cannot take."""
        message = f"`{param}` of `{callee}` cannot be {said(found)}"
        return self.wrong("argument-value", message, span, expected=expected, **more)
