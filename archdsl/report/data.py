"""What a report says of a model, as data for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

from archdsl.describe.breakdown import breakdown_at
from archdsl.describe.cost_curves import BATCHES, CostCurves, cost_curves, sizes
from archdsl.describe.facts import facts
from archdsl.describe.features import features
from archdsl.graph.cost import BYTES
from archdsl.graph.latents import latents
from archdsl.graph.nodes import Apply, Graph, Scan, walk
from archdsl.graph.types import Size
from archdsl.passes import optimise
from archdsl.passes.decoding_analysis import State
from archdsl.passes.program import Program
from archdsl.passes.programs import cpu_programs
from archdsl.passes.select_kernels import TINYGRAD
from archdsl.passes.split_decoding import find_tokens_and_logits, split_decoding

_WIDTH = BYTES["float32"]


def report_data(graph: Graph, levels: int = 2, programs: bool = True) -> dict[str, Any]:
    """The facts of a model, its blocks down to a level, and its cost, cache and programs.

    Bytes are in float32, flops for one example. Each axis is at its bound where a number is not
    on a curve.
    """
    lowered, curves = optimise(graph), cost_curves(graph)
    found = {
        "facts": facts(graph),
        "features": features(graph),
        "blocks": _blocks(graph, levels),
        "cost": curves.as_data(),
        "curves": [*_curves(curves)],
        "cache": _cache(lowered),
    }
    if programs:
        found["programs"] = [_program(title, each) for title, each in cpu_programs(lowered)]
    return found


def _blocks(graph: Graph, levels: int) -> list[dict[str, Any]]:
    return [
        {
            "path": each.part.path,
            "name": each.part.name,
            "level": each.part.level,
            "params": each.part.params,
            "params_share": each.params_share,
            "flops_formula": str(each.part.flops),
            "flops": each.flops,
            "flops_share": each.flops_share,
        }
        for each in breakdown_at(graph, graph.bounds, levels)
    ]


def _curves(curves: CostCurves) -> Iterator[dict[str, Any]]:
    """What grows along each varying axis, the others at their bounds; without one, along the
    batch. `flops_by_power` are the flops that grow with each power of the axis."""
    for axis in curves.axes:
        every = [curves.bounds | {axis.name: size} for size in sizes(axis)]
        powers = by_power(curves.flops, axis.name)
        yield {
            "axis": axis.name,
            "others": {name: size for name, size in curves.bounds.items() if name != axis.name},
            "sizes": list(sizes(axis)),
            "flops_by_power": {
                str(power): [part.at(at) for at in every] for power, part in powers.items()
            },
            **_columns([curves.at(at) for at in every]),
        }
    if not curves.axes:
        rows = [curves.at(batch=batch) for batch in BATCHES]
        yield {
            "axis": "batch",
            "others": {},
            "sizes": list(BATCHES),
            "flops_by_power": {"1": [row["flops"] for row in rows]},
            **_columns(rows),
        }


def _columns(rows: list[dict[str, int]]) -> dict[str, list[int]]:
    names = ("flops", "weight_bytes", "activation_bytes", "cache_bytes")
    return {name: [row[name] for row in rows] for name in names}


def by_power(size: Size, axis: str) -> dict[int, Size]:
    """The parts of a size by how many of their factors grow with an axis.

    >>> T = Size.of("T")
    >>> parts = by_power(T * T * 2 + T // 2 * T + T + 3, "T")
    >>> {power: str(part) for power, part in parts.items()}
    {2: '2 T^2 + T (T // 2)', 1: 'T', 0: '3'}
    """
    found: dict[int, Size] = {}
    for factors, times in size.terms:
        power = sum(axis in Size((((each,), 1),)).vars for each in factors)
        found[power] = found.get(power, Size.of(0)) + Size(((factors, times),))
    return dict(sorted(found.items(), reverse=True))


def _cache(graph: Graph) -> dict[str, Any]:
    """What decoding keeps, or why the model is not decoded."""
    reason = find_tokens_and_logits(graph)
    if isinstance(reason, str):
        return {"not_decoded": reason}
    plan = split_decoding(graph)
    bounds = graph.bounds
    small = bool(latents(graph))
    states = [_state(state, bounds, plan.axis, small) for state in plan.states]
    return {
        "axis": plan.axis,
        "bytes_per_token": sum(each["bytes_per_token"] for each in states),
        "bytes": sum(each["bytes"] for each in states),
        "states": states,
    }


def _state(
    state: State, bounds: dict[str, int], axis: str, has_latents: bool
) -> dict[str, Any]:
    size = state.elements * _WIDTH
    before = {**bounds, axis: max(bounds[axis] - 1, 0)}
    return {
        "path": state.path,
        "layers": state.layers,
        "type": str(state.type),
        "kind": "carried" if state.carried else "cache" if state.cache else "once",
        "window": state.window,
        # The name that the pass `keep_latents` gives.
        "latent": has_latents and state.path.endswith(".latent"),
        "formula": str(size),
        "bytes": size.at(bounds),
        "bytes_per_token": size.at(bounds) - size.at(before),
    }


def _program(title: str, program: Program) -> dict[str, Any]:
    """A program by its kernels: how often each is launched over all layers, for which
    operators, and what is fused into it."""
    launches, operators = program.launches(), Counter[tuple[str, str]]()
    fused, left = Counter[tuple[str, str]](), Counter[str]()
    for node, times in _calls(program):
        op = node.op if isinstance(node, Apply) else "state"
        kernels = [kernel for kernel in node.kernels if kernel != TINYGRAD]
        if not kernels:
            left[op] += times
        for kernel in dict.fromkeys(kernels):
            operators[kernel, op] += times
        for tail in node.tail if isinstance(node, Apply) else ():
            fused[kernels[-1] if kernels else op, tail.op] += times
    return {
        "title": title,
        "batch": program.batch,
        "sizes": dict(program.sizes),
        "dtype": program.dtype,
        "target": program.target,
        "kernels": [
            {
                "kernel": kernel,
                "launches": count,
                "operators": {op: n for (of, op), n in operators.items() if of == kernel},
                "fused": {op: n for (of, op), n in fused.items() if of == kernel},
            }
            for kernel, count in launches.most_common()
        ],
        "tinygrad": dict(left.most_common()),
        "text": str(program),
    }


def _calls(program: Program) -> Iterator[tuple[Apply | Scan, int]]:
    """The operators of a program, and in how many layers each is computed."""
    for node, around in walk(program.graph.nodes):
        if isinstance(node, Apply | Scan):
            yield node, prod(each.count for each in around)
