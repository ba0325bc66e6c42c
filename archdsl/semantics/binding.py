"""Binds arguments to parameters: by order, by name, and bare names that choose or switch.

An operator and a block are bound in the same way: `signature` gives a block's parameters in
the form of the operators' table.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from archdsl.diagnostics import Note, Span, did_you_mean, listing
from archdsl.frozen import Frozen
from archdsl.graph.masks import DATA, NUMBERED
from archdsl.graph.ops import CALLED
from archdsl.graph.signature import REQUIRED, Kind, Param
from archdsl.semantics.library import Scope
from archdsl.semantics.report import Report
from archdsl.semantics.values import Flow, Poison, Scalar, Several, Symbol, Value
from archdsl.syntax import ast

MASKS = frozenset({*NUMBERED, *DATA} - {"given"})


class Bound(Frozen):
    """An argument of a parameter; `expr` is None for the tensor along the arrow."""

    expr: ast.Expr | ast.Typed | None
    value: Value
    span: Span


class Arguments(Frozen):
    """The arguments of each parameter that has any, POISON for one with a mistake.

    Not `sound`: some argument fits no parameter, or a required one is missing.
    """

    slots: Mapping[str, list[Bound]]
    sound: bool = True

    def first(self, name: str) -> Bound | None:
        return self.slots[name][0] if name in self.slots else None


class Callee(Frozen):
    """What is called; `flows`: it can be a step of a chain. `block` is its definition."""

    name: str
    params: tuple[Param, ...]
    span: Span
    block: ast.Block | None = None
    flows: bool = True

    @property
    def defined(self) -> Span | None:
        """Where a block is defined."""
        return self.block.name.span if self.block else None

    @property
    def declared(self) -> Mapping[str, Span]:
        """Where a block declares its parameters."""
        params = self.block.params.params if self.block else ()
        return {each.name.id: each.name.span for each in params}

    @property
    def receiver(self) -> Param | None:
        """The parameter of the tensor before the arrow, if it takes one."""
        return next((p for p in self.params if p.kind is Kind.TENSOR), None)


def callee(name: str, scope: Scope, span: Span) -> Callee | None:
    """The operator or block of this name, called at a span; None if there is none."""
    op, definition = CALLED.get(name), scope.blocks.get(name)
    if op and not op.loss:
        # Only a graph says which axes match: a spec names them.
        return Callee(name, tuple(p for p in op.params if p.kind is not Kind.AXES), span)
    if definition and not op:
        block = definition.block
        return Callee(name, signature(block.params), span, block)
    return None


def is_mask(name: str, bound: Container[str], scope: Scope) -> bool:
    """Whether a call of a name is an atom of a mask, such as `within(4)`."""
    known = name in bound or name in CALLED or name in scope.blocks or scope.is_unclear(name)
    return name in MASKS and not known


def signature(declared: ast.Params) -> tuple[Param, ...]:
    """The parameters of a block or model, in the form of the operators' table.

    Defaults stay expressions.
    """
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
    receiver: Flow | None,
    evaluate: Callable[[ast.Expr | ast.Typed, Param | None], Value],
    report: Report,
) -> Arguments:
    """Evaluates the arguments and binds them to parameters.

    `receiver` is the tensor along the arrow, if any, or several: they are bound to the first
    parameters that take one. `evaluate` gets an argument and its
    parameter, or None for a bare name whose value decides the parameter.
    """
    slots: dict[str, list[Bound]] = {}
    sound = True
    if receiver is not None:
        takers = [p for p in callee.params if p.kind is Kind.TENSOR]
        tensors = receiver.tensors if isinstance(receiver, Several) else (receiver,)
        if len(takers) < len(tensors):
            message = f"`{callee.name}` does not take a tensor"
            if takers:
                message = f"`{callee.name}` does not take {len(tensors)} tensors"
            report.add("not-a-block", message, callee.span, notes=_declared(callee))
            sound = False
        else:
            for taker, each in zip(takers, tensors, strict=False):
                slots[taker.name] = [Bound(None, each, callee.span)]
    # A bare name with a mistake may be for any parameter, and so may those after it.
    certain = True
    for arg in args:
        param, value = _destination(callee, arg, slots, evaluate)
        if arg.name is None and isinstance(value, Poison):
            certain = False
        if param is None:
            if certain or arg.name:
                _report_no_parameter(callee, arg, report)
            sound = False
        elif given := _existing_argument(arg, param, slots):
            if certain:
                _report_twice(callee, arg, given, param, report)
            sound = False
        else:
            value = evaluate(arg.value, param) if value is None else value
            if param.kind is Kind.NAMED_SIZES and arg.name and isinstance(value, Scalar):
                value = Scalar(value.value, arg.name.id, value.origin)
            slots.setdefault(param.name, []).append(Bound(arg.value, value, arg.value.span))
    # Without an arrow, an argument in the place of the tensor may be for the next parameter.
    first = callee.receiver if receiver is None else None
    tensor = slots.get(first.name) if first else None
    certain = certain and not (tensor and isinstance(tensor[0].value, Poison))
    if sound and certain:
        sound = _is_complete(callee, slots, report, isinstance(receiver, Poison))
    return Arguments(slots, sound and certain)


def _destination(
    callee: Callee,
    arg: ast.Arg,
    slots: Mapping[str, list[Bound]],
    evaluate: Callable[[ast.Expr | ast.Typed, Param | None], Value],
) -> tuple[Param | None, Value | None]:
    """The parameter that an argument is for, and its value if that was needed to decide."""
    params = callee.params
    if arg.name is not None:
        by_name = next((p for p in params if p.name == arg.name.id), None)
        return by_name or next((p for p in params if p.kind is Kind.NAMED_SIZES), None), None
    value: Value | None = None
    if isinstance(arg.value, ast.Name):
        # A bare name sets the switch of its name, or chooses by its value.
        value, name = evaluate(arg.value, None), arg.value.id
        choice = value.name if isinstance(value, Symbol) else None
        for param in params:
            if param.kind is Kind.BOOL and param.name == name:
                return param, Scalar(True, name, arg.value.span) if choice else value
            if choice in param.choices:
                return param, value
    elif isinstance(arg.value, ast.When):
        # `gelu if wide else relu` chooses the parameter as one of the names does.
        for side in (arg.value.value, arg.value.otherwise):
            one = evaluate(side, None) if isinstance(side, ast.Name) else None
            for param in params:
                if isinstance(one, Symbol) and one.name in param.choices:
                    return param, None
    free = (p for p in params if p.kind is Kind.SIZES or p.name not in slots)
    named = (Kind.NAMED_SIZES, Kind.MASK)  # only by name
    by_order = next((p for p in free if p.kind not in named), None)
    return by_order, value if isinstance(value, Poison) else None


def _existing_argument(
    arg: ast.Arg, param: Param, slots: Mapping[str, list[Bound]]
) -> Bound | None:
    """The argument that a parameter already has, if it cannot have another."""
    bounds = slots.get(param.name, [])
    match param.kind:
        case Kind.SIZES:
            return None
        case Kind.NAMED_SIZES:
            name = arg.name.id if arg.name else ""
            return next((b for b in bounds if getattr(b.value, "name", None) == name), None)
        case _:
            return bounds[0] if bounds else None


def _is_complete(
    callee: Callee, slots: Mapping[str, list[Bound]], report: Report, unknown: bool
) -> bool:
    """Whether every required parameter has an argument; reports the missing ones.

    `unknown`: the arrow may pass several tensors.
    """
    missing = [p for p in callee.params if p.required and p.name not in slots]
    if unknown and any(p.kind is Kind.TENSOR for p in missing):
        return False
    for param in missing:
        first = callee.flows and param is callee.receiver
        what = listing(param.choices) if param.choices else param.kind.value
        report.add(
            "missing-argument",
            f"`{callee.name}` needs `{param.name}`"
            + (f": {what}" if param.kind is not Kind.ANY else ""),
            callee.span,
            notes=_declared(callee),
            help=f"pass a tensor to it: `x -> {callee.name}(…)`" if first else None,
        )
    return not missing


def _declared(callee: Callee) -> tuple[Note, ...]:
    return (Note("the block is declared here", callee.defined),) if callee.defined else ()


def _report_no_parameter(callee: Callee, arg: ast.Arg, report: Report) -> None:
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
        f"`{callee.name}` has too many arguments",
        arg.span,
        expected=f"{callee.name}({', '.join(names)})",
        help=did_you_mean(arg.value.id, options) if isinstance(arg.value, ast.Name) else None,
    )


def _report_twice(
    callee: Callee, arg: ast.Arg, given: Bound, param: Param, report: Report
) -> None:
    flows = given.expr is None
    name = arg.name.id if arg.name else param.name
    named_sizes = any(each.kind is Kind.NAMED_SIZES for each in callee.params)
    report.add(
        "duplicate-name",
        f"`{name}` of `{callee.name}` is given twice",
        arg.span,
        notes=(Note("the arrow passes it" if flows else "it is also given here", given.span),),
        help=f"give the axis `{name}` another name" if flows and named_sizes else None,
    )
