"""Checks that need no values, so that blocks which no model calls are checked too.

Every name must be defined, bound once and used, arguments must fit parameters, and a block
must have one value. Values and types are checked when a model is elaborated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

from archdsl.diagnostics import Diagnostic, Note, Span, closest, did_you_mean, listing
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind, Param
from archdsl.graph.types import Type
from archdsl.semantics.binding import Bound, Callee, bind, callee, is_mask
from archdsl.semantics.blocks import names_of
from archdsl.semantics.library import Scope
from archdsl.semantics.numbers import FUNCTIONS
from archdsl.semantics.references import References, refer_choice, refer_items
from archdsl.semantics.report import Report
from archdsl.semantics.reuse import TIED
from archdsl.semantics.unknown import (
    unknown_block,
    unknown_choice,
    unknown_option,
    unknown_value,
)
from archdsl.semantics.unused_names import check_unused, names_in_maps
from archdsl.semantics.values import POISON, Poison, Scalar, Symbol, Tensor, Value
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk

# A value about which only its kind is known.
_SOME_TENSOR = Tensor("", Type("float"))
_SOMETHING = Scalar(0)

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
            _bind(item.name, taken, report, message, "the other one is here")
    return references


def _bind(
    name: ast.Name, bound: dict[str, Span | None], report: Report, message: str, note: str
) -> None:
    """Binds a name; reports a name that is already bound."""
    if name.id not in bound:
        bound[name.id] = name.span
        return
    first = bound[name.id]
    notes = (Note(note, first),) if first else ()
    report.add("duplicate-name", message, name.span, notes=notes)


class _Names:
    """The names of one body, bound in the order of the text."""

    def __init__(self, scope: Scope, report: Report, references: References):
        self.scope = scope
        self.report = report
        self.references = references
        self.bound: dict[str, Span | None] = dict.fromkeys(FUNCTIONS)
        self.used: set[str] = set()
        self.undefined: set[str] = set()
        self.edges: dict[str, ast.Name] = {}
        self.choices: dict[str, ast.Choices] = {}
        self.labels: dict[str, Span] = {}

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

    def listed(self, left: ast.Expr, right: ast.Name) -> Diagnostic | None:
        """The mistake of a name that a choice is compared with, if there is one."""
        choices = self.choices.get(left.id) if isinstance(left, ast.Name) else None
        if choices is None:
            return unknown_choice(right)
        refer_choice(right, choices, self.references)
        names = [each.id for each in choices.names]
        if right.id in names:
            return None
        message = f"`{right.id}` is not a choice of this parameter"
        help = did_you_mean(right.id, names)
        return Diagnostic("unknown-name", message, right.span, listing(names), help=help)

    def bind(self, name: ast.Name) -> None:
        self.references.add(name.span, name.span)
        message = f"`{name.id}` is already defined"
        _bind(name, self.bound, self.report, message, "the other definition is here")

    def use(self, name: ast.Name) -> None:
        """A use of a name, which need not be bound."""
        self.used.add(name.id)
        self.references.add(name.span, self.bound.get(name.id))

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

    # -- expressions --

    def use_all(self, node: ast.Node) -> None:
        """The names in a node that is not checked here."""
        for each in walk(node):
            if isinstance(each, ast.Name):
                self.use(each)

    def value(self, expr: ast.Expr | ast.Typed) -> None:
        """An expression where a value is needed."""
        match expr:
            case ast.Name():
                self.use(expr)
                if expr.id not in self.bound:
                    self.undefined.add(expr.id)
                    unknown = unknown_value(expr.id, expr.span, self.bound, self.scope)
                    if expr.id in self.edges:
                        unknown = replace(unknown, help="move the line that defines it up")
                    self.report.extend([unknown])
            case ast.Call():
                self.call(expr, None)
            case ast.Chain():
                self.value(expr.steps[0].value)
                for before, step in pairwise(expr.steps):
                    self.block(step.value, self.flow(before.value))
            case ast.Several():
                for each in expr.values:
                    self.value(each)
            case ast.Binary(op="&" | "|"):
                self.mask(expr.left)
                self.mask(expr.right)
            case ast.Not():
                self.mask(expr.operand)
            case ast.Compare() | ast.Binary(op="and" | "or"):
                self.condition(expr)
            case ast.Binary():
                self.value(expr.left)
                self.value(expr.right)
            case ast.Negate():
                self.value(expr.operand)
            case ast.Labeled():
                self.value(expr.value)
            case ast.When():
                self.condition(expr.condition)
                self.mask(expr.value)
                if expr.otherwise:
                    self.mask(expr.otherwise)
            case ast.Lambda() | ast.Repeat():
                self.block(expr)

    def mask(self, expr: ast.Expr | ast.Typed) -> None:
        """A part of a mask; a name that is not bound can be an atom."""
        if isinstance(expr, ast.Name) and expr.id in ("causal", "none"):
            self.use(expr)
        else:
            self.value(expr)

    def condition(self, node: ast.Expr) -> None:
        """A condition; its right side can be the name of a choice."""
        match node:
            case ast.Not():
                self.condition(node.operand)
            case ast.Binary(op="and" | "or"):
                self.condition(node.left)
                self.condition(node.right)
            case ast.Compare():
                self.value(node.left.operand if isinstance(node.left, ast.Not) else node.left)
                chosen = isinstance(node.right, ast.Name) and node.right.id not in self.bound
                if not chosen:
                    self.value(node.right)
                elif unknown := self.listed(node.left, node.right):  # type: ignore[arg-type]
                    self.report.extend([unknown])
            case _:
                self.value(node)

    def block(self, expr: ast.Expr | ast.Typed, x: Tensor | Poison = POISON) -> None:
        """An expression where a block is needed, which `x` is passed to."""
        match expr:
            case ast.Name() | ast.Call():
                self.call(expr, x)
            case ast.Lambda() | ast.Chain():
                for step in expr.steps:
                    self.block(step.value, x)
                    x = self.flow(step.value)
            case ast.Binary(op="*"):
                self.block(expr.left, x)
                self.value(expr.right)
            case ast.Repeat():
                self.value(expr.count)
                if expr.number:
                    self.numbered(expr.block, expr.number)
                else:
                    self.block(expr.block)
            case ast.Labeled():
                self.block(expr.value, x)
            case ast.When():
                self.condition(expr.condition)
                self.block(expr.value, x)
                if expr.otherwise:
                    self.block(expr.otherwise, x)
            case _:  # not a block, which elaboration reports
                self.use_all(expr)

    def numbered(self, block: ast.Expr, number: ast.Name) -> None:
        """A repeated block, in which the number of a layer has a name."""
        taken = number.id in self.bound
        self.bind(number)
        used, self.used = self.used, set()
        self.block(block)
        if number.id not in self.used and not taken:
            self.report.add(
                "unused-name",
                f"`{number.id}` is never used",
                number.span,
                help=f"remove `as {number.id}`, or use it in the repeated block",
            )
        self.used |= used
        if not taken:
            del self.bound[number.id]

    def flow(self, expr: ast.Expr | ast.Typed) -> Tensor | Poison:
        """What an expression passes along an arrow: POISON if it may be several tensors."""
        match expr:
            case ast.Several() | ast.Lambda() | ast.Chain():
                return POISON
            case ast.Labeled():
                return self.flow(expr.value)
            case ast.When():
                both = [expr.value] + ([expr.otherwise] if expr.otherwise else [])
                flows = [self.flow(each) for each in both]
                return POISON if POISON in flows or not expr.otherwise else _SOME_TENSOR
            case ast.Name() | ast.Call():
                name = expr.id if isinstance(expr, ast.Name) else expr.callee.id
                definition = self.scope.blocks.get(name)
                one = (
                    isinstance(definition.block.type, ast.Type) if definition else name in OPS
                )  # not in FORMS
                value = isinstance(expr, ast.Name) and name in self.bound
                return _SOME_TENSOR if one and not value else POISON
            case _:
                return _SOME_TENSOR

    def call(self, expr: ast.Name | ast.Call, receiver: Tensor | Poison | None) -> None:
        name, args = (expr, ()) if isinstance(expr, ast.Name) else (expr.callee, expr.args)
        self.use(name)
        if name.id in self.bound:
            for arg in args:
                self.value(arg.value)
            return
        if self.scope.is_unclear(name.id):
            self.arguments_of_unknown(args)
            return
        if receiver is None and is_mask(name.id, self.bound, self.scope):
            for arg in args:
                self.mask(arg.value)  # `within(none)` has no limit
            return
        called = callee(name.id, self.scope, expr.span)
        if called is None and name.id == TIED:
            for arg in args[:1]:
                self.label(arg.value)
            self.arguments_of_unknown(args[1:])
        elif called is None:
            self.report.extend([unknown_block(name.id, name.span, self.scope)])
            self.arguments_of_unknown(args)
        else:
            self.references.add(name.span, called.defined)
            self.arguments(called, args, receiver)

    def label(self, expr: ast.Expr | ast.Typed | None) -> None:
        """The use of a label of this body."""
        if isinstance(expr, ast.Name):
            self.references.add(expr.span, self.labels.get(expr.id))

    def arguments_of_unknown(self, args: tuple[ast.Arg, ...]) -> None:
        """The arguments of an unknown block, where a bare name can mean anything."""
        for arg in args:
            if isinstance(arg.value, ast.Name):
                self.bare_name(arg.value)
            elif not any(isinstance(arg.value, kind) for kind in (ast.Binary, ast.Labeled)):
                self.value(arg.value)
            else:
                self.use_all(arg.value)

    def bare_name(self, name: ast.Name) -> None:
        self.use(name)
        if name.id not in self.bound:
            self.undefined.add(name.id)

    def arguments(
        self, called: Callee, args: tuple[ast.Arg, ...], receiver: Tensor | Poison | None
    ) -> None:
        # Without an arrow, the first argument may be the tensor: that needs its value.
        report = self.report if receiver else Report()
        found = bind(called, args, receiver, lambda expr, _: self.read(expr), report)
        for arg in args:
            if arg.name:
                self.references.add(arg.name.span, called.declared.get(arg.name.id))
            if isinstance(arg.value, ast.Name):
                self.bare_name(arg.value)
            elif not found.sound:
                self.value(arg.value)
        for param in called.params if found.sound else ():
            for bound in found.slots.get(param.name, ()):
                self.argument(called, param, bound)

    def read(self, expr: ast.Expr | ast.Typed) -> Value:
        """The value of an argument: a symbol for an unbound name."""
        unbound = isinstance(expr, ast.Name) and expr.id not in self.bound
        return Symbol(expr.id, expr.span) if unbound else _SOMETHING  # type: ignore[union-attr]

    def argument(self, called: Callee, param: Param, bound: Bound) -> None:
        expr, symbol = bound.expr, bound.value
        match param.kind:
            case Kind.AXIS | Kind.MARK | Kind.LABEL:
                if param.kind is Kind.LABEL:  # they have their own names
                    self.label(expr)
            case _ if expr is None:
                pass  # the tensor along the arrow
            case Kind.SIZE:
                self.value(expr)
            case Kind.MASK:
                self.mask(expr)
            case Kind.BLOCK:
                self.block(expr)
            case _ if isinstance(expr, ast.When):
                self.condition(expr.condition)
                for side in (expr.value, expr.otherwise):
                    if isinstance(side, ast.Name):
                        self.bare_name(side)
                    if side:
                        self.argument(called, param, Bound(side, self.read(side), side.span))
            case Kind.BOOL if isinstance(expr, ast.Name) and expr.id == param.name:
                self.references.add(expr.span, called.declared.get(param.name))  # a switch
            case Kind.ANY if isinstance(expr, ast.Name):
                pass  # the block may use it as a choice
            case Kind.TENSOR if _is_absent(symbol, param):
                pass
            case kind if isinstance(symbol, Symbol) and kind is not Kind.TENSOR:
                if symbol.name not in param.choices and not _is_absent(symbol, param):
                    unknown = unknown_option(
                        called.name, called.params, param, symbol, self.bound
                    )
                    self.report.extend([unknown])
            case _:
                self.value(expr)


def _is_absent(symbol: Value, param: Param) -> bool:
    """Whether an argument is `none`, which leaves an optional parameter out."""
    return isinstance(symbol, Symbol) and symbol.name == "none" and param.default is None


def _bounds(node: ast.Type) -> Iterator[ast.Expr]:
    """The bounds and the padding of a type, which only that of an input has."""
    for axis in node.axes:
        yield from (each for each in (axis.least, axis.bound) if each is not None)
    yield from (each for each in (node.below, node.pad) if each is not None)


def _keyword(statement: ast.Statement) -> str:
    return (
        "expect" if isinstance(statement, ast.ExpectType) else type(statement).__name__.lower()
    )
