"""Names checked by reading alone, also in blocks that no model calls.

What a name means is found when a model is elaborated; here each must only mean something,
be bound once, and be used.
"""

from __future__ import annotations

from archdsl.diagnostics import did_you_mean
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind
from archdsl.semantics.binding import signature
from archdsl.semantics.library import Scope
from archdsl.semantics.report import Report
from archdsl.syntax import ast


def resolve(scope: Scope, report: Report) -> None:
    """Reports names of a file's blocks and models that mean nothing or are never used."""
    for item in scope.file.items:
        if isinstance(item, ast.Block | ast.Model):
            _Names(scope, report).definition(item)
    taken: set[str] = set()
    for item in scope.file.items:
        if isinstance(item, ast.Model | ast.Variant):
            if item.name.id in taken:
                report.add(
                    "duplicate-name",
                    f"there are two `{item.name.id}` in this file",
                    item.name.span,
                )
            taken.add(item.name.id)


class _Names:
    """The names of one body, entered in the order of the text."""

    def __init__(self, scope: Scope, report: Report):
        self.scope = scope
        self.report = report
        self.bound: set[str] = {"sqrt"}
        self.used: set[str] = set()

    def definition(self, item: ast.Block | ast.Model) -> None:
        seen: set[str] = set()
        for param in item.params.params:
            if param.name.id in seen:
                self.report.add(
                    "duplicate-name",
                    f"there are two parameters `{param.name.id}`",
                    param.name.span,
                )
            seen.add(param.name.id)
            if isinstance(param.type, ast.Type):
                self.bound |= {
                    a.size.id for a in param.type.axes if isinstance(a.size, ast.Name)
                }
            if param.default is not None and not isinstance(param.default, ast.Name):
                self.visit(param.default)
            self.bound.add(param.name.id)
        for statement in item.body.statements:
            self.statement(statement)
        for statement in item.body.statements:
            if isinstance(statement, ast.Edge) and statement.name.id not in self.used:
                self.report.add(
                    "unused-name",
                    f"`{statement.name.id}` is never used",
                    statement.name.span,
                    help="an edge that leads nowhere is not part of the figure: leave it out",
                )

    def statement(self, statement: ast.Statement) -> None:
        match statement:
            case ast.Input():
                self.type(statement.type)
                self.bound.add(statement.name.id)
            case ast.Edge():
                self.visit(statement.value)
                self.bound.add(statement.name.id)
            case ast.Output():
                self.visit(statement.value)
                self.bound.add(statement.name.id)
            case ast.Result():
                self.visit(statement.value)
            case ast.Loss():
                for arg in statement.call.args:
                    if not isinstance(arg.value, ast.Typed):
                        self.visit(arg.value)
            case ast.ExpectType():
                self.used.add(statement.name.id)
            case ast.Expect() | ast.Init():
                pass  # their names are a fact's own, or numbers: elaboration tells

    def type(self, node: ast.Type) -> None:
        for axis in node.axes:
            if axis.bound is not None and isinstance(axis.size, ast.Name):
                self.bound.add(axis.size.id)

    def visit(self, expr: ast.Expr | ast.Typed) -> None:
        """An expression where a value is wanted."""
        match expr:
            case ast.Name():
                self.name(expr, ())
            case ast.Call():
                self.call(expr)
            case ast.Chain():
                self.visit(expr.steps[0].value)
                for step in expr.steps[1:]:
                    self.block(step.value)
            case ast.Lambda():
                for step in expr.steps:
                    self.block(step.value)
            case ast.Binary():
                self.visit(expr.left)
                self.visit(expr.right)
            case ast.Negate():
                self.visit(expr.operand)
            case ast.Labeled():
                self.visit(expr.value)

    def block(self, expr: ast.Expr | ast.Typed) -> None:
        """An expression where a block is wanted."""
        match expr:
            case ast.Name():
                self.callee(expr)
            case ast.Binary():
                self.block(expr.left)
                self.visit(expr.right)
            case ast.Labeled():
                self.block(expr.value)
            case _:
                self.visit(expr)

    def call(self, call: ast.Call) -> None:
        self.callee(call.callee)
        op, definition = OPS.get(call.callee.id), self.scope.blocks.get(call.callee.id)
        params = op.params if op else signature(definition.block.params) if definition else ()
        options = {c for p in params for c in p.choices}
        options |= {p.name for p in params if p.kind is Kind.BOOL}
        free = {p.name for p in params if p.kind in (Kind.MARK, Kind.AXIS, Kind.LABEL)}
        takes_any = any(p.kind is Kind.ANY for p in params) or not params
        positional = [p for p in params if p.kind is not Kind.TENSOR or p.required]
        for arg in call.args:
            if not isinstance(arg.value, ast.Name):
                blocks = any(p.kind is Kind.BLOCK for p in params)
                (self.block if blocks else self.visit)(arg.value)
                continue
            self.used.add(arg.value.id)
            if arg.value.id in self.bound or arg.value.id in options:
                continue
            # Axes, marks and labels are names of their own kinds; choices of a block's own
            # parameters are known when it is called.
            named = arg.name.id if arg.name else None
            kinds = {p.kind for p in positional if named in (None, p.name)}
            if takes_any or free or Kind.BLOCK in kinds:
                continue
            self.name(arg.value, tuple(options))

    def callee(self, name: ast.Name) -> None:
        self.used.add(name.id)
        if name.id in self.bound or name.id in self.scope.blocks or name.id in OPS:
            return
        blocks = [*self.scope.blocks, *(n for n, op in OPS.items() if not op.loss)]
        help = did_you_mean(name.id, blocks)
        if help is None and not self.scope.blocks:
            help = 'blocks of another file come in sight with `use "blocks.arch"`'
        self.report.add("unknown-name", f"there is no block `{name.id}`", name.span, help=help)

    def name(self, name: ast.Name, options: tuple[str, ...]) -> None:
        self.used.add(name.id)
        if name.id in self.bound or name.id in self.scope.blocks or name.id in OPS:
            return
        self.report.add(
            "unknown-name",
            f"nothing is named `{name.id}` here",
            name.span,
            help=did_you_mean(name.id, [*self.bound, *options]),
        )
