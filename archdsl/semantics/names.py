"""Checks that need no values, so that blocks which no model calls are checked too.

Every name must be defined, bound once and used, arguments must fit parameters, and a block
must have one value. Values and types are checked when a model is elaborated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from archdsl.diagnostics import Note, Span, closest, listing
from archdsl.graph.ops import OPS
from archdsl.semantics.binding import Callee
from archdsl.semantics.blocks import names_of
from archdsl.semantics.expression_names import ExpressionNames, bind_once
from archdsl.semantics.library import Scope
from archdsl.semantics.references import References, refer_choice, refer_items
from archdsl.semantics.report import Report
from archdsl.semantics.unused_names import check_unused, names_in_maps
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk

# The statements of a block; the others belong in a model.
IN_BLOCKS = (ast.Edge, ast.Edges, ast.State, ast.Weight, ast.Result)


def check_names(scope: Scope, report: Report) -> References:
    """Reports mistakes in the names of a file, and of the files whose blocks it uses.

    Returns what the names stand for.
    """
    references = References()
    used = {id(d.scope): d.scope for d in scope.blocks.values()}
    for each in {id(scope): scope, **used}.values():
        for item in each.file.items:
            if isinstance(item, ast.Block | ast.Model):
                _Names(each, report, references).definition(item)
    refer_items(scope, references)
    taken: dict[str, Span | None] = {}
    check_unused(scope, report)
    for item in scope.file.items:
        if isinstance(item, ast.Model | ast.Variant):
            message = f"there are two `{item.name.id}` in this file"
            bind_once(item.name, taken, report, message, "the other one is here")
    return references


class _Names(ExpressionNames):
    """The names of one body, bound in the order of the text."""

    def definition(self, item: ast.Block | ast.Model) -> None:
        axes_of: dict[str, set[str]] = {}
        for each in walk(item):
            if isinstance(each, ast.Labeled):
                label = each.label
                self.references.add(label.span, self.labels.setdefault(label.id, label.span))
        for param in item.params.params:
            before = set(self.bound)
            if isinstance(param.type, ast.Type):
                self.parameter_type(param.type)
            axes_of[param.name.id] = self.bound.keys() - before
            if isinstance(param.type, ast.BlockType) and param.default:
                self.block(param.default)
            elif isinstance(param.type, ast.Choices):
                self.choice(item, param.name, param.type, param.default)
            # Without a type, a bare name can be a choice: `act = relu`.
            elif param.default and (param.type or not isinstance(param.default, ast.Name)):
                self.value(param.default)
            elif param.default:
                self.use(param.default)  # type: ignore[arg-type]
            self.bind(param.name)
        self.distinct_choices(item.params)
        statements = item.body.statements
        self.edges = edges = {
            name.id: name
            for each in statements
            if isinstance(each, ast.Edge | ast.Edges | ast.State | ast.Weight)
            for name in names_of(each)
        }
        if isinstance(item, ast.Block):
            self.block_body(item)
        for statement in item.body.statements:
            self.statement(statement)
        # A misspelt use of an edge is reported already.
        self.used |= {edge for name in self.undefined if (edge := closest(name, edges))}
        self.unused(edges.values())
        params = item.params.params
        if isinstance(item, ast.Model):
            params = tuple(
                p for p in params if not isinstance(p.type, ast.Type | ast.BlockType)
            )
            self.used |= names_in_maps(self.scope, item)
            self.used |= {p.name.id for p in params if closest(p.name.id, self.undefined)}
        # A tensor may be there for the name of an axis.
        self.unused(p.name for p in params if self.used.isdisjoint(axes_of[p.name.id]))

    def unused(self, names: Iterable[ast.Name]) -> None:
        """Reports names that nothing uses."""
        for name in names:
            if name.id not in self.used:
                self.report.add(
                    "unused-name",
                    f"`{name.id}` is never used",
                    name.span,
                    help="remove it, or use it",
                )

    def choice(
        self,
        item: ast.Block | ast.Model,
        name: ast.Name,
        node: ast.Choices,
        default: ast.Expr | None,
    ) -> None:
        """A parameter that lists its choices, and their default."""
        if isinstance(item, ast.Block):
            self.report.add(
                "argument-value",
                "only a parameter of a model can list its choices",
                node.span,
                help=f"remove `: one_of({', '.join(each.id for each in node.names)})`",
            )
        self.choices[name.id] = node
        names = [each.id for each in node.names]
        for each in node.names:
            self.references.add(each.span, each.span)
        if isinstance(default, ast.Name):
            refer_choice(default, node, self.references)
        if default and not (isinstance(default, ast.Name) and default.id in names):
            self.report.add(
                "argument-value",
                f"the default of `{name.id}` is not one of its choices",
                default.span,
                expected=listing(names),
            )

    def distinct_choices(self, params: ast.Params) -> None:
        """Reports choices with the name of a parameter, whose value a condition would read."""
        taken = {param.name.id: param.name.span for param in params.params}
        lists = (param.type for param in params.params if isinstance(param.type, ast.Choices))
        for choice in (name for each in lists for name in each.names if name.id in taken):
            self.report.add(
                "duplicate-name",
                f"the choice `{choice.id}` has the name of a parameter",
                choice.span,
                notes=(Note("the parameter is declared here", taken[choice.id]),),
                help="give the choice another name",
            )

    # -- types --

    def parameter_type(self, node: ast.Type) -> None:
        """The type of a block parameter, which binds the names of its axes."""
        for second in [axis for axis in node.axes if axis.is_rest][1:]:
            self.report.add("axis", "a type can have only one `...`", second.span)
        self.unbounded(node)
        for axis in node.axes:
            if isinstance(axis.size, ast.Name):
                self.references.add(
                    axis.size.span, self.bound.setdefault(axis.size.id, axis.size.span)
                )
            else:
                self.value(axis.size)

    def input_type(self, node: ast.Type) -> None:
        """The type of an input, which binds the names of its varying axes."""
        for axis in node.axes:
            name = axis.size.id if isinstance(axis.size, ast.Name) else None
            if name and name not in self.bound and (axis.bound or name not in self.edges):
                self.bound[name] = axis.size.span
                self.references.add(axis.size.span, axis.size.span)
            else:
                self.value(axis.size)
        for bound in _bounds(node):
            self.value(bound)

    def result_type(self, node: ast.Type) -> None:
        self.unbounded(node)
        for axis in node.axes:
            self.value(axis.size)

    def unbounded(self, node: ast.Type) -> None:
        """Reports bounds and padding, which only the type of an input can have."""
        for bound in _bounds(node):
            what = "padding" if bound is node.pad else "a bound"
            self.report.add(
                "type-mismatch",
                f"only the type of an input can have {what}",
                bound.span,
                expected=f"{node.dtype}[…] without {what}",
            )

    # -- statements --

    def block_body(self, block: ast.Block) -> None:
        """A block has edges, states and one value, its last expression."""
        if block.type:
            # It can use the names of the parameters; edges are bound later.
            several = block.type.types if isinstance(block.type, ast.Types) else [block.type]
            for type in several:
                self.result_type(type)
        last = block.body.statements[-1] if block.body.statements else None
        if not isinstance(last, ast.Result):
            self.report.add(
                "syntax",
                f"`{block.name.id}` has no value",
                block.name.span,
                expected="an expression at the end of its body",
            )
        for statement in block.body.statements:
            if not isinstance(statement, IN_BLOCKS):
                self.report.add(
                    "syntax",
                    f"`{_keyword(statement)}` belongs in a model, not in a block",
                    statement.span,
                )
            elif isinstance(statement, ast.Result) and statement is not last:
                self.report.add(
                    "syntax",
                    "only the last expression of a block can be without a name",
                    statement.span,
                    help="give this one a name: `a = …`",
                )

    def statement(self, statement: ast.Statement) -> None:
        match statement:
            case ast.Input():
                self.input_type(statement.type)
                if statement.default:
                    self.value(statement.default)
                self.bind(statement.name)
            case ast.Weight():
                self.result_type(statement.type)
                if statement.start:
                    self.start(statement.start)
                self.bind(statement.name)
            case ast.Edge() | ast.Edges():
                value = statement.value  # `seen = causal` is a mask
                named = isinstance(value, ast.Name) and value.id == "causal"
                (self.mask if named else self.value)(value)
                for name in names_of(statement):
                    self.bind(name)
            case ast.State():
                self.state(statement)
            case ast.Output():
                self.value(statement.value)
                self.result_type(statement.type)
                if statement.condition:
                    self.condition(statement.condition)
                self.bind(statement.name)
            case ast.Result():
                self.value(statement.value)
            case ast.Loss():
                for term in statement.terms:
                    if term.weight is not None:
                        self.value(term.weight)
                    self.loss(term.call)
                if statement.condition:
                    self.condition(statement.condition)
            case ast.ExpectType():
                self.use(statement.name)
                self.result_type(statement.type)
            case ast.Expect():
                # A fact has other names too; they are checked when it is evaluated.
                self.use_all(statement.left)
                self.use_all(statement.right)
            case ast.Init():
                self.use_all(statement)

    def state(self, node: ast.State) -> None:
        """A state, whose update uses its own name."""
        self.result_type(node.type)
        self.value(node.axis)
        if node.start:
            self.value(node.start)
        self.bind(node.name)
        used = node.name.id in self.used
        self.value(node.value)
        if not used:  # it must also be used below
            self.used.discard(node.name.id)

    def start(self, expr: ast.Expr) -> None:
        """How a weight starts: a number, or a name that the elaborator knows."""
        match expr:
            case ast.Name() if expr.id not in self.bound:
                pass
            case ast.Call() if expr.callee.id not in self.bound:
                for arg in expr.args:
                    self.value(arg.value)
            case _:
                self.value(expr)

    def loss(self, call: ast.Call) -> None:
        for arg in call.args:
            if isinstance(arg.value, ast.Typed):
                self.input_type(arg.value.type)
                self.bind(arg.value.name)
        op = OPS.get(call.callee.id)
        if op and op.loss:
            self.arguments(Callee(op.name, op.params, call.span, flows=False), call.args, None)
        else:
            self.arguments_of_unknown(call.args)


def _bounds(node: ast.Type) -> Iterator[ast.Expr]:
    """The bounds and the padding of a type, which only that of an input has."""
    for axis in node.axes:
        yield from (each for each in (axis.least, axis.bound) if each is not None)
    yield from (each for each in (node.below, node.pad) if each is not None)


def _keyword(statement: ast.Statement) -> str:
    return (
        "expect" if isinstance(statement, ast.ExpectType) else type(statement).__name__.lower()
    )
