"""Evaluates masks: what attention may see, such as `causal & within(64)`."""

from __future__ import annotations

from archdsl.diagnostics import did_you_mean
from archdsl.graph import masks
from archdsl.graph.masks import CAUSAL, DATA, EVERYTHING, NUMBERED, Mask
from archdsl.graph.types import Type
from archdsl.semantics.evaluators import Evaluators
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.values import (
    POISON,
    Env,
    MaskValue,
    Poison,
    Scalar,
    Symbol,
    Tensor,
    Value,
    describe,
)
from archdsl.syntax import ast

EXPECTED = "`causal`, `within(n)`, `chunk(n)`, `prefix(n)`, `same(a)`, or a bool tensor"
_FORMS = {"same": "same(segments)", "queries": "queries(marked)", "keys": "keys(marked)"}


class Masks:
    """Builds masks; a tensor in a mask is named by its id until an operator takes it."""

    def __init__(self, builder: GraphBuilder, evaluators: Evaluators):
        self.builder = builder
        self.evaluators = evaluators

    def combined(
        self, expr: ast.Binary | ast.Not, values: tuple[Value, ...]
    ) -> MaskValue | Poison:
        """`a & b`, `a | b` or `not a`, for the values of the sides."""
        sides = (expr.operand,) if isinstance(expr, ast.Not) else (expr.left, expr.right)
        found = [read_mask(*each, self.builder) for each in zip(values, sides, strict=True)]
        known = [each for each in found if isinstance(each, MaskValue)]
        if len(known) < len(found):
            return POISON
        parts = [each.mask for each in known]
        if isinstance(expr, ast.Not):
            mask = masks.without(*parts)
        else:
            mask = (masks.both if expr.op == "&" else masks.either)(*parts)
        if mask == masks.NOTHING:
            return self.builder.report_error(
                "argument-value", "this mask hides everything", expr.span, expected=EXPECTED
            )
        return MaskValue(mask, tuple(dict(pair for m in known for pair in m.tensors).items()))

    def atom(self, call: ast.Call, env: Env) -> MaskValue | Poison:
        """`within(n)` or `same(segments)`."""
        name, args = call.callee.id, call.args
        fewest, most = (1, 2) if name == "same" else (1, 1)
        if not fewest <= len(args) <= most or any(arg.name for arg in args):
            self.builder.skip(call)
            return self.builder.report_error(
                "argument-value",
                f"`{name}` takes {'one or two values' if most > 1 else 'one value'}",
                call.span,
                expected=_FORMS.get(name, f"{name}(n)"),
            )
        return self._numbered(call, env) if name in NUMBERED else self._data(call, env)

    def _numbered(self, call: ast.Call, env: Env) -> MaskValue | Poison:
        (arg,) = call.args
        value = self.evaluators.evaluate(arg.value, env)
        if isinstance(value, Symbol) and value.name == "none":
            return MaskValue(EVERYTHING)  # no limit
        if isinstance(value, Symbol):
            value = self.evaluators.resolve(arg.value, env)
        if isinstance(value, Poison):
            return value
        if isinstance(value, Scalar) and type(value.value) is int and value.value >= 1:
            return MaskValue(Mask(call.callee.id, (value.value,)))
        return self.builder.report_error(
            "argument-value",
            f"`{call.callee.id}` needs a whole number above 0, or `none` for no limit",
            arg.span,
            found=describe(value),
        )

    def _data(self, call: ast.Call, env: Env) -> MaskValue | Poison:
        name = call.callee.id
        wanted = "int" if name == "same" else "bool"
        refs: list[str] = []
        tensors: dict[str, Type] = {}
        for arg in call.args:
            value = self.evaluators.tensor(arg.value, env)
            if isinstance(value, Poison):
                return value
            if value.type.dtype != wanted or not value.type.axes:
                return self.builder.report_error(
                    "type-mismatch",
                    f"`{name}` needs one {wanted} for each position",
                    arg.span,
                    expected=f"{wanted}[T]",
                    found=str(value.type),
                )
            refs.append(value.ref)
            tensors[value.ref] = value.type
        if len(DATA[name]) > len(refs):
            refs *= 2  # `same(a)` compares a with itself
        return MaskValue(Mask(name, tuple(refs)), tuple(tensors.items()))


def read_mask(
    value: Value, expr: ast.Expr | ast.Typed | None, builder: GraphBuilder
) -> MaskValue | Poison:
    """A value as a mask; `none` sees everything, and a switch `causal` is the atom or that."""
    match value:
        case MaskValue() | Poison():
            return value
        case Symbol(name="causal"):
            return MaskValue(CAUSAL)
        case Symbol(name="none"):
            return MaskValue(EVERYTHING)
        case Scalar(value=bool(on)) if isinstance(expr, ast.Name) and expr.id == "causal":
            return MaskValue(CAUSAL if on else EVERYTHING)
        case Tensor() if value.type.dtype == "bool":
            return MaskValue(Mask("given", (value.ref,)), ((value.ref, value.type),))
    assert expr is not None
    help = did_you_mean(value.name, masks.ATOMS) if isinstance(value, Symbol) else None
    return builder.report_error(
        "argument-value",
        "a mask is needed here",
        expr.span,
        expected=EXPECTED,
        found=describe(value),
        help=help,
    )


def setting(value: MaskValue) -> tuple[str | None, list[tuple[str, str, Type]]]:
    """The text of a mask, and its tensors as inputs of an operator: name, id and type."""
    types, names = dict(value.tensors), dict[tuple[str, str], str]()
    for atom in masks.atoms(value.mask):
        for role, ref in zip(DATA.get(atom.op, ()), atom.args, strict=False):
            number = 1 + sum(known == role for known, _ in names)
            names.setdefault((role, str(ref)), f"{role}_{number}")
    mask = masks.renamed(value.mask, names)
    given = {name: ref for (_, ref), name in names.items()}
    inputs = [(name, given[name], types[given[name]]) for name in masks.inputs(mask)]
    return masks.text(mask), inputs
