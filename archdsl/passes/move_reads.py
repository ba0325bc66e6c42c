"""Moves what reads a state into its scan, so that not all states are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from archdsl.graph.contraction import Pattern, parse_pattern
from archdsl.graph.nodes import Apply, Graph, Node, Scan, Slice, Stack, refs
from archdsl.passes.rewrite import Builder


def move_reads(graph: Graph) -> Graph:
    """Moves a `contract` that alone reads a state into the body of the scan.

    >>> from archdsl.graph.parser import parse
    >>> from archdsl.graph.printer import show
    >>> pattern = '"T K V, T K -> T V"'
    >>> graph = parse(f'''graph G init normal(std = 0.02)
    ... axis T <= 8
    ... input x: float[T, 3, 4]
    ... input q: float[T, 3]
    ... %5 = scan @ s: float[T, 3, 4]
    ...   carry %1: float[3, 4]
    ...   each %2 = x: float[3, 4]
    ...   %3 = scale(%1; by = 0.5) @ s.scale: float[3, 4]
    ...   %4 = add(%3, other = %2) @ s.add: float[3, 4]
    ...   yield %4
    ... %6 = contract(%5, other = q; pattern = {pattern}) @ contract: float[T, V = 4]
    ... output y = %6
    ... ''')
    >>> print(show(move_reads(graph)), end="")
    graph G init normal(std = 0.02)
    axis T <= 8
    input x: float[T, 3, 4]
    input q: float[T, 3]
    %6 = scan @ s: float[T, V = 4]
      carry %1: float[3, 4]
      each %2 = x: float[3, 4]
      each %7 = q: float[3]
      %3 = scale(%1; by = 0.5) @ s.scale: float[3, 4]
      %4 = add(%3, other = %2) @ s.add: float[3, 4]
      %8 = contract(%4, other = %7; pattern = "K V, K -> V") @ contract: float[V = 4]
      yield %4
      read %8
    output y = %6
    """
    builder = Builder(graph)
    uses = Counter(_uses(graph))
    return replace(graph, nodes=_move(builder, graph.nodes, uses))


def _move(builder: Builder, nodes: tuple[Node, ...], uses: Counter[str]) -> tuple[Node, ...]:
    scans = {n.id: n for n in nodes if isinstance(n, Scan) and n.output == n.result}
    moved: dict[str, Scan] = {}  # by the id of what reads them
    for node in nodes:
        if isinstance(node, Apply) and node.op == "contract":
            read = [ref for ref in refs(node) if ref in scans and uses[ref] == 1]
            if len(read) == 1 and (found := _with_read(builder, scans[read[0]], node)):
                moved[node.id] = found
                del scans[read[0]]
    gone = {id for id in (n.id for n in nodes if isinstance(n, Scan)) if id not in scans}
    gone -= {n.id for n in nodes if isinstance(n, Scan) and n.output != n.result}
    remaining: list[Node] = []
    for node in nodes:
        if isinstance(node, Stack):
            bodies = (replace(b, nodes=_move(builder, b.nodes, uses)) for b in node.bodies)
            node = replace(node, bodies=tuple(bodies))
        if node.id not in gone:
            remaining.append(moved.get(node.id, node))
    return tuple(remaining)


def _with_read(builder: Builder, scan: Scan, node: Apply) -> Scan | None:
    """A scan that reads its state by `node`, which comes after it; None if it cannot."""
    pattern, inputs = parse_pattern(str(node.attr["pattern"])), dict(node.inputs)
    refs = list(inputs.values())
    name = pattern.operands[refs.index(scan.id)][0]
    if pattern.result[:1] != (name,):
        return None
    takes, slices = list(scan.takes), dict[str, str]()
    for ref, names in zip(refs, pattern.operands, strict=True):
        if name not in names or ref == scan.id:
            continue
        if names[0] != name:
            return None
        known = next((each for each in takes if each.of == ref), None)
        if known is None:
            all = builder.types[ref]
            known = Slice(builder.id(), ref, replace(all, axes=all.axes[1:]))
            builder.types[known.id] = known.type
            takes.append(known)
        slices[ref] = known.id
    slices[scan.id] = scan.result
    one = replace(
        node,
        id=builder.id(),
        inputs=tuple((param, slices.get(ref, ref)) for param, ref in node.inputs),
        attrs=tuple(
            (k, _without(pattern, name) if k == "pattern" else v) for k, v in node.attrs
        ),
    )
    one = builder.typed(one)
    body = (*scan.body, one)
    return replace(
        scan, id=node.id, takes=tuple(takes), body=body, output=one.id, type=node.type
    )


def _without(pattern: Pattern, name: str) -> str:
    """A pattern without the name of the positions."""
    sides = (" ".join(n for n in names if n != name) for names in pattern.operands)
    return f"{', '.join(sides)} -> {' '.join(n for n in pattern.result if n != name)}"


def _uses(graph: Graph) -> Iterator[str]:
    """The id of each use of a value."""

    def of(nodes: tuple[Node, ...]) -> Iterator[str]:
        for node in nodes:
            yield from refs(node)
            if isinstance(node, Stack):
                yield from (*node.results, *(each.of for each in node.gives))
                for body in node.bodies:
                    yield from of(body.nodes)

    yield from of(graph.nodes)
    yield from (ref for _, ref in graph.outputs)
    yield from (ref for term in graph.losses for ref in refs(term.loss))
