"""The graph under construction: nodes, weight paths, and the calls that led here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from archdsl.diagnostics import Diagnostic, Note, Span
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Node
from archdsl.graph.types import Axis, Varying
from archdsl.semantics.places import Places
from archdsl.semantics.report import Report
from archdsl.semantics.unknown import unknown_value
from archdsl.semantics.values import POISON, Env, Poison, Scalar, Tensor, Value, value_text
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk


class Called(Frozen):
    """A call of a block: the path of its body, the tensors that it is given by the names of its
    parameters, and its results."""

    path: str
    given: tuple[tuple[str, Tensor], ...]
    results: tuple[Tensor, ...]


class GraphBuilder:
    """State that the parts of the elaborator share."""

    def __init__(self, report: Report, varying: dict[str, Varying]):
        self.report = report
        self.varying = varying
        self.places = Places(report)
        self.nodes: list[Node] = []
        self.enclosing: list[list[Node]] = []  # those of the bodies around, outermost first
        self.calls: tuple[Span, ...] = ()  # calls of the enclosing blocks, outermost first
        self.trace: tuple[Span, ...] = ()  # all calls that led here, also of arguments
        self.skipped: set[str] = set()  # names in expressions that were not elaborated
        self.failed_labels: set[str] = set()  # of `embed`s with a mistake
        self.reported: set[tuple[str | None, Span | None]] = set()
        self.values: dict[Span, Value] = {}  # of definitions and of calls, when first
        # elaborated: by the span of the name
        self.called: dict[Span, Called] = {}  # the first call of each block, in the same way
        self.ids = 0
        # In the update of a state: the axis of the positions, and its name there.
        self.scanned: tuple[Axis, str] | None = None

    def new_id(self) -> str:
        self.ids += 1
        return f"%{self.ids}"

    def add(self, node: Node) -> None:
        """Adds a node to the body that is built."""
        self.nodes.append(replace(node, calls=self.trace))

    def note(self, span: Span, value: Value) -> None:
        """Remembers the value of a definition or a call, that of its first elaboration."""
        if not isinstance(value, Poison):
            self.values.setdefault(span, value)

    def name_value(self, value: Value, name: str) -> None:
        """Notes what the spec calls a value of this body."""
        if not isinstance(value, Tensor) or not name:
            return
        for i in reversed(range(len(self.nodes))):
            if (node := self.nodes[i]).id == value.ref:
                self.nodes[i] = replace(node, names=(*node.names, name))
                return

    @contextmanager
    def collect_nodes(self) -> Iterator[list[Node]]:
        """Collects the nodes that are added inside in a separate list."""
        self.enclosing.append(self.nodes)
        self.nodes = []
        try:
            yield self.nodes
        finally:
            self.nodes = self.enclosing.pop()

    @contextmanager
    def in_call(self, span: Span) -> Iterator[None]:
        """The call of a block, an operator or a parameter leads to what is added inside."""
        outer, self.trace = self.trace, (*self.trace, span)
        try:
            yield
        finally:
            self.trace = outer

    @contextmanager
    def in_body_of(self, env: Env) -> Iterator[None]:
        """Reports mistakes inside as mistakes in the body that `env` belongs to."""
        outer, self.calls = self.calls, tuple(span for _, span in env.within)
        try:
            yield
        finally:
            self.calls = outer

    def skip(self, *nodes: ast.Node | None) -> Poison:
        """Notes that nodes are not elaborated, because of a mistake reported elsewhere."""
        for node in nodes:
            for each in walk(node) if node else ():
                if isinstance(each, ast.Name):
                    self.skipped.add(each.id)
        return POISON

    def is_first(self, number: Scalar) -> bool:
        """Whether this is the first report about a value; the others have the same cause."""
        key = number.name, number.origin
        first = key not in self.reported or number.name is None
        self.reported.add(key)
        self.report.mistakes += not first
        return first

    def report_diagnostic(self, diagnostic: Diagnostic) -> Poison:
        """Reports a mistake, with the call of the block that it is in."""
        # The block may be in another file: the user looks for the call in their own.
        notes = [Note("in the block called here", call) for call in self.calls[:1]]
        if diagnostic.span not in self.calls:
            diagnostic = replace(diagnostic, notes=(*diagnostic.notes, *notes))
        self.report.extend([diagnostic])
        return POISON

    def report_error(self, code: str, message: str, span: Span, **more: Any) -> Poison:
        """Reports a mistake, given the fields of its `Diagnostic`."""
        return self.report_diagnostic(Diagnostic(code, message, span, **more))

    def report_unknown(self, name: str, span: Span, env: Env) -> Poison:
        """Reports a name that has no value."""
        return self.report_diagnostic(unknown_value(name, span, env.names, env.scope))

    def report_argument(
        self, callee: str, param: str, span: Span, expected: str, found: Value, **more: Any
    ) -> Poison:
        """Reports an argument that its parameter does not accept."""
        if isinstance(found, Poison):
            return found
        message = f"`{param}` of `{callee}` cannot be {value_text(found)}"
        return self.report_error("argument-value", message, span, expected=expected, **more)
