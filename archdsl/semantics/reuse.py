"""`tied(label)`: a labelled block of the same body, used again with its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from archdsl.diagnostics import did_you_mean, listing
from archdsl.graph.signature import Param
from archdsl.graph.types import Type
from archdsl.semantics.binding import bind, callee
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.report import Report
from archdsl.semantics.values import Env, Part, Poison, Scalar, Symbol, Tensor, Value
from archdsl.syntax import ast

TIED = "tied"


def remember(block: ast.Expr, label: ast.Name, env: Env, builder: GraphBuilder) -> None:
    """Notes where a labelled block is, so that `tied` finds it."""
    prefix = builder.places.prefix
    where = f"{prefix}.{label.id}" if prefix else label.id
    env.parts[builder.places.full_path(where)] = Part(block, label, prefix)


def find(call: ast.Name | ast.Call, env: Env, builder: GraphBuilder) -> Part | Poison:
    """The part that `tied(label, …)` names, with the arguments that the call replaces."""
    args = call.args if isinstance(call, ast.Call) else ()
    first, others = next(iter(args), None), args[1:]
    word = first.value if first and first.name is None else None
    if not isinstance(word, ast.Name | ast.String):
        builder.skip(call)
        return builder.report_error(
            "missing-argument",
            "`tied` needs the label of a block",
            call.span,
            expected="x -> tied(label)",
        )
    label = word.id if isinstance(word, ast.Name) else word.value
    part = _lookup(label, env, builder)
    if part is None:
        builder.skip(*others)
        here = builder.places.full_path("")
        known = [path.removeprefix(here) for path in env.parts if path.startswith(here)]
        known = [path for path in known if "{" not in path]  # not those of inner layers
        return builder.report_error(
            "unknown-name",
            f"no earlier block of this body has the label `{label}`",
            word.span,
            expected=listing(known) or None,
            help=did_you_mean(label, known) or f"add the label: `x -> {label}: block(…)`",
        )
    block = _with_arguments(part.block, others, env)
    if block is None:
        builder.skip(*others)
        return builder.report_error(
            "argument-value",
            f"`{label}` is a group of steps, which takes no arguments",
            others[0].span,
            help="put the steps into a block with parameters",
        )
    return replace(part, block=block)


def _lookup(label: str, env: Env, builder: GraphBuilder) -> Part | None:
    """The part with a label in this group of steps, or in one around it."""
    prefix = builder.places.prefix
    while True:
        part = env.parts.get(builder.places.full_path(f"{prefix}.{label}".lstrip(".")))
        if part or not prefix:
            return part
        prefix = prefix.rpartition(".")[0]


def _with_arguments(block: ast.Expr, args: tuple[ast.Arg, ...], env: Env) -> ast.Expr | None:
    """A block with other arguments for the same parameters; None if it takes none."""
    if not args:
        return block
    match block:
        case ast.Name():
            return ast.Call(block.span, block, args)
        case ast.Call():
            replaced = {id(value) for value in _values_of(block, args, env)}
            kept = (arg for arg in block.args if id(arg.value) not in replaced)
            return replace(block, args=(*kept, *args))
        case ast.Repeat():
            inner = _with_arguments(block.block, args, env)
            return inner and replace(block, block=inner)
        case ast.Binary():
            inner = _with_arguments(block.left, args, env)
            return inner and replace(block, left=inner)
        case _:
            return None


def _values_of(call: ast.Call, args: tuple[ast.Arg, ...], env: Env) -> Iterator[ast.Node]:
    """The arguments of a call for the parameters that `args` name."""
    called = callee(call.callee.id, env.scope, call.span)
    if called is None:
        return

    def read(expr: ast.Expr | ast.Typed, param: Param | None) -> Value:
        known = env.names.get(expr.id) if isinstance(expr, ast.Name) else Scalar(0)
        return known or Symbol(expr.id, expr.span)  # type: ignore[union-attr]  # a name

    x = Tensor("", Type("float"))
    slots = bind(called, call.args, x, read, Report()).slots
    names = (arg.name.id for arg in args if arg.name)
    for bound in (bound for name in names for bound in slots.get(name, ())):
        if bound.expr is not None:
            yield bound.expr
