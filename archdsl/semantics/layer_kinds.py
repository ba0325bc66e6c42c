"""Which layers of a stack are elaborated: one for each kind.

A repeated block sees the number of a layer only in its own text. So layers for which all
numbers and conditions of this text are the same are equal, and one of them is elaborated.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

from archdsl.semantics.conditions import COMPARISONS
from archdsl.semantics.numbers import OPERATIONS
from archdsl.semantics.values import Env, Function, Scalar, Symbol
from archdsl.syntax import ast
from archdsl.syntax.traversal import children


def signatures(block: ast.Expr, number: str, env: Env) -> Callable[[int], Hashable]:
    """What a repeated block sees of the number of a layer. Layers may be equal even if their
    signatures differ."""
    dependent = _naming(block, number)
    return lambda layer: tuple(_Values(number, layer, env, dependent).of_block(block))


def _naming(expr: ast.Node, name: str) -> frozenset[int]:
    """The ids of the nodes that contain a name."""
    found: set[int] = set()

    def visit(node: ast.Node) -> bool:
        inside = [visit(child) for child in children(node)]
        if any(inside) or (isinstance(node, ast.Name) and node.id == name):
            found.add(id(node))
            return True
        return False

    visit(expr)
    return frozenset(found)


class _Unknown(Exception):
    """Raised for an expression that is no number, truth value or choice."""


class _Values:
    def __init__(self, number: str, layer: int, env: Env, dependent: frozenset[int]):
        self.number, self.layer, self.env = number, layer, env
        self.dependent = dependent  # ids of the nodes that contain the number
        self.inner: set[str] = set()  # numbers of layers of inner stacks

    def of_block(self, expr: ast.Node) -> Iterator[Hashable]:
        """The values in an expression where a block is needed."""
        match expr:
            case ast.Binary(op="*"):
                yield from self.of_block(expr.left)
                yield from self.of_value(expr.right)
            case ast.Repeat():
                self.inner |= {expr.number.id} if expr.number else set()
                yield from self.of_block(expr.block)
                yield from self.of_value(expr.count)
            case ast.Call():
                for arg in expr.args:
                    yield from self.of_value(arg.value)
            case ast.When():
                yield from self.of_value(expr.condition)
                yield from self.of_block(expr.value)
                yield from self.of_block(expr.otherwise) if expr.otherwise else ()
            case ast.Chain() | ast.Lambda():
                for step in expr.steps:
                    yield from self.of_block(step.value)
            case ast.Labeled():
                yield from self.of_block(expr.value)
            case _:
                yield from self.of_value(expr)

    def of_value(self, expr: ast.Node) -> Iterator[Hashable]:
        """The values in an expression where a value is needed, or a block as an argument."""
        if id(expr) not in self.dependent:
            return
        match expr:
            case ast.Call() if not self.is_function(expr):
                yield from self.of_block(expr)
            case ast.Chain() | ast.Lambda() | ast.Labeled() | ast.Repeat():
                yield from self.of_block(expr)
            case _:
                try:
                    found = self.value(expr)
                except (_Unknown, ArithmeticError, TypeError):
                    for child in children(expr):
                        yield from self.of_value(child)
                else:
                    yield type(found), found  # an integer is not the equal float

    def is_function(self, expr: ast.Call) -> bool:
        return isinstance(self.env.names.get(expr.callee.id), Function)

    def value(self, expr: ast.Node | None) -> Hashable:
        match expr:
            case ast.Int() | ast.Float() | ast.Bool() | ast.String():
                return expr.value
            case ast.Name(id=self.number):
                return self.layer
            case ast.Name():
                known = self.env.names.get(expr.id, Symbol(expr.id, expr.span))
                if isinstance(known, Scalar):
                    return known.value
                if isinstance(known, Symbol) and expr.id not in self.inner:
                    return "symbol", known.name
            case ast.Negate():
                return -self.of_number(expr.operand)
            case ast.Binary(op="and"):
                return self.value(expr.left) and self.value(expr.right)
            case ast.Binary(op="or"):
                return self.value(expr.left) or self.value(expr.right)
            case ast.Binary():
                if expr.op in OPERATIONS:
                    sides = self.of_number(expr.left), self.of_number(expr.right)
                    return OPERATIONS[expr.op](*sides)
            case ast.Call() if self.is_function(expr):
                function = self.env.names[expr.callee.id]
                assert isinstance(function, Function)
                if len(expr.args) == len(function.params) and not any(
                    a.name for a in expr.args
                ):
                    pairs = zip(function.params, expr.args, strict=True)
                    return function.call(
                        *(
                            self.of_text(arg.value)
                            if name in function.texts
                            else self.of_number(arg.value)
                            for name, arg in pairs
                        )
                    )
            case ast.Compare():
                return COMPARISONS[expr.op](self.value(expr.left), self.value(expr.right))
            case ast.Not():
                return not self.value(expr.operand)
            case ast.When():
                chosen = expr.value if self.value(expr.condition) else expr.otherwise
                return self.value(chosen)
            case _:
                pass
        raise _Unknown

    def of_text(self, expr: ast.Node) -> str:
        found = self.value(expr)
        if not isinstance(found, str):
            raise _Unknown
        return found

    def of_number(self, expr: ast.Node) -> int | float:
        found = self.value(expr)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise _Unknown
        return found
