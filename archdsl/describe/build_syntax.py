"""Builds syntax nodes without source text: names, numbers, arguments, types.

The inverse of elaboration; `expand` combines them into a file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from archdsl.diagnostics import Source, Span, fail
from archdsl.graph import masks
from archdsl.graph.masks import ATOMS, Mask
from archdsl.graph.nodes import Apply, Attribute, Node, Scan
from archdsl.graph.ops import CALLED, OPS
from archdsl.graph.signature import Kind, Param
from archdsl.graph.types import Factor, Size, Type, format_integer
from archdsl.syntax import ast
from archdsl.syntax.mistakes import reserved_word

SPAN = Span(Source("<expanded>", ""), 0, 0)

CHOICES = frozenset(c for op in OPS.values() for p in op.params for c in p.choices)
# Names with a meaning in the language, which a value must not hide.
RESERVED = frozenset(CALLED) | CHOICES | {"sqrt", "ln", "item", "none"}
_NAMES = {"add": "total", "subtract": "difference", "multiply": "product", "divide": "quotient"}
_NAMES |= {"norm": "normed", "attention": "attended", "weight": "trained"}


class NameScope:
    """The names that are taken in one scope."""

    def __init__(self, names: Iterable[str]):
        self.names = set(names) | RESERVED | set(ATOMS)

    def fresh_name(self, wish: str) -> str:
        """Returns `wish`, with a number if it is taken, and takes the name."""
        found, count = wish, 1
        while found in self.names or reserved_word(found, SPAN):
            count += 1
            found = f"{wish}_{count}"
        self.names.add(found)
        return found


def block_name(node: Node) -> str:
    """A name for the block of a node."""
    if isinstance(node, Apply):
        return f"{node.op}_along"
    last = node.path.rpartition(".")[2]
    if isinstance(node, Scan):
        return f"{last}_state"
    return last if last.endswith("layer") else f"{last}_layer"


def suggest_name(node: Node, expr: ast.Expr) -> str:
    """A name for a value: the last label in its chain, or one for its operator."""
    if isinstance(node, Scan):
        return node.path.rpartition(".")[2]
    steps = [step.value for step in expr.steps] if isinstance(expr, ast.Chain) else []
    labels = [
        step.label.id.rpartition(".")[2] for step in steps if isinstance(step, ast.Labeled)
    ]
    if labels and labels[-1] not in RESERVED:
        return labels[-1]
    return _NAMES.get(node.op, node.op) if isinstance(node, Apply) else labels[-1]


# -- expressions --


def name(text: str) -> ast.Name:
    return ast.Name(SPAN, text)


def integer(value: int) -> ast.Int:
    return ast.Int(SPAN, format_integer(value))


def number(value: float) -> ast.Expr:
    """A float with the shortest digits that parse back to the same number."""
    positive = ast.Float(SPAN, repr(abs(value)))
    return ast.Negate(SPAN, positive) if value < 0 else positive


def call(callee: str, args: Iterable[ast.Arg]) -> ast.Call | ast.Name:
    given = tuple(args)
    return ast.Call(SPAN, name(callee), given) if given else name(callee)


def arg(param: str | None, value: ast.Expr | ast.Typed) -> ast.Arg:
    return ast.Arg(SPAN, name(param) if param else None, value)


def chain(head: ast.Expr, step: ast.Expr) -> ast.Chain:
    """A chain with one more step."""
    steps = head.steps if isinstance(head, ast.Chain) else (ast.Step(SPAN, head),)
    return ast.Chain(SPAN, (*steps, ast.Step(SPAN, step)))


def settings(
    node: Apply,
    labels: Collection[str],
    sizes: Mapping[Size, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Iterator[ast.Arg]:
    """The arguments of an operator except tensors, `none`, axes, and the sizes of a tied table.

    `labels` are the tables that a label can name, `sizes` the names of sizes in a block, and
    `names` those of the node's inputs.
    """
    op, tied = OPS[node.op], node.attr.get("tied")
    for key, value in node.attrs:
        param = op.param(key)
        if (
            value is None
            or param.kind in (Kind.AXIS, Kind.AXES)
            or (tied and key in ("vocab", "dim"))
        ):
            continue
        match param.kind, value:
            case Kind.SIZES, tuple():
                yield from (arg(None, integer(size)) for size in value if isinstance(size, int))
            case Kind.NAMED_SIZES, tuple():
                pairs = (pair for pair in value if isinstance(pair, tuple))
                yield from (arg(axis, integer(size)) for axis, size in pairs)
            case Kind.SIZE, str():
                yield arg(None, _size_in(Size.read(value), sizes))
            case Kind.MASK, str():
                yield arg(key, _mask(masks.parse(value), names or {}))
            case Kind.LABEL, str() if value in labels:
                yield arg(key, name(value))
            case _:
                yield arg(key, _setting(param, value))


def scalar(value: float) -> ast.Expr:
    """A number or a truth value."""
    match value:
        case bool():
            return ast.Bool(SPAN, value)
        case int():
            return integer(value)
        case _:
            return number(value)


def _mask(mask: Mask, names: Mapping[str, str]) -> ast.Expr:
    """The expression of a mask; `names` are those of the tensors that it reads."""
    match mask.op:
        case "not":
            return ast.Not(SPAN, _mask(mask.parts[0], names))
        case "&" | "|":
            first, *others = (_mask(part, names) for part in mask.parts)
            for other in others:
                first = ast.Binary(SPAN, first, mask.op, other)
            return first
        case "given":
            return name(names[str(mask.args[0])])
        case _:
            args = (
                integer(each) if isinstance(each, int) else name(names[each])
                for each in mask.args
            )
            return call(mask.op, (arg(None, each) for each in args))


def _setting(param: Param, value: Attribute) -> ast.Expr:
    match value:
        case int() | float():
            return scalar(value)
        case str() if param.kind in (Kind.CHOICE, Kind.MARK):
            return name(value)
        case _:
            return ast.String(SPAN, str(value))


# -- types --


def size(of: Size) -> ast.Expr:
    """A size as written in a type: `768`, `T`, `T + 1`."""
    parts: list[ast.Expr] = []
    rest = of.at(dict.fromkeys(of.vars, 0))
    for axes, factor in of.terms:
        parts += [_factor(each) for each in axes for _ in range(factor)]
    if not parts:
        return integer(rest)
    total = parts[0]
    for part in parts[1:]:
        total = ast.Binary(SPAN, total, "+", part)
    if rest:
        total = ast.Binary(SPAN, total, "+" if rest > 0 else "-", integer(abs(rest)))
    return total


def _factor(of: Factor) -> ast.Expr:
    if isinstance(of, str):
        return name(of)
    return ast.Binary(SPAN, size(of.of), "//", integer(of.by))


def _size_in(of: Size, names: Mapping[Size, str] | None) -> ast.Expr:
    """A size as an argument; `names` has those of a block, None in a model."""
    if names is None or not of.vars:
        return size(of)
    for known, known_name in names.items():
        more = (of - known).value
        if more == 0:
            return name(known_name)
        if more is not None:
            return ast.Binary(
                SPAN, name(known_name), "+" if more > 0 else "-", integer(abs(more))
            )
    fail(
        "unused-name",
        f"no value that a repeated block gets has the size `{of}`",
        help="compute the positions outside of the block",
    )


def plain_type(type: Type) -> ast.Type:
    """The type of an output, with the axes of the model."""
    axes = tuple(ast.Axis(SPAN, size(axis.size), None) for axis in type.axes)
    return ast.Type(SPAN, type.dtype, axes, None, None)


class Binding:
    """Builds the types of a block's parameters, with a name for each varying size.

    An axis without a name gets the one that the block uses for its size.
    """

    def __init__(self, taken: NameScope, used: Mapping[Size, str] | None = None):
        self.taken = taken
        self.used = used or {}
        self.named: dict[Size, str] = {}

    def type(self, type: Type) -> ast.Type:
        axes = []
        for axis in type.axes:
            if axis.size.value is None and axis.size not in self.named:
                self.named[axis.size] = self.taken.fresh_name(
                    axis.name or self.used.get(axis.size, "M")
                )
            known = self.named.get(axis.size)
            axes.append(ast.Axis(SPAN, name(known) if known else size(axis.size), None))
        return ast.Type(SPAN, type.dtype, tuple(axes), None, None)
