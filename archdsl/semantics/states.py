"""`state`: a value that each position along an axis gets from the one before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from archdsl.diagnostics import did_you_mean, listing
from archdsl.graph.nodes import Apply, Scan, Slice, refs
from archdsl.graph.types import Axis, Size, Type
from archdsl.semantics.evaluators import Evaluators
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.shapes import Shapes
from archdsl.semantics.values import POISON, Env, Extent, Poison, Scalar, Tensor, describe
from archdsl.syntax import ast


class States:
    """Elaborates `state` statements to `Scan` nodes."""

    def __init__(self, builder: GraphBuilder, shapes: Shapes, evaluators: Evaluators):
        self.builder = builder
        self.shapes = shapes
        self.evaluators = evaluators

    def bind(self, node: ast.State, env: Env) -> None:
        """Binds the name of a state to its value at all positions, after each update."""
        if self.builder.scanned:
            value: Tensor | Poison = self.builder.report_error(
                "state",
                "the update of a state cannot have a state of its own",
                node.span,
                help="carry both in one state, or compute the other one before",
            )
        else:
            value = self._state(node, env)
        env.names[node.name.id] = POISON if node.name.id in env.names else value
        self.builder.note(node.name.span, value)

    def _state(self, node: ast.State, env: Env) -> Tensor | Poison:
        along = self._along(node.axis, env)
        type = self.shapes.state_type(node.type, env)
        start = self._start(node, type, env)
        if along is None or type is None or isinstance(start, Poison):
            return self.builder.skip(node.value, node.start)
        if along.size.vars & type.vars:
            return self.builder.report_error(
                "axis",
                f"the state is carried along `{along}`, so it cannot have this axis",
                node.type.span,
                help=f"remove `{node.axis.id}`: the type is that of one position",
            )
        if start is not None:
            type = type.with_noncausal(start.type.noncausal)
        places, first = self.builder.places, self.builder.ids
        with places.enter(node.name.id, node.name.span, True, False):
            path = places.prefix
            while True:
                self.builder.ids = first
                inner, carry, takes = self._inside(node, env, along, type)
                with (
                    self.builder.collect_nodes() as body,
                    places.enter(node.name.id, node.name.span, False),
                    self._positions(along, node.axis.id),
                ):
                    result = self.evaluators.tensor(node.value, inner)
                if isinstance(result, Poison):
                    return result
                if result.type.noncausal <= type.noncausal:
                    break
                # The state after a position is that before the next: elaborate again.
                type = type.with_noncausal(result.type.noncausal)
        what = f"the update of `{node.name.id}`"
        if not self.shapes.check(result.type, node.type, inner, what):
            return POISON
        for each in body:
            if not isinstance(each, Apply):
                return self.builder.report_error(
                    "state", "the update of a state cannot have experts", each.span or node.span
                )
        nodes = tuple(each for each in body if isinstance(each, Apply))
        used = {result.ref, *(ref for each in nodes for ref in refs(each))}
        axes = (along, *type.axes)
        scan = Scan(
            id=self.builder.new_id(),
            path=path,
            carry=carry,
            carry_type=type,
            takes=tuple(each for each in takes if each.id in used),
            body=nodes,
            result=result.ref,
            output=result.ref,
            type=Type("float", axes, None, type.noncausal),
            start=None if start is None else start.ref,
            span=node.span,
        )
        self.builder.add(scan)
        return Tensor(scan.id, scan.type)

    def _along(self, name: ast.Name, env: Env) -> Axis | None:
        """The axis of the positions, or None after a report."""
        value = env.names.get(name.id)
        match value:
            case Extent():
                return replace(value.axis, name=name.id)
            case Scalar(value=int() as size) if not isinstance(size, bool) and size > 0:
                return Axis(name.id, Size.of(size), (), value.origin)
            case None:
                axes = [key for key, each in env.names.items() if isinstance(each, Extent)]
                self.builder.report_error(
                    "unknown-name",
                    f"`{name.id}` is not an axis here",
                    name.span,
                    expected=listing(axes) or "the axis of a tensor",
                    help=did_you_mean(name.id, axes),
                )
            case Poison():
                pass
            case _:
                self.builder.report_error(
                    "axis",
                    "the name of an axis is needed here",
                    name.span,
                    found=describe(value),
                )
        return None

    def _start(self, node: ast.State, type: Type | None, env: Env) -> Tensor | Poison | None:
        """The state before the first position; None for zeros."""
        if node.start is None:
            return None
        start = self.evaluators.tensor(node.start, env)
        if isinstance(start, Poison) or type is None:
            return POISON
        what = f"the start of `{node.name.id}`"
        return start if self.shapes.check(start.type, node.type, env, what) else POISON

    def _inside(
        self, node: ast.State, env: Env, along: Axis, type: Type
    ) -> tuple[Env, str, list[Slice]]:
        """The names that an update sees, the id of the carry, and the slices of values."""
        carry = self.builder.new_id()
        inner = replace(env, names=dict(env.names))
        takes: dict[str, Slice] = {}
        for name, value in env.names.items():
            if not isinstance(value, Tensor) or not _begins_with(value.type, along):
                continue
            if value.ref not in takes:
                one = replace(value.type, axes=value.type.axes[1:])
                takes[value.ref] = Slice(self.builder.new_id(), value.ref, one)
            axes = value.type.axes[1:]
            each = takes[value.ref]
            inner.names[name] = Tensor(each.id, replace(each.type, axes=axes))
        inner.names[node.name.id] = Tensor(carry, type)
        return inner, carry, list(takes.values())

    @contextmanager
    def _positions(self, along: Axis, name: str) -> Iterator[None]:
        """Inside, operators see one position along an axis."""
        outer, self.builder.scanned = self.builder.scanned, (along, name)
        try:
            yield
        finally:
            self.builder.scanned = outer


def _begins_with(type: Type, along: Axis) -> bool:
    """Whether a value has an axis as its first one; an axis of fixed size also by its name."""
    if not type.axes or type.axes[0].size != along.size:
        return False
    return along.size.value is None or type.axes[0].name == along.name
