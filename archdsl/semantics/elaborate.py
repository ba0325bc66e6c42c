"""A model's body to the nodes of its graph: names, numbers and types in one walk.

Blocks are inlined where they are called, each time with its own sizes; a repeated block is
walked once and kept folded. What is wrong becomes `POISON` and is told once.
"""

from __future__ import annotations

from dataclasses import replace

from archdsl.graph.nodes import Stack
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind, Param
from archdsl.graph.types import Varying
from archdsl.semantics.binding import Bound, Callee, bind, callee
from archdsl.semantics.blocks import Blocks
from archdsl.semantics.conditions import Conditions
from archdsl.semantics.construction import Construction
from archdsl.semantics.numbers import arithmetic, bounded, called
from archdsl.semantics.operators import Operators
from archdsl.semantics.report import Report
from archdsl.semantics.shapes import Shapes
from archdsl.semantics.unknown import no_block
from archdsl.semantics.values import (
    POISON,
    Closure,
    Env,
    Function,
    Poison,
    Scalar,
    Symbol,
    Tensor,
    Value,
    describe,
)
from archdsl.syntax import ast
from archdsl.syntax.printer import expression


class Elaborator:
    """Walks expressions and collects the nodes that they mean."""

    def __init__(self, report: Report, varying: dict[str, Varying]):
        self.building = Construction(report, varying)
        self.operators = Operators(self.building)
        self.shapes = Shapes(report, varying, self.number)
        self.report = report
        self.wrong = self.building.wrong
        self.blocks = Blocks(self)
        self.conditions = Conditions(self)

    # -- values --

    def value(self, expr: ast.Expr | ast.Typed, env: Env) -> Value:
        """The meaning of an expression where a value is wanted; an unbound name is a Symbol."""
        match expr:
            case ast.Bool() | ast.String():
                return Scalar(expr.value, None, expr.span)
            case ast.Int() | ast.Float():
                return bounded(expr.value, expr.span, self.wrong)
            case ast.Name():
                return env.names.get(expr.id) or Symbol(expr.id, expr.span)
            case ast.Negate():
                return arithmetic(
                    "-", Scalar(0), self.known(expr.operand, env), expr.span, self.wrong
                )
            case ast.Binary():
                return self._binary(expr, env)
            case ast.Call():
                return self._call(expr, env, None)
            case ast.Labeled():
                return self._labeled(expr, env)
            case ast.Chain():
                head = self.known(expr.steps[0].value, env)
                return self._flow(head, expr.steps[0].value, expr.steps[1:], env)
            case ast.When():
                return self._chosen_value(expr, env)
            case ast.Lambda():
                return self.wrong(
                    "not-a-tensor",
                    "a block stands where a value is needed",
                    expr.span,
                    help="bring a tensor in: `x -> { … }`",
                )
            case ast.Typed():
                return self.wrong(
                    "not-a-tensor",
                    f"`{expr.name.id}` is declared here as an input of training",
                    expr.span,
                    help="only a loss can declare an input among its arguments",
                )

    def known(self, expr: ast.Expr | ast.Typed, env: Env) -> Value:
        """The same, where a name that means nothing is a mistake."""
        value = self.value(expr, env)
        if isinstance(value, Symbol):
            return self.building.unknown(value.name, value.span, env)
        return value

    def number(self, expr: ast.Expr, env: Env) -> Scalar | Poison:
        value = self.known(expr, env)
        match value:
            case Scalar() | Poison():
                return value
            case _:
                help = (
                    f"call it: `{expression(expr)}(…)`" if isinstance(value, Function) else None
                )
                return self.wrong(
                    "arithmetic",
                    "a number is needed here",
                    expr.span,
                    found=describe(value),
                    help=help,
                )

    def tensor(self, expr: ast.Expr | ast.Typed, env: Env) -> Tensor | Poison:
        value = self.known(expr, env)
        if isinstance(value, Tensor | Poison):
            return value
        return self.wrong(
            "not-a-tensor", "a tensor is needed here", expr.span, found=describe(value)
        )

    def _binary(self, expr: ast.Binary, env: Env) -> Value:
        left, right = self.known(expr.left, env), self.known(expr.right, env)
        match expr.op, left, right:
            case _, Poison(), _:
                return left
            case _, _, Poison():
                return right
            case ("+" | "*") as op, Tensor(), Tensor():
                name = "add" if op == "+" else "multiply"
                slots = {"x": [Bound(expr.left, left, expr.left.span)]}
                slots["other"] = [Bound(expr.right, right, expr.right.span)]
                return self.operators.apply(OPS[name], slots, expr.span, name, env)
            case ("*", Tensor() as x, Scalar() as by) | ("*", Scalar() as by, Tensor() as x):
                number = expr.right if x is left else expr.left
                slots = {
                    "x": [Bound(None, x, expr.span)],
                    "by": [Bound(number, by, number.span)],
                }
                return self.operators.apply(OPS["scale"], slots, expr.span, "scale", env)
            case _, Tensor(), _:
                pass
            case _, _, Tensor():
                pass
            case _:
                return arithmetic(expr.op, left, right, expr.span, self.wrong)
        return self.wrong(
            "arithmetic",
            f"`{expr.op}` is not defined between {describe(left)} and {describe(right)}",
            expr.span,
            expected="the sum or the product of two tensors, or a tensor times a number",
        )

    def _labeled(self, expr: ast.Labeled, env: Env) -> Value:
        if isinstance(expr.value, ast.Call):
            return self._call(expr.value, env, expr.label)
        return self.wrong(
            "not-a-block",
            "a label stands before the call of a block",
            expr.span,
            expected="label: block(…)",
        )

    def _chosen_value(self, expr: ast.When, env: Env) -> Value:
        holds = self.conditions.holds(expr.condition, env)
        if isinstance(holds, Poison):
            return holds
        chosen = expr.value if holds else expr.otherwise
        if chosen is None:
            return self.wrong(
                "not-a-tensor",
                "where the condition does not hold there is no value",
                expr.span,
                help="say which: `a if condition else b`; only a step can be left out",
            )
        return self.value(chosen, env)

    def _call(self, call: ast.Call, env: Env, label: ast.Name | None) -> Value:
        """A call with all its arguments, its tensor among them."""
        function = env.names.get(call.callee.id)
        if isinstance(function, Function):
            args = [self.number(a.value, env) for a in call.args]  # type: ignore[arg-type]
            if any(isinstance(a, Poison) for a in args):
                return POISON
            return called(function, call, args, self.wrong)
        return self._invoke(call, env, None, label, named=True)

    # -- blocks --

    def _flow(
        self, x: Value, head: ast.Node, steps: tuple[ast.Step, ...], env: Env
    ) -> Tensor | Poison:
        """A tensor through the steps behind it."""
        for step in steps:
            if isinstance(x, Poison):
                return x
            if not isinstance(x, Tensor):
                return self.wrong(
                    "not-a-tensor",
                    "only a tensor flows along an arrow",
                    head.span,
                    found=describe(x),
                )
            x = self.step(step.value, env, x)
        assert isinstance(x, Tensor | Poison)
        return x

    def step(
        self,
        expr: ast.Expr | ast.Typed,
        env: Env,
        x: Tensor,
        label: ast.Name | None = None,
        named: bool = True,
    ) -> Tensor | Poison:
        """A block applied to a tensor; `named`: its weights have a place of their own."""
        match expr:
            case ast.Labeled():
                return self.step(expr.value, env, x, expr.label)
            case ast.When():
                holds = self.conditions.holds(expr.condition, env)
                if isinstance(holds, Poison):
                    return holds
                chosen = expr.value if holds else expr.otherwise
                return x if chosen is None else self.step(chosen, env, x, label, named)
            case ast.Name() | ast.Call():
                return self._invoke(expr, env, x, label, named)
            case ast.Lambda():
                with self.building.places.inside(
                    label.id if label else None, expr.span, named and bool(label)
                ):
                    return self._flow(x, expr, expr.steps, env)
            case ast.Binary(op="*"):
                return self._repeat(expr, env, x, label)
            case ast.Chain():
                help = "a group of steps is written `{ a -> b }`"
                return self.wrong("not-a-block", "a chain is no block", expr.span, help=help)
            case _:
                return self.wrong(
                    "not-a-block",
                    "this is no block, and a tensor cannot flow into it",
                    expr.span,
                    expected="a block: its name, a call, or `{ … }`",
                    found=expr.span.text,
                )

    def _invoke(
        self,
        expr: ast.Name | ast.Call,
        env: Env,
        x: Tensor | None,
        label: ast.Name | None,
        named: bool,
    ) -> Tensor | Poison:
        name, args = (expr, ()) if isinstance(expr, ast.Name) else (expr.callee, expr.args)
        target = env.names.get(name.id)
        if isinstance(target, Closure):
            return self._given(target, expr, args, env, x, label, named)
        if isinstance(target, Poison):
            return target
        if isinstance(target, Symbol) and callee(target.name, env.scope, expr.span):
            # A choice that is the name of a block stands for it: `-> act`, with `act = gelu`.
            name, target = ast.Name(name.span, target.name), None
        if target is not None:
            return self.wrong(
                "not-a-block", f"`{name.id}` is no block", name.span, found=describe(target)
            )
        called = callee(name.id, env.scope, expr.span)
        if called is None:
            return self.building.tell(no_block(name.id, name.span, env.scope))
        slots = bind(
            called, args, x, lambda e, p: self.argument(e, p, called, env), self.report
        )
        if slots is None:
            return POISON
        place = label.id if label else name.id
        if name.id in OPS:
            return self.operators.apply(
                OPS[name.id], slots, expr.span, place, env, label, named
            )
        definition = env.scope.blocks[name.id]
        return self.blocks.enter(definition, slots, expr.span, place, env, label, named)

    def _given(
        self,
        block: Closure,
        expr: ast.Name | ast.Call,
        args: tuple[ast.Arg, ...],
        env: Env,
        x: Tensor | None,
        label: ast.Name | None,
        named: bool,
    ) -> Tensor | Poison:
        """A block that came as an argument: it has all but its tensor from there."""
        name = expr.id if isinstance(expr, ast.Name) else expr.callee.id
        if x is None and len(args) == 1:
            flowing = self.tensor(args[0].value, env)
            if isinstance(flowing, Poison):
                return flowing
            x, args = flowing, ()
        if x is None or args:
            return self.wrong(
                "argument-value",
                "a block that came as an argument takes a tensor and nothing else",
                expr.span,
                help=f"write `x -> {name}`",
            )
        with self.building.standing_in(block.env):
            return self.step(block.expr, block.env, x, label, named)

    def argument(
        self, expr: ast.Expr | ast.Typed, param: Param | None, called: Callee, env: Env
    ) -> Value:
        """An argument's value, by the kind of its parameter; None asks what a bare name is."""
        match param.kind if param else None:
            case Kind.TENSOR:
                assert param is not None
                value = self.known(expr, env)
                if isinstance(value, Tensor | Poison):
                    return value
                first = param is called.params[0] and called.flows
                return self.wrong(
                    "not-a-tensor",
                    f"`{param.name}` of `{called.name}` is a tensor",
                    expr.span,
                    found=describe(value),
                    help=f"bring a tensor in: `x -> {called.name}(…)`" if first else None,
                )
            case Kind.LABEL if isinstance(expr, ast.String):
                return self.value(expr, env)  # the full place of a table
            case Kind.AXIS | Kind.MARK | Kind.LABEL:
                assert param is not None
                if isinstance(expr, ast.Name):
                    return Symbol(expr.id, expr.span)
                return self.building.misfit(
                    called.name, param.name, expr.span, param.kind.value, self.value(expr, env)
                )
            case Kind.BLOCK if not isinstance(expr, ast.Typed):
                return Closure(expr, env)
            case _:
                return self.value(expr, env)

    def _repeat(
        self, expr: ast.Binary, env: Env, x: Tensor, label: ast.Name | None
    ) -> Tensor | Poison:
        """`block * n`: walked once, kept once, with n times its weights."""
        count = self.number(expr.right, env)
        if isinstance(count, Poison):
            return count
        if isinstance(count.value, bool) or not isinstance(count.value, int) or count.value < 1:
            return self.wrong(
                "argument-value",
                "a block is repeated a whole number of times",
                expr.right.span,
                expected="1 or more",
                found=describe(count),
                help="to multiply a tensor by a number write `scale(…)`"
                if isinstance(count.value, float)
                else None,
            )
        block = expr.left
        if isinstance(block, ast.Labeled):
            label, block = block.label, block.value
        own = label.id if label else _stack_name(block, env)
        path = self.building.places.take(own, label.span if label else expr.span, bool(label))
        carry = self.building.fresh()
        type, start = x.type, self.building.ids
        while True:
            with self.building.collecting() as body, self.building.places.stacked(path):
                result = self.step(block, env, Tensor(carry, type), named=False)
            if isinstance(result, Poison):
                return result
            if result.type.noncausal <= type.noncausal:
                break
            # The output of a layer is the input of the next: elaborate again with these axes.
            type, self.building.ids = type.with_noncausal(result.type.noncausal), start
        if not result.type.with_noncausal(type.noncausal).is_same(type):
            return self.wrong(
                "stack",
                "a block that is repeated must return the type that it takes",
                expr.left.span,
                expected=str(type),
                found=str(result.type),
            )
        id, nodes = self.building.fresh(), tuple(body)
        node = Stack(
            id, x.ref, count.value, path, carry, type, nodes, result.ref, result.type, expr.span
        )
        self.building.nodes.append(node)
        return Tensor(node.id, replace(result.type, axes=x.type.axes))


def _stack_name(block: ast.Expr, env: Env) -> str:
    match block:
        case ast.Name(id=name) | ast.Call(callee=ast.Name(id=name)):
            target = env.names.get(name)
            return _stack_name(target.expr, target.env) if isinstance(target, Closure) else name
        case ast.Labeled():
            return block.label.id
        case _:
            return "stack"
