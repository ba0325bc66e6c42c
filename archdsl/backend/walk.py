"""A graph computed: the walk over its nodes, each through its row of the emitter's table."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from functools import partial

from tinygrad import Tensor

from archdsl.backend.copies import owned, through
from archdsl.backend.emit import EMIT
from archdsl.backend.kernels.products import Finish
from archdsl.backend.tensors import shape
from archdsl.backend.use import Run, Use
from archdsl.graph.nodes import Apply, Node, Stack
from archdsl.graph.ops import OPS
from archdsl.graph.sites import place, site
from archdsl.graph.types import Size
from archdsl.passes.epilogues import Epilogue


def forward(run: Run, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a graph by name."""
    values = _values(run, inputs)
    return {name: values[ref] for name, ref in run.graph.outputs}


def loss(run: Run, inputs: Mapping[str, Tensor]) -> Tensor:
    """The loss of a graph that has one, for its inputs and labels: []."""
    assert run.graph.loss is not None
    return _apply(run, run.graph.loss, _values(run, inputs), (), ())


def prepared(run: Run, inputs: Mapping[str, Tensor], once: Container[str] = ()) -> None:
    """Has a run know its graph, of which some may be computed `once`, apart from the rest; the
    sizes of inputs, and their true lengths."""
    graph = run.graph
    run.knows(graph, once)
    for each in (*graph.inputs, *graph.labels):
        if each.name in inputs:
            sizes = shape(inputs[each.name])[1:]
            for axis, size in zip(each.type.axes, sizes, strict=True):
                run.sizes |= {
                    name: size for name in axis.size.vars if axis.size == Size.of(name)
                }
    pads = {each.name: each.pad for each in graph.inputs}
    for varying in graph.varying:
        ragged = varying.ragged
        if ragged and ragged in inputs and (pad := pads[ragged]) is not None:
            run.lengths[varying.name] = inputs[ragged].ne(pad).sum(1)  # [B]


def _values(run: Run, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    graph = run.graph
    prepared(run, inputs)
    values = dict(inputs)
    _walk(run, graph.nodes, values, (), ())
    return values


def _walk(
    run: Run,
    nodes: tuple[Node, ...],
    values: dict[str, Tensor],
    around: tuple[Stack, ...],
    copy: tuple[int, ...],
) -> None:
    for node in nodes:
        match node:
            case Apply():
                if node.id not in run.epilogues.within:
                    values[node.id] = _apply(run, node, values, around, copy)
            case Stack():
                one = partial(_copy, run, node, values, around, copy)
                own = partial(owned, run, place(node.path, around, copy))
                values[node.id] = through(run, node.count, values[node.input], one, own)


def _copy(
    run: Run,
    node: Stack,
    values: dict[str, Tensor],
    around: tuple[Stack, ...],
    copy: tuple[int, ...],
    i: int,
    x: Tensor,
) -> Tensor:
    """What the i-th copy of a block makes of x."""
    values[node.carry] = x
    _walk(run, node.body, values, (*around, node), (*copy, i))
    return values[node.result]


def _apply(
    run: Run,
    node: Apply,
    values: Mapping[str, Tensor],
    around: tuple[Stack, ...],
    copy: tuple[int, ...],
) -> Tensor:
    use = used(run, node, values.__getitem__, around, copy)
    return EMIT[use.op](use)


def used(
    run: Run,
    node: Apply,
    find: Callable[[str], Tensor],
    around: tuple[Stack, ...],
    copy: tuple[int, ...],
) -> Use:
    """What an operator's function is given: its tensors, by their ids, and its weights. The
    last part of an epilogue is made by the product in front of it."""
    epilogue = run.epilogues.last.get(node.id, Epilogue(node))
    node = epilogue.product
    here = site(run.graph, node, run.types)
    path = node.attr.get("tied") or place(node.path, around, copy)
    names = (
        ["weight"] if node.attr.get("tied") else [w.name for w in OPS[node.op].weights(here)]
    )
    weights = {name: run.weights[f"{path}.{name}"] for name in names}
    quantized = {n: q for n in names if (q := run.quantized.get(f"{path}.{n}"))}
    tensors = {param: find(ref) for param, ref in node.inputs}
    times, plus = (find(ref) if ref else None for ref in (epilogue.times, epilogue.plus))
    finish = Finish(epilogue.act, times, plus)
    return Use(node.op, tensors, here.tensors, weights, here.attr, run, quantized, finish)
