"""Blocks applied to tensors: the steps of a chain, calls, and stacks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple

from archdsl.graph.alike import alike
from archdsl.graph.nodes import Body, Stack
from archdsl.graph.ops import FORMS, OPS
from archdsl.graph.signature import Kind, Param
from archdsl.graph.split import SPLIT
from archdsl.graph.types import Type
from archdsl.semantics.binding import Arguments, Bound, Callee, bind, callee
from archdsl.semantics.blocks import Blocks
from archdsl.semantics.conditions import Conditions
from archdsl.semantics.evaluators import Evaluators
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.layer_kinds import signatures
from archdsl.semantics.mixtures import Mixtures
from archdsl.semantics.operators import Operators
from archdsl.semantics.reuse import TIED, find, remember
from archdsl.semantics.unknown import unknown_block
from archdsl.semantics.values import (
    POISON,
    Closure,
    Env,
    Flow,
    Function,
    Poison,
    Scalar,
    Several,
    Symbol,
    Tensor,
    Value,
    describe,
)
from archdsl.syntax import ast
from archdsl.syntax.printer import expression

_MOST_LAYERS = 10_000  # whose blocks are elaborated one by one


class _Layers(NamedTuple):
    """A repeated block, and the name of a layer's number in it."""

    block: ast.Expr
    env: Env
    number: ast.Name | None
    times: int
    path: str
    tied: bool

    def env_of(self, layer: int) -> Env:
        """The names that a layer sees."""
        if self.number is None:
            return self.env
        number = Scalar(layer, self.number.id, self.number.span)
        return replace(self.env, names={**self.env.names, self.number.id: number})


class Steps:
    """Applies blocks. Where a tensor is POISON, only the arguments of its steps are checked."""

    def __init__(
        self,
        builder: GraphBuilder,
        operators: Operators,
        blocks: Blocks,
        conditions: Conditions,
        evaluators: Evaluators,
    ):
        self.builder = builder
        self.operators = operators
        self.blocks = blocks
        self.conditions = conditions
        self.evaluators = evaluators
        self.mixtures = Mixtures(builder, operators)

    def run(self, x: Value, head: ast.Node, steps: Sequence[ast.Step], env: Env) -> Flow:
        """Passes the value of `head` through the steps after it."""
        if not isinstance(x, Tensor | Several | Poison):
            x = self.builder.report_error(
                "not-a-tensor",
                "only a tensor can be passed along `->`",
                head.span,
                found=describe(x),
            )
        for step in steps:
            x = self.apply(step.value, env, x)
        return x

    def apply(
        self,
        expr: ast.Expr | ast.Typed,
        env: Env,
        x: Flow,
        label: ast.Name | None = None,
        named: bool = True,
        chosen: bool = False,
    ) -> Flow:
        """A block applied to a tensor.

        `named`: its weights get a path for this call; `chosen`: `if` has chosen the block.
        """
        match expr:
            case ast.Labeled():
                result = self.apply(expr.value, env, x, expr.label)
                remember(expr.value, expr.label, env, self.builder)
                return result
            case ast.When():
                value = self.conditions.choose(expr, env)
                if isinstance(value, Poison):
                    return value
                return x if value is None else self.apply(value, env, x, label, named, True)
            case ast.Name() | ast.Call():
                return self.call(expr, env, x, label, named, chosen)
            case ast.Lambda():
                with self.builder.places.enter(
                    label.id if label else None, expr.span, named and bool(label)
                ):
                    result = self.run(x, expr, expr.steps, env)
                    if named and label:
                        self.builder.name_value(result, self.builder.places.prefix)
                    return result
            case ast.Binary(op="*") | ast.Repeat():
                return self._repeat(expr, env, x, label)
            case ast.Chain():
                self.builder.skip(expr)
                return self.builder.report_error(
                    "not-a-block",
                    "a chain cannot be used as a block",
                    expr.span,
                    help="write a group of steps as `{ a -> b }`",
                )
            case _:
                self.builder.skip(expr)
                return self.builder.report_error(
                    "not-a-block",
                    "a block is needed here",
                    expr.span,
                    expected="the name of a block, a call, or `{ … }`",
                    found=expr.span.text,
                    help=_chain_in_parentheses(expr) if isinstance(expr, ast.Binary) else None,
                )

    def call(
        self,
        expr: ast.Name | ast.Call,
        env: Env,
        x: Flow | None,
        label: ast.Name | None,
        named: bool,
        chosen: bool = False,
    ) -> Flow:
        """A call of an operator or a block; `x` is the tensor along the arrow, if any.

        `named` and `chosen` are those of `apply`.
        """
        name, args = (expr, ()) if isinstance(expr, ast.Name) else (expr.callee, expr.args)
        with self.builder.in_call(expr.span):
            result = self._call(name, args, expr, env, x, label, named, chosen)
        self.builder.note(name.span, result)
        return result

    def _call(
        self,
        name: ast.Name,
        args: tuple[ast.Arg, ...],
        expr: ast.Name | ast.Call,
        env: Env,
        x: Flow | None,
        label: ast.Name | None,
        named: bool,
        chosen: bool,
    ) -> Flow:
        target = env.names.get(name.id)
        if isinstance(target, Closure):
            return self._call_parameter(target, expr, args, env, x, label, named)
        if isinstance(target, Function) and x is not None and name.id in OPS:
            target = None  # `x -> sqrt`, of each number of a tensor
        if isinstance(target, Symbol) and (
            callee(target.name, env.scope, expr.span) or env.scope.is_unclear(target.name)
        ):
            # A choice can be the name of a block: `-> act`, with `act = gelu`.
            name, target = ast.Name(name.span, target.name), None
        if isinstance(target, Poison) or (target is None and env.scope.is_unclear(name.id)):
            return self.builder.skip(expr)
        if target is not None:
            self.builder.skip(expr)
            help = None
            if callee(name.id, env.scope, expr.span):
                help = f"this value hides the block `{name.id}`: give it another name"
            elif chosen and isinstance(target, Tensor):
                help = "to choose between values, write `(a -> b) if condition else c`"
            return self.builder.report_error(
                "not-a-block",
                f"`{name.id}` is not a block",
                name.span,
                found=describe(target),
                help=help,
            )
        called = callee(name.id, env.scope, expr.span)
        if called is None and name.id == TIED:
            return self._tied(expr, env, x, label)
        if called is None:
            self.builder.skip(expr)
            return self.builder.report_diagnostic(unknown_block(name.id, name.span, env.scope))
        arguments = bind(
            called, args, x, lambda e, p: self.argument(e, p, called, env), self.builder.report
        )
        place = label.id if label else name.id
        if name.id == SPLIT.name:
            return self.operators.split(arguments, expr.span, env)
        if name.id in OPS:
            return self.operators.apply(
                OPS[name.id], arguments, expr.span, place, env, label, named
            )
        if name.id in FORMS:
            path = self.builder.places.unique_path(
                place, label.span if label else expr.span, bool(label)
            )
            return self.mixtures.apply(arguments, expr.span, path, self._expert)
        definition = env.scope.blocks[name.id]
        return self.blocks.inline(definition, arguments, expr.span, place, env, label, named)

    def _expert(self, block: Closure, x: Tensor) -> Tensor | Poison:
        """The value of an expert, a block that was passed as an argument."""
        with self.builder.in_body_of(block.env):
            result = self.apply(block.expr, block.env, x, named=False)
        if isinstance(result, Several):
            return self.builder.report_error(
                "mixture",
                "an expert must return a vector for each vector",
                block.expr.span,
                found=describe(result),
            )
        return result

    def _tied(
        self,
        expr: ast.Name | ast.Call,
        env: Env,
        x: Flow | None,
        label: ast.Name | None,
    ) -> Flow:
        """`tied(label)`: a block of this body, with the same weights."""
        part = find(expr, env, self.builder)
        if isinstance(part, Poison):
            return part
        if label or x is None:
            keeps = "a block that is used again keeps its label"
            return self.builder.report_error(
                "argument-value",
                keeps if label else f"`{TIED}` takes its tensor along an arrow",
                label.span if label else expr.span,
                help=f"write `x -> {TIED}({part.label.id})`",
            )
        with self.builder.places.again(part.prefix, expr.span):
            return self.apply(part.block, env, x, part.label)

    def elementwise(
        self, call: ast.Call, x: Tensor, env: Env, label: ast.Name | None
    ) -> Tensor | Poison:
        """`sqrt(x)` of a tensor: the operator with the name of a function of numbers."""
        op, place = OPS[call.callee.id], label.id if label else call.callee.id
        arguments = Arguments({"x": [Bound(call.args[0].value, x, call.args[0].span)]})
        return self.operators.apply(op, arguments, call.span, place, env, label)

    def _call_parameter(
        self,
        block: Closure,
        expr: ast.Name | ast.Call,
        args: tuple[ast.Arg, ...],
        env: Env,
        x: Flow | None,
        label: ast.Name | None,
        named: bool,
    ) -> Flow:
        """A block that was passed as an argument. It has its other arguments already."""
        name = expr.id if isinstance(expr, ast.Name) else expr.callee.id
        if all(arg.name is None for arg in args):
            given = [self.evaluators.resolve(arg.value, env) for arg in args]
            tensors = [each for each in given if isinstance(each, Tensor | Poison)]
            if len(tensors) == len(given):
                x, args = _together(x, tensors), ()
        if x is None or args:
            return self.builder.report_error(
                "argument-value",
                f"`{name}` is a block parameter and takes only tensors",
                expr.span,
                help=f"write `x -> {name}`",
            )
        with self.builder.in_body_of(block.env):
            return self.apply(block.expr, block.env, x, label, named)

    def argument(
        self, expr: ast.Expr | ast.Typed, param: Param | None, called: Callee, env: Env
    ) -> Value:
        """The value of an argument for its parameter, or for None if it is a bare name whose
        value decides the parameter."""
        match param.kind if param else None:
            case Kind.TENSOR:
                assert param is not None
                value = self.evaluators.evaluate(expr, env)
                if isinstance(value, Symbol) and (param.required or value.name != "none"):
                    value = self.evaluators.resolve(expr, env)
                if isinstance(value, Tensor | Poison | Symbol):
                    return value  # `none` leaves it out
                first = param is called.receiver and called.flows
                return self.builder.report_error(
                    "not-a-tensor",
                    f"`{param.name}` of `{called.name}` must be a tensor",
                    expr.span,
                    found=describe(value),
                    help=f"pass a tensor to it: `x -> {called.name}(…)`" if first else None,
                )
            case Kind.LABEL if isinstance(expr, ast.String):
                return self.evaluators.evaluate(expr, env)  # the full path of a table
            case Kind.AXIS | Kind.MARK | Kind.LABEL:
                assert param is not None
                if isinstance(expr, ast.Name):
                    given = env.names.get(expr.id) if param.kind is Kind.MARK else None
                    if isinstance(given, Symbol | Scalar):
                        return given  # of a parameter of the block
                    return Symbol(expr.id, expr.span)
                value = self.evaluators.evaluate(expr, env)
                return self.builder.report_argument(
                    called.name, param.name, expr.span, param.kind.value, value
                )
            case Kind.SIZE if not isinstance(expr, ast.Typed):
                return self.evaluators.size(expr, env)
            case Kind.BLOCK if not isinstance(expr, ast.Typed):
                return Closure(expr, env)
            case _:
                return self.evaluators.evaluate(expr, env)

    def _repeat(
        self,
        expr: ast.Binary | ast.Repeat,
        env: Env,
        x: Flow,
        label: ast.Name | None,
    ) -> Flow:
        """`block * n`: one `Stack` node, with a body for each kind of layer."""
        if self.builder.scanned:
            self.builder.skip(expr)
            return self.builder.report_error(
                "state",
                "a block cannot be repeated in the update of a state",
                expr.span,
                help="write the block once for each time",
            )
        if isinstance(expr, ast.Repeat):
            block, number, tied = expr.block, expr.number, expr.tied
            count = self._layers(expr.count, env)
        else:
            block, number, tied = expr.left, None, False
            count = self._layers(expr.right, env)
        if count is None and isinstance(block, ast.Int | ast.Float):
            return POISON
        if count and number and count > _MOST_LAYERS:
            return self.builder.report_error(
                "argument-value",
                f"a stack whose layers know their number has at most {_MOST_LAYERS:,} layers",
                expr.span,
                found=f"{count:,}",
            )
        if isinstance(block, ast.Labeled):
            label, block = block.label, block.value
        name = label.id if label else _stack_name(block, env)
        path = self.builder.places.unique_path(
            name, label.span if label else expr.span, bool(label)
        )
        if isinstance(x, Several):
            self.builder.skip(expr)
            return self.builder.report_error(
                "stack",
                "a repeated block takes one tensor",
                block.span,
                found=describe(x),
                help="join them before: `concat(a, b, D)`",
            )
        layers = _Layers(block, env, number, count or 1, path, tied)
        if isinstance(x, Poison):
            with self.builder.collect_nodes(), self.builder.places.in_stack(path, tied):
                return self.apply(block, layers.env_of(0), x, named=False)
        start, type = self.builder.ids, x.type
        while True:
            self.builder.ids = start
            found = self._bodies(layers, type)
            if isinstance(found, Poison):
                return found
            bodies, kinds, types = found
            noncausal = frozenset[str]().union(*(each.noncausal for each in types))
            if noncausal <= type.noncausal:
                break
            # The output of a layer is the input of the next: elaborate again with these axes.
            type = type.with_noncausal(noncausal)
        for result in types:
            if not result.with_noncausal(type.noncausal).is_same(type):
                return self.builder.report_error(
                    "stack",
                    "a repeated block must return the type of its input",
                    block.span,
                    expected=str(type),
                    found=str(result),
                )
        if count is None:
            return POISON
        result = types[kinds[-1]]
        several = tuple(kinds) if len(bodies) > 1 else ()
        node = Stack(
            self.builder.new_id(),
            x.ref,
            count,
            path,
            tuple(bodies),
            result,
            expr.span,
            several,
            tied,
        )
        self.builder.add(node)
        return Tensor(node.id, replace(result, axes=x.type.axes))

    def _bodies(
        self, layers: _Layers, type: Type
    ) -> tuple[list[Body], list[int], list[Type]] | Poison:
        """The bodies of a stack, the index of the body of each layer, and the types that the
        bodies return."""
        bodies: list[Body] = []
        kinds: list[int] = []
        types: list[Type] = []
        places = self.builder.places
        reused_at = places.reused_at
        seen: dict[Hashable, int] = {}
        sign_of = (
            signatures(layers.block, layers.number.id, layers.env) if layers.number else None
        )
        for i in range(layers.times if layers.number else 1):
            sign = sign_of(i) if sign_of else i
            if sign in seen:
                kinds.append(seen[sign])
                continue
            start, carry = self.builder.ids, self.builder.new_id()
            # Layers of several kinds that are tied have weights of the same sizes.
            if layers.tied and i > 0:
                places.reused_at = layers.block.span
            with (
                self.builder.collect_nodes() as nodes,
                places.in_stack(layers.path, layers.tied),
            ):
                x = Tensor(carry, type)
                result = self.apply(layers.block, layers.env_of(i), x, named=False)
            if isinstance(result, Poison):
                return result
            if isinstance(result, Several):
                return self.builder.report_error(
                    "stack",
                    "a repeated block must return the type of its input",
                    layers.block.span,
                    expected=str(type),
                    found=describe(result),
                )
            body = Body(carry, type, tuple(nodes), result.ref)
            kind = next((k for k, each in enumerate(bodies) if alike(each, body)), None)
            if kind is None:
                kind = len(bodies)
                bodies.append(body)
                types.append(result.type)
            else:
                self.builder.ids = start
            kinds.append(kind)
            seen[sign] = kind
        places.reused_at = reused_at
        return bodies, kinds, types

    def _layers(self, expr: ast.Expr, env: Env) -> int | None:
        """The number of layers, or None after a report."""
        count = self.evaluators.resolve(expr, env)
        if isinstance(count, Poison):
            return None
        product = expression(ast.Binary(expr.span, ast.Name(expr.span, "(…)"), "*", expr))
        text = f"to multiply by it, put the chain in parentheses: `{product}`"
        if not isinstance(count, Scalar):
            self.builder.report_error(
                "arithmetic",
                "after an arrow, `block * n` repeats a block, and `n` must be a number",
                expr.span,
                found=describe(count),
                help=text if isinstance(count, Tensor) else None,
            )
            return None
        if type(count.value) is int and count.value >= 1:
            return count.value
        if not self.builder.is_first(count):
            return None
        self.builder.report_error(
            "argument-value",
            "the number of layers must be a whole number above 0",
            expr.span,
            found=describe(count),
            help=text if isinstance(count.value, float) else None,
        )
        return None


def _together(x: Flow | None, others: Sequence[Tensor | Poison]) -> Flow | None:
    """The tensors along an arrow and those after them, if there are any."""
    first = () if x is None else x.tensors if isinstance(x, Several) else (x,)
    every = (*first, *others)
    tensors = tuple(each for each in every if isinstance(each, Tensor))
    if len(tensors) < len(every):
        return POISON
    return Several(tensors) if len(tensors) > 1 else tensors[0] if tensors else None


def _chain_in_parentheses(expr: ast.Binary) -> str:
    """A help line for `x -> norm + y`, where `norm + y` is the step."""
    first: ast.Expr = expr
    while isinstance(first, ast.Binary):
        first = first.left
    rest = expression(expr).removeprefix(expression(first))
    return f"put the chain in parentheses: `(… -> {expression(first)}){rest}`"


def _stack_name(block: ast.Expr, env: Env) -> str:
    match block:
        case ast.Name(id=name) | ast.Call(callee=ast.Name(id=name)):
            target = env.names.get(name)
            return _stack_name(target.expr, target.env) if isinstance(target, Closure) else name
        case ast.Labeled():
            return block.label.id
        case _:
            return "stack"
