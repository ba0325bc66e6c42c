"""Arguments to parameters: positional, named, and bare names that choose or switch.

What is called, an operator of the table or a block of a file, is seen here only by its
parameters; a block's are turned into those of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archdsl.diagnostics import Note, Span, did_you_mean, listing
from archdsl.graph.signature import REQUIRED, Kind, Param
from archdsl.semantics.report import Report
from archdsl.semantics.values import Poison, Scalar, Symbol, Tensor, Value
from archdsl.syntax import ast


@dataclass(frozen=True)
class Bound:
    """An argument at its parameter; `expr` is None for the tensor that flows in."""

    expr: ast.Expr | ast.Typed | None
    value: Value
    span: Span


@dataclass(frozen=True)
class Callee:
    """What is called, for binding and for messages."""

    name: str
    params: tuple[Param, ...]
    span: Span
    defined: Span | None = None  # where a block stands


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
    ok = True
    if receiver is not None:
        first = next((p for p in callee.params if p.kind is Kind.TENSOR), None)
        if first is None:
            report.add("not-a-block", f"`{callee.name}` takes no tensor", callee.span)
            return None
        slots[first.name] = [Bound(None, receiver, callee.span)]
    named_sizes = next((p for p in callee.params if p.kind is Kind.NAMED_SIZES), None)

    for arg in args:
        span = arg.span
        param: Param | None
        value: Value | None = None
        if arg.name is not None:
            name = arg.name.id
            param = next((p for p in callee.params if p.name == name), None) or named_sizes
            if param is None:
                _unknown(callee, arg.name, report)
                ok = False
                continue
            span = arg.value.span
        else:
            name = ""
            if isinstance(arg.value, ast.Name):
                param, value = _by_value(callee, arg.value, evaluate)
            else:
                param = None
            if param is None:
                param = _next_free(callee.params, slots)
            if param is None:
                _too_many(callee, arg, report)
                ok = False
                continue
        if param.name in slots and param.kind not in (Kind.SIZES, Kind.NAMED_SIZES):
            given = slots[param.name][0]
            report.add(
                "duplicate-name",
                f"`{param.name}` of `{callee.name}` is given twice",
                arg.span,
                notes=(Note("it is given here too", given.span),),
            )
            ok = False
            continue
        if value is None:
            value = evaluate(arg.value, param)
        if isinstance(value, Poison):
            ok = False
        if param.kind is Kind.NAMED_SIZES and isinstance(value, Scalar):
            value = Scalar(value.value, name, value.origin)
        slots.setdefault(param.name, []).append(Bound(arg.value, value, span))

    for param in callee.params if ok else ():
        if param.required and param.name not in slots:
            note = (
                Note("the block is declared here", callee.defined) if callee.defined else None
            )
            report.add(
                "missing-argument",
                f"`{callee.name}` needs `{param.name}`: {_what(param)}",
                callee.span,
                notes=(note,) if note else (),
                help=f"write `x -> {callee.name}(…)`: the arrow brings the tensor in"
                if param.kind is Kind.TENSOR and receiver is None
                else None,
            )
            ok = False
    return slots if ok else None


def _by_value(
    callee: Callee,
    name: ast.Name,
    evaluate: Callable[[ast.Expr | ast.Typed, Param | None], Value],
) -> tuple[Param | None, Value | None]:
    """The parameter that a bare name sets by what it is: a switch or a choice."""
    value = evaluate(name, None)
    if not isinstance(value, Symbol):
        return None, None
    for param in callee.params:
        if param.kind is Kind.BOOL and param.name == value.name:
            return param, Scalar(True, value.name, name.span)
        if value.name in param.choices:
            return param, value
    return None, None


def _next_free(params: tuple[Param, ...], slots: dict[str, list[Bound]]) -> Param | None:
    for param in params:
        if param.kind is Kind.SIZES or (
            param.name not in slots and param.kind is not Kind.NAMED_SIZES
        ):
            return param
    return None


def _what(param: Param) -> str:
    return listing(param.choices) if param.choices else param.kind.value


def _unknown(callee: Callee, name: ast.Name, report: Report) -> None:
    names = [p.name for p in callee.params if p.kind is not Kind.NAMED_SIZES]
    report.add(
        "unknown-argument",
        f"`{callee.name}` has no parameter `{name.id}`",
        name.span,
        expected=listing(names),
        found=f"`{name.id}`",
        help=did_you_mean(name.id, names),
    )


def _too_many(callee: Callee, arg: ast.Arg, report: Report) -> None:
    choices = [c for p in callee.params for c in p.choices]
    switches = [p.name for p in callee.params if p.kind is Kind.BOOL]
    word = arg.value.id if isinstance(arg.value, ast.Name) else ""
    report.add(
        "argument-value",
        f"`{callee.name}` takes no further argument",
        arg.span,
        expected=f"{callee.name}({', '.join(p.name for p in callee.params)})",
        help=did_you_mean(word, [*choices, *switches]) if word else None,
    )
