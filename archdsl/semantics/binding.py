"""Arguments to parameters: positional, named, and bare names that choose or switch.

What is called, an operator of the table or a block of a file, is seen here only by its
parameters; a block's are turned into those of the table.
"""

from __future__ import annotations

from collections.abc import Callable

from archdsl.diagnostics import Note, Span, did_you_mean, listing
from archdsl.frozen import Frozen
from archdsl.graph.ops import OPS
from archdsl.graph.signature import REQUIRED, Kind, Param
from archdsl.semantics.library import Scope
from archdsl.semantics.report import Report
from archdsl.semantics.values import Poison, Scalar, Symbol, Tensor, Value
from archdsl.syntax import ast


class Bound(Frozen):
    """An argument at its parameter; `expr` is None for the tensor that flows in."""

    expr: ast.Expr | ast.Typed | None
    value: Value
    span: Span


class Callee(Frozen):
    """What is called, for binding and for messages; `flows`: a tensor may flow into it."""

    name: str
    params: tuple[Param, ...]
    span: Span
    defined: Span | None = None  # where a block stands
    flows: bool = True


def callee(name: str, scope: Scope, span: Span) -> Callee | None:
    """The operator or the block of a name, called at a span; None where there is none."""
    op, definition = OPS.get(name), scope.blocks.get(name)
    if op and not op.loss:
        return Callee(name, op.params, span)
    if definition and not op:
        block = definition.block
        return Callee(name, signature(block.params), span, block.name.span)
    return None


def signature(declared: ast.Params) -> tuple[Param, ...]:
    """A block's or a model's parameters in the terms of the table; defaults stay trees."""
    kinds: dict[type, Kind] = {ast.Type: Kind.TENSOR, ast.BlockType: Kind.BLOCK}
    params = []
    for param in declared.params:
        kind = kinds.get(type(param.type), Kind.ANY)
        if isinstance(param.default, ast.Bool):
            kind = Kind.BOOL
        default = REQUIRED if param.default is None else param.default
        params.append(Param(param.name.id, kind, default))
    return tuple(params)


def bind(
    callee: Callee,
    args: tuple[ast.Arg, ...],
    receiver: Tensor | None,
    evaluate: Callable[[ast.Expr | ast.Typed, Param | None], Value],
    report: Report,
) -> dict[str, list[Bound]] | None:
    """The arguments of each parameter that has any, or None where they do not fit.

    `receiver` is the tensor that flows in along the arrow, if any. `evaluate` is asked for
    an argument's value with the parameter that it is for, or with None for a bare name
    whose parameter its value decides.
    """
    slots: dict[str, list[Bound]] = {}
    if receiver is not None:
        first = next((p for p in callee.params if p.kind is Kind.TENSOR), None)
        if first is None:
            message = f"`{callee.name}` takes no tensor"
            report.add("not-a-block", message, callee.span, notes=_declared(callee))
            return None
        slots[first.name] = [Bound(None, receiver, callee.span)]
    sound = True
    for arg in args:
        param, value = _destination(callee, arg, slots, evaluate)
        if param is None:
            _no_parameter(callee, arg, report)
            sound = False
        elif given := _given(arg, param, slots):
            _twice(callee, arg, given, param, report)
            sound = False
        else:
            value = evaluate(arg.value, param) if value is None else value
            if param.kind is Kind.NAMED_SIZES and arg.name and isinstance(value, Scalar):
                value = Scalar(value.value, arg.name.id, value.origin)
            slots.setdefault(param.name, []).append(Bound(arg.value, value, arg.value.span))
            sound = sound and not isinstance(value, Poison)
    return slots if sound and _complete(callee, slots, report) else None


def _destination(
    callee: Callee,
    arg: ast.Arg,
    slots: dict[str, list[Bound]],
    evaluate: Callable[[ast.Expr | ast.Typed, Param | None], Value],
) -> tuple[Param | None, Value | None]:
    """The parameter that an argument is for, and its value where that was asked for."""
    params = callee.params
    if arg.name is not None:
        by_name = next((p for p in params if p.name == arg.name.id), None)
        return by_name or next((p for p in params if p.kind is Kind.NAMED_SIZES), None), None
    if isinstance(arg.value, ast.Name):
        # A bare name sets the switch of its name, and chooses by what it means.
        value, name = evaluate(arg.value, None), arg.value.id
        choice = value.name if isinstance(value, Symbol) else None
        for param in params:
            if param.kind is Kind.BOOL and param.name == name:
                return param, Scalar(True, name, arg.value.span) if choice else value
            if choice in param.choices:
                return param, value
    free = (p for p in params if p.kind is Kind.SIZES or p.name not in slots)
    return next((p for p in free if p.kind is not Kind.NAMED_SIZES), None), None


def _given(arg: ast.Arg, param: Param, slots: dict[str, list[Bound]]) -> Bound | None:
    """The argument that a parameter has already and cannot have again."""
    bounds = slots.get(param.name, [])
    match param.kind:
        case Kind.SIZES:
            return None
        case Kind.NAMED_SIZES:
            name = arg.name.id if arg.name else ""
            return next((b for b in bounds if getattr(b.value, "name", None) == name), None)
        case _:
            return bounds[0] if bounds else None


def _complete(callee: Callee, slots: dict[str, list[Bound]], report: Report) -> bool:
    """Whether every parameter has an argument that must have one."""
    lacking = [p for p in callee.params if p.required and p.name not in slots]
    for param in lacking:
        first = callee.flows and param is callee.params[0] and param.kind is Kind.TENSOR
        what = listing(param.choices) if param.choices else param.kind.value
        report.add(
            "missing-argument",
            f"`{callee.name}` needs `{param.name}`"
            + (f": {what}" if param.kind is not Kind.ANY else ""),
            callee.span,
            notes=_declared(callee),
            help=f"bring a tensor in: `x -> {callee.name}(…)`" if first else None,
        )
    return not lacking


def _declared(callee: Callee) -> tuple[Note, ...]:
    return (Note("the block is declared here", callee.defined),) if callee.defined else ()


def _no_parameter(callee: Callee, arg: ast.Arg, report: Report) -> None:
    names = [p.name for p in callee.params if p.kind is not Kind.NAMED_SIZES]
    if arg.name is not None:
        report.add(
            "unknown-argument",
            f"`{callee.name}` has no parameter `{arg.name.id}`",
            arg.name.span,
            expected=listing(names) or None,
            found=f"`{arg.name.id}`",
            help=did_you_mean(arg.name.id, names),
        )
        return
    options = [c for p in callee.params for c in p.choices]
    options += [p.name for p in callee.params if p.kind is Kind.BOOL]
    report.add(
        "argument-value",
        f"`{callee.name}` takes no further argument",
        arg.span,
        expected=f"{callee.name}({', '.join(names)})",
        help=did_you_mean(arg.value.id, options) if isinstance(arg.value, ast.Name) else None,
    )


def _twice(callee: Callee, arg: ast.Arg, given: Bound, param: Param, report: Report) -> None:
    flows = given.expr is None
    name = arg.name.id if arg.name else param.name
    report.add(
        "duplicate-name",
        f"`{name}` of `{callee.name}` is given twice",
        arg.span,
        notes=(
            Note("the arrow brings it in" if flows else "it is given here too", given.span),
        ),
    )
