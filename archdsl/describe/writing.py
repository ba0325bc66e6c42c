"""Pieces of a tree for what has no text yet: names, numbers, arguments, types.

The inverse of what elaboration reads; `expand` puts them together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from archdsl.diagnostics import Source, Span
from archdsl.graph.nodes import Apply, Attribute
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind, Param
from archdsl.graph.types import Size, Type, format_integer
from archdsl.syntax import ast
from archdsl.syntax.mistakes import reserved_word

SPAN = Span(Source("<expanded>", ""), 0, 0)

CHOICES = frozenset(c for op in OPS.values() for p in op.params for c in p.choices)
# Names that have a meaning, which a value of that name would take from them.
MEANT = frozenset(OPS) | CHOICES | {"sqrt", "none"}


class NameScope:
    """The names of one scope."""

    def __init__(self, names: Iterable[str]):
        self.names = set(names) | MEANT

    def fresh_name(self, wish: str) -> str:
        """A name like the one that is wished for, and now taken."""
        found, count = wish, 1
        while found in self.names or reserved_word(found, SPAN):
            count += 1
            found = f"{wish}_{count}"
        self.names.add(found)
        return found


# -- expressions --


def name(text: str) -> ast.Name:
    return ast.Name(SPAN, text)


def whole(value: int) -> ast.Int:
    return ast.Int(SPAN, format_integer(value))


def number(value: float) -> ast.Expr:
    """A fraction, by the digits that give the same number again."""
    positive = ast.Float(SPAN, repr(abs(value)))
    return ast.Negate(SPAN, positive) if value < 0 else positive


def call(callee: str, args: Iterable[ast.Arg]) -> ast.Call | ast.Name:
    given = tuple(args)
    return ast.Call(SPAN, name(callee), given) if given else name(callee)


def arg(param: str | None, value: ast.Expr | ast.Typed) -> ast.Arg:
    return ast.Arg(SPAN, name(param) if param else None, value)


def chain(head: ast.Expr, step: ast.Expr) -> ast.Chain:
    """A step behind a value, or behind the steps that lead to it."""
    steps = head.steps if isinstance(head, ast.Chain) else (ast.Step(SPAN, head),)
    return ast.Chain(SPAN, (*steps, ast.Step(SPAN, step)))


def settings(node: Apply, labels: Collection[str]) -> Iterator[ast.Arg]:
    """What an operator is given beside its tensors, all of it but what is left out: a `none`,
    an axis, and the sizes of a table that it is tied to. `labels` are tables known by them."""
    op, tied = OPS[node.op], node.attr.get("tied")
    for key, value in node.attrs:
        param = op.param(key)
        if value is None or param.kind is Kind.AXIS or (tied and key in ("vocab", "dim")):
            continue
        match param.kind, value:
            case Kind.SIZES, tuple():
                yield from (arg(None, whole(size)) for size in value if isinstance(size, int))
            case Kind.NAMED_SIZES, tuple():
                pairs = (pair for pair in value if isinstance(pair, tuple))
                yield from (arg(axis, whole(size)) for axis, size in pairs)
            case Kind.LABEL, str() if value in labels:
                yield arg(key, name(value))
            case _:
                yield arg(key, _setting(param, value))


def _setting(param: Param, value: Attribute) -> ast.Expr:
    match value:
        case bool():
            return ast.Bool(SPAN, value)
        case int():
            return whole(value)
        case float():
            return number(value)
        case str() if param.kind in (Kind.CHOICE, Kind.MARK):
            return name(value)
        case _:
            return ast.String(SPAN, str(value))


# -- types --


def size(of: Size) -> ast.Expr:
    """A size as a type writes it: `768`, `T`, `T + 1`."""
    parts: list[ast.Expr] = []
    rest = of.at(dict.fromkeys(of.vars, 0))
    for axes, factor in of.terms:
        parts += [name(each) for each in axes for _ in range(factor)]
    if not parts:
        return whole(rest)
    total = parts[0]
    for part in parts[1:]:
        total = ast.Binary(SPAN, total, "+", part)
    if rest:
        total = ast.Binary(SPAN, total, "+" if rest > 0 else "-", whole(abs(rest)))
    return total


def plain(type: Type) -> ast.Type:
    """The type of an output, in the model's own axes."""
    axes = tuple(ast.Axis(SPAN, size(axis.size), None) for axis in type.axes)
    return ast.Type(SPAN, type.dtype, axes, None, None)


class Binding:
    """The types of a block's parameters: sizes are numbers, and what varies has a name."""

    def __init__(self, taken: NameScope):
        self.taken = taken
        self.named: dict[Size, str] = {}

    def type(self, type: Type) -> ast.Type:
        axes = []
        for axis in type.axes:
            if axis.size.value is None and axis.size not in self.named:
                self.named[axis.size] = self.taken.fresh_name(axis.name or "M")
            known = self.named.get(axis.size)
            axes.append(ast.Axis(SPAN, name(known) if known else size(axis.size), None))
        return ast.Type(SPAN, type.dtype, tuple(axes), None, None)
