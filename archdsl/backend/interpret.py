"""Runs a program: walks over its nodes, and computes each with its function in EMIT.

It runs whole sequences, decoding steps, training, and quantized weights.
"""

from __future__ import annotations

import functools
import operator
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

from tinygrad import Tensor, dtypes

from archdsl.backend.context import ExecutionContext, OpCall
from archdsl.backend.emit import EMIT
from archdsl.backend.kernels.products import Epilogue
from archdsl.backend.layer_replay import layer_tensors, run_layers
from archdsl.backend.linear_scan import linear_scan
from archdsl.backend.losses import LOSSES, Mean
from archdsl.backend.mixture import mixture
from archdsl.backend.recompute import Tape
from archdsl.backend.scan import scan
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.backend.tinygrad_seam import DType
from archdsl.frozen import Frozen
from archdsl.graph.nodes import (
    Apply,
    Graph,
    Layers,
    Mixture,
    Node,
    Repeated,
    Scan,
    Slice,
    Stack,
    outer_refs,
    walk,
)
from archdsl.graph.ops import OPERATORS
from archdsl.graph.rules import POINTWISE
from archdsl.graph.sites import full_path, site
from archdsl.graph.types import Size
from archdsl.passes.recurrences import plan
from archdsl.passes.select_kernels import part_names
from archdsl.passes.widen import ELEMENTWISE

# A tensor, a tuple of them where a value has one for each layer, or a variable of tinygrad's.
Value: TypeAlias = Any
FEW = 8  # so many positions of a scan are computed at once without a kernel
Layer: TypeAlias = tuple[int, ...]  # the numbers of the layers that we are in

# Operators of values without an input, such as weights: the batch axis of these has size 1.
_SAME_FOR_EACH = POINTWISE | {"weight", "reshape", "slice", "mean", "softmax"}


def forward(context: ExecutionContext, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """The outputs of a program by name. Caches are written in place, and are not outputs."""
    values = _values(context, inputs).values
    caches = context.program.caches
    outputs = (each for each in context.graph.outputs if each[0] not in caches)
    return {name: _for_rows(values[ref], context.program.batch) for name, ref in outputs}


def loss(context: ExecutionContext, inputs: Mapping[str, Value]) -> Tensor:
    """The sum of the losses of a program for its inputs and labels: []."""
    pairs = zip(context.graph.losses, loss_terms(context, inputs), strict=True)
    return functools.reduce(operator.add, (mean.value() * each.weight for each, mean in pairs))


def loss_terms(context: ExecutionContext, inputs: Mapping[str, Value]) -> list[Mean]:
    """Each loss of a program, without its weight, as a total and a count."""
    run = _values(context, inputs)
    return [LOSSES[each.loss.op](run.operands(each.loss)) for each in context.graph.losses]


def measured(graph: Graph, inputs: Mapping[str, Value]) -> tuple[int, dict[str, int]]:
    """The batch size of the inputs, and the sizes of the varying axes."""
    batch, sizes = 1, dict[str, int]()
    for each in (*graph.inputs, *graph.labels):
        if each.name in inputs and each.type.axes:
            found = _sizes(inputs[each.name])
            layers = len(found) - len(each.type.axes) - 1
            batch = found.pop(max(layers, 0))
            for axis, size in zip(each.type.axes[max(layers, 0) :], found, strict=False):
                sizes |= {name: size for name in axis.size.vars if axis.size == Size.of(name)}
    return batch, sizes


def _sizes(value: Value) -> list[int]:
    layers = []
    while isinstance(value, tuple):
        layers.append(len(value))
        value = value[0]
    return [*layers, *shape(value)]


def _values(context: ExecutionContext, inputs: Mapping[str, Value]) -> _Run:
    _measure_lengths(context, inputs)
    run = _Run(context, dict(inputs))
    run.walk(context.graph.nodes)
    return run


def _measure_lengths(context: ExecutionContext, inputs: Mapping[str, Value]) -> None:
    """Sets the true lengths of ragged axes: given, or the number of tokens without padding."""
    known = {each.name: each for each in context.graph.inputs}
    for axis in context.graph.varying:
        if axis.ragged is not None and axis.ragged in inputs:
            each, value = known[axis.ragged], inputs[axis.ragged]
            counted = value.ne(each.pad).sum(1) if each.pad is not None else value
            context.lengths[axis.name] = counted  # [B]


class _Run(Frozen):
    """A walk over a program: its values so far by id, and the layers that we are in.

    What it passes on are its methods, not nested functions: closures would be reference cycles,
    which keep all values alive until garbage collection, and tinygrad allocates memory for
    values that are alive.
    """

    context: ExecutionContext
    values: dict[str, Value]
    around: tuple[Repeated, ...] = ()
    layer: Layer = ()

    def within(self, node: Repeated, i: int) -> _Run:
        """The same run inside layer i of a stack, or in expert i of a mixture."""
        return _Run(self.context, self.values, (*self.around, node), (*self.layer, i))

    def path(self, inside: str) -> str:
        return full_path(inside, self.around, self.layer)

    def walk(self, nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            match node:
                case Apply():
                    self.values[node.id] = self.call(node)
                case Stack():
                    self.stack(node)
                case Mixture():
                    x, gates = self.values[node.input], self.values[node.gates]
                    expert = partial(self.expert, node)
                    self.values[node.id] = mixture(self.context, node, x, gates, expert)
                case Scan():
                    self.scan(node)

    def scan(self, node: Scan) -> None:
        context, values = self.context, self.values
        how = plan(node, context.types)
        few = node.along.size.at(context.sizes) < FEW
        if how is None or (few and not node.kernels):
            found, end = scan(context, node, values, partial(self.position, context))
        else:
            found, end = linear_scan(context, node, how, values, self.position)
        values[node.id] = make_contiguous(found.cast(self.dtype(node)))
        if node.final is not None:
            # The state is written in place next: whatever reads the old one is computed before.
            end = end.contiguous()
            Tensor.realize(values[node.id], end)
            values[node.final] = end

    def position(
        self, context: ExecutionContext, node: Apply, seen: Mapping[str, Value]
    ) -> Tensor:
        """An operator at the positions of a scan, with values of its own."""
        return _Run(context, dict(seen), self.around, self.layer).call(node)

    def dtype(self, node: Scan) -> DType:
        """The dtype of the value of a scan: that of the floats that it takes."""
        floats = [v for e in node.takes if (v := self.values[e.of]).is_floating_point()]
        if self.context.wide or not floats:
            return dtypes.float16 if self.context.wide else dtypes.float32
        found: DType = floats[0].dtype
        return found

    def stack(self, node: Stack) -> None:
        context, values = self.context, self.values
        one = partial(self.one_layer, node)
        x = values[node.input]
        x = _in_float32(x) if node.id in context.wide else x
        if (each := _for_rows(x, context.program.batch)) is not x:
            x = make_contiguous(each)
        if context.tape is not None and not self.around:
            self.recomputed(node, x, context.tape)
            return
        given = [each for each in node.gives if each.id not in context.caches]
        if not given:
            own = partial(self.own, node)
            kinds = map(node.kind, range(node.count))
            values[node.id] = run_layers(context.realize_layer, kinds, x, one, own)
            return
        x = context.realize_layer(x)
        found: dict[str, list[Value]] = defaultdict(list)
        for i in range(node.count):
            x = context.realize_layer(one(i, x))
            for each in node.bodies[node.kind(i)].gives:
                found[each.id].append(values[each.of])
        values[node.id] = x
        values |= {each.id: tuple(found[each.id]) for each in given}

    def recomputed(self, node: Stack, x: Tensor, tape: Tape) -> None:
        """A stack whose layers are computed again for the gradient.

        Tensors that are computed lose their expression, and with it their gradient. So values
        from outside are cut, and all others get their expression back.
        """
        values, outside = self.values, {ref for body in node.bodies for ref in outer_refs(body)}
        tensors = {id: each for id, each in values.items() if isinstance(each, Tensor)}
        kept = {id: each.uop for id, each in tensors.items() if tape.depends(each)}
        given = x.uop
        values |= {id: tape.cut(Tensor(kept[id])) for id in kept if id in outside}
        kinds = [node.kind(i) for i in range(node.count)]
        one, own = partial(self.one_layer, node), partial(self.own, node)
        values[node.id] = tape.stack(kinds, Tensor(given), one, own)
        values |= {id: Tensor(uop) for id, uop in kept.items() if id not in outside}

    def one_layer(self, node: Stack, i: int, x: Tensor) -> Tensor:
        """The output of layer i of a stack for x."""
        inside = Layers(node, node.kind(i))
        body, n = inside.inside, node.layers(inside.kind).index(i)
        self.values[body.carry] = x
        self.values.update({each.id: self.values[each.of][n] for each in body.takes})
        self.within(inside, i).walk(body.nodes)
        result: Tensor = self.values[body.result]
        return result

    def expert(self, node: Mixture, i: int, x: Tensor) -> Tensor:
        """The output of expert i of a mixture for vectors x [N, D], the rows of its batch."""
        self.values[node.carry] = x
        self.within(node, i).walk(node.body)
        result: Tensor = self.values[node.result]
        return result

    def own(self, node: Stack, i: int) -> dict[str, Tensor]:
        """The tensors that only layer i uses: its weights, and its parts of caches."""
        path = self.path(node.place(i))
        found = (
            {}
            if node.tied
            else layer_tensors(self.context.weights, self.context.quantized, path)
        )
        if self.context.key is not None and any(
            isinstance(each, Apply) and each.op == "dropout"
            for each, _ in walk(node.bodies[node.kind(i)].nodes)
        ):
            found[" layer"] = self.context.layer_number(self.layer[0] if self.layer else i)
        kind = node.kind(i)
        for each in node.bodies[kind].takes:
            found |= _leaves(each, self.values[each.of][node.layers(kind).index(i)])
        return found

    def call(self, node: Apply) -> Tensor:
        context, op = self.context, self.operands(node)
        out = EMIT[node.op](op)
        if op.wide:
            out = _in_float32(out)
        elif context.wide and node.op in ELEMENTWISE and out.dtype == dtypes.float32:
            out = out.cast(dtypes.float16)
        if context.probe:
            context.probe(node, self.path(node.path), out)
        # A residual sum is computed once: for a single token, tinygrad would otherwise
        # recompute it from all matmuls before it, in every layer.
        return make_contiguous(out) if node.op == "add" and context.caches else out

    def operands(self, node: Apply) -> OpCall:
        """What the function of an operator receives."""
        context = self.context
        here = site(context.graph, node, context.types)
        path = str(node.attr.get("tied") or self.path(node.path))
        row = OPERATORS[node.op]
        weights = {each.name: each.path(path) for each in row.weights(here)}
        if node.attr.get("tied"):
            weights = {"weight": f"{path}.weight"}
        wide = node.id in context.wide
        tensors = {param: self.values[ref] for param, ref in node.inputs}
        # The second operands of the operators that are fused into it, by operator.
        fused = {each.op: self.values[each.other] for each in node.tail if each.other}
        if node.op not in _SAME_FOR_EACH:
            given = {param: tensors[param] for param in tensors if param not in row.positions}
            rows = max([1, *(_rows(each) for each in (*given.values(), *fused.values()))])
            tensors |= {param: _for_rows(each, rows) for param, each in given.items()}
            fused = {name: _for_rows(each, rows) for name, each in fused.items()}
        if wide and node.op in ELEMENTWISE:
            tensors = {param: _in_float32(each) for param, each in tensors.items()}
        return OpCall(
            tensors,
            here.tensors,
            {name: context.weights[full] for name, full in weights.items()},
            here.attr,
            context,
            {name: q for name, full in weights.items() if (q := context.quantized.get(full))},
            dict(zip(part_names(node, here), node.kernels, strict=True))
            if node.kernels
            else {},
            _epilogue(node, fused),
            wide,
            self.layer,
            f"{node.path} {node.id}",
        )


def _leaves(each: Slice, value: Value, name: str = "") -> dict[str, Tensor]:
    if not isinstance(value, tuple):
        return {f"{each.id}{name}": value}
    found: dict[str, Tensor] = {}
    for i, part in enumerate(value):
        found |= _leaves(each, part, f"{name} {i}")
    return found


def _in_float32(value: Value) -> Value:
    """A float value in float32; other values unchanged."""
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.cast(dtypes.float32) if floats else value


def _rows(value: Value) -> int:
    """The size of the batch axis: 1 for a value without an input, and for a number."""
    return int(value.shape[0]) if isinstance(value, Tensor) and value.ndim else 1


def _for_rows(value: Value, rows: int) -> Value:
    """A value for each row of a batch, also if it depends on no input: [B, …]."""
    same = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == 1 != rows
    return value.expand(rows, *value.shape[1:]) if same else value


def _epilogue(node: Apply, operands: Mapping[str, Value]) -> Epilogue:
    """The operators that are fused into a node, as the epilogue of its kernel."""
    act = next((each.op for each in node.tail if each.other is None), None)
    return Epilogue(act, operands.get("multiply"), operands.get("add"))
