"""The names in an expression: what is used, and whether the arguments of a call fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from archdsl.diagnostics import Diagnostic, Note, Span, did_you_mean, listing
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind, Param
from archdsl.graph.types import Type
from archdsl.semantics.binding import Bound, Callee, bind, callee, is_mask
from archdsl.semantics.library import Scope
from archdsl.semantics.numbers import FUNCTIONS
from archdsl.semantics.references import References, refer_choice
from archdsl.semantics.report import Report
from archdsl.semantics.reuse import TIED
from archdsl.semantics.unknown import (
    unknown_block,
    unknown_choice,
    unknown_option,
    unknown_value,
)
from archdsl.semantics.values import POISON, Poison, Scalar, Symbol, Tensor, Value
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk

# A value about which only its kind is known.
_SOME_TENSOR = Tensor("", Type("float"))
_SOMETHING = Scalar(0)


def bind_once(
    name: ast.Name, bound: dict[str, Span | None], report: Report, message: str, note: str
) -> None:
    """Binds a name; reports a name that is already bound."""
    if name.id not in bound:
        bound[name.id] = name.span
        return
    first = bound[name.id]
    notes = (Note(note, first),) if first else ()
    report.add("duplicate-name", message, name.span, notes=notes)


class ExpressionNames:
    """The names of one body, as its expressions use them.

    `bound` are the names that are defined so far, and where; `edges` are all edges of the
    body, `choices` the parameters that list their values.
    """

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

    def bind(self, name: ast.Name) -> None:
        self.references.add(name.span, name.span)
        message = f"`{name.id}` is already defined"
        bind_once(name, self.bound, self.report, message, "the other definition is here")

    def use(self, name: ast.Name) -> None:
        """A use of a name, which need not be bound."""
        self.used.add(name.id)
        self.references.add(name.span, self.bound.get(name.id))

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
