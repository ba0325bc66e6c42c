"""A model's body to the nodes of its graph: names, numbers and types in one walk.

Blocks are inlined where they are called, each time with its own sizes; a repeated block is
walked once and kept folded. What is wrong becomes `POISON` and is told once.
"""

from __future__ import annotations

from archdsl.diagnostics import did_you_mean
from archdsl.graph.nodes import Stack
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind, Param
from archdsl.graph.types import Type, Varying
from archdsl.semantics.binding import Bound, Callee, bind, signature
from archdsl.semantics.blocks import Blocks
from archdsl.semantics.construction import Construction
from archdsl.semantics.numbers import arithmetic, called
from archdsl.semantics.operators import Operators
from archdsl.semantics.report import Report
from archdsl.semantics.shapes import Shapes
from archdsl.semantics.values import (
    POISON,
    Closure,
    Env,
    Extent,
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

    # -- values --

    def value(self, expr: ast.Expr | ast.Typed, env: Env) -> Value:
        """The meaning of an expression where a value is wanted; an unbound name is a Symbol."""
        match expr:
            case ast.Int() | ast.Float() | ast.Bool() | ast.String():
                return Scalar(expr.value, None, expr.span)
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
            case Extent():
                return self.wrong(
                    "arithmetic",
                    f"`{expression(expr)}` varies from run to run and is no number here",
                    expr.span,
                    found=f"an axis of size {value.axis.size}",
                )
            case _:
                return self.wrong("arithmetic", "a number is needed here", expr.span)

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
            case "+", Tensor(), Tensor():
                slots = {"x": [Bound(expr.left, left, expr.left.span)]}
                slots["other"] = [Bound(expr.right, right, expr.right.span)]
                return self.operators.apply(OPS["add"], slots, expr.span, "add", env)
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
            expected="the sum of two tensors, or the product of a tensor and a number",
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
        """A block applied to a tensor; `named` says whether its weights have their own place."""
        match expr:
            case ast.Labeled():
                return self.step(expr.value, env, x, expr.label)
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
                    "only a block can stand behind an arrow",
                    expr.span,
                    expected="a block: its name, a call, or `{ … }`",
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
        if isinstance(target, Closure) and x is not None:
            if args:
                return self.wrong(
                    "argument-value",
                    f"`{name.id}` has its arguments already, from where it was given",
                    expr.span,
                    help=f"write `{name.id}` alone",
                )
            return self.step(target.expr, target.env, x, label, named)
        if target is not None and not isinstance(target, Closure):
            if isinstance(target, Poison):
                return target
            return self.wrong(
                "not-a-block", f"`{name.id}` is no block", name.span, found=describe(target)
            )
        op, definition = OPS.get(name.id), env.scope.blocks.get(name.id)
        if op and not op.loss:
            callee = Callee(op.name, op.params, expr.span)
        elif definition:
            block = definition.block
            callee = Callee(name.id, signature(block.params), expr.span, block.name.span)
        else:
            return self._no_block(name, env)
        slots = bind(callee, args, x, lambda e, p: self._argument(e, p, env), self.report)
        if slots is None:
            return POISON
        place = label.id if label else name.id
        if definition and not op:
            return self.blocks.enter(definition, slots, expr.span, place, label, named)
        assert op is not None
        return self.operators.apply(op, slots, expr.span, place, env, label, named)

    def _no_block(self, name: ast.Name, env: Env) -> Poison:
        blocks = [*env.scope.blocks, *(n for n, op in OPS.items() if not op.loss)]
        if name.id in OPS:
            help: str | None = f"a loss stands alone: `loss {OPS[name.id].example}`"
            return self.wrong("not-a-block", f"`{name.id}` is a loss", name.span, help=help)
        help = did_you_mean(name.id, blocks)
        if help is None and not env.scope.blocks:
            help = 'blocks of another file come in sight with `use "blocks.arch"`'
        return self.wrong(
            "unknown-name", f"there is no block `{name.id}`", name.span, help=help
        )

    def _argument(self, expr: ast.Expr | ast.Typed, param: Param | None, env: Env) -> Value:
        """An argument's value, by the kind of its parameter; None asks what a bare name is."""
        kind = param.kind if param else None
        if kind in (Kind.AXIS, Kind.MARK, Kind.LABEL):
            if isinstance(expr, ast.Name):
                return Symbol(expr.id, expr.span)
            wanted = kind.value if kind else ""
            return self.wrong("argument-value", f"{wanted} is needed here", expr.span)
        if kind is Kind.BLOCK:
            return Closure(expr, env)  # type: ignore[arg-type]  # `step` refuses a Typed
        value = self.value(expr, env)
        if kind is Kind.ANY and isinstance(value, Symbol) and not isinstance(expr, ast.Name):
            return self.building.unknown(value.name, value.span, env)
        return value

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
                found=count.text,
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
            if result.type.mixed <= type.mixed:
                break
            # What one copy mixes, the next one finds mixed: walk it again knowing that.
            type, self.building.ids = type.mixing(result.type.mixed), start
        if not result.type.same(type):
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
        return Tensor(node.id, Type(type.dtype, x.type.axes, type.below, type.mixed))


def _stack_name(block: ast.Expr, env: Env) -> str:
    match block:
        case ast.Name(id=name) | ast.Call(callee=ast.Name(id=name)):
            target = env.names.get(name)
            return _stack_name(target.expr, target.env) if isinstance(target, Closure) else name
        case ast.Labeled():
            return block.label.id
        case _:
            return "stack"
