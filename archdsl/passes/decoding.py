"""Incremental decoding, derived: what of a model is computed once, and what step by step.

A model that is proved causal along its tokens can be fed them a few at a time. What does not
depend on the tokens is computed once for a sequence (the memory of an encoder, and the keys
and values that each layer makes of it); of each attention the keys and values are kept, and
grow; all else is computed for the new positions alone. No spec says any of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from archdsl.diagnostics import ArchError, Diagnostic, Note
from archdsl.graph.nodes import Apply, Graph, Node, Stack, refs, walk
from archdsl.graph.sites import place
from archdsl.graph.types import Size, Type
from archdsl.passes.open_attention import open_attention
from archdsl.passes.prune import live


@dataclass(frozen=True)
class State:
    """What a step hands to the next one, for each of `copies` of the stacks around it.

    `past`: keys and values that grow with each token, up to the last `window` ones where
    attention sees no more. Otherwise a value made once for a sequence. `path` is where it is
    made, `{}` standing for the number of a copy.
    """

    ref: str
    path: str
    copies: int
    types: tuple[Type, ...]
    past: bool
    window: int | None = None

    @property
    def elements(self) -> Size:
        """How many numbers it has, in the sizes of the varying axes."""
        types = [_last(type, self.window) if self.window else type for type in self.types]
        return sum((type.elements for type in types), start=Size.of(0)) * self.copies

    def __str__(self) -> str:
        kinds = " and ".join(map(str, self.types))
        times = f" * {self.copies}" if self.copies > 1 else ""
        how = "grows" if self.past else "once"
        how += f" to the last {self.window}" if self.window else ""
        return f"{self.path}: {kinds}{times}, {how}"


@dataclass(frozen=True)
class Decoding:
    """A model's graph, its attention opened, and how it is computed step by step.

    `tokens` is the input that comes step by step, along `axis`; `once` are the values that do
    not depend on it; `logits` is the output.
    """

    graph: Graph
    tokens: str
    axis: str
    logits: str
    once: frozenset[str]
    states: tuple[State, ...]


def decoding(graph: Graph) -> Decoding:
    """How the logits of a model are computed step by step.

    Raises `ArchError`, code `generation`, for a model that predicts no tokens, and code
    `not-causal`, with the line, for what cannot be computed without later tokens.
    """
    tokens, logits = _predicted(graph)
    (axis,) = next(i.type.vars for i in graph.inputs if i.name == tokens)
    (ref,) = (ref for name, ref in graph.outputs if name == logits)
    alone = replace(graph, outputs=((logits, ref),), labels=(), loss=None)
    opened = open_attention(replace(alone, nodes=live(alone.nodes, {ref})))
    stepped = _depending(opened, tokens)
    types = opened.types()
    _check(opened, axis, stepped, types)
    ids = {*types, *(i.name for i in opened.inputs)}
    states = tuple(_states(opened, stepped, types))
    return Decoding(opened, tokens, axis, logits, frozenset(ids - stepped), states)


def predicted(graph: Graph) -> tuple[str, str] | str:
    """The input of tokens and the output of logits for the one after each, by the loss; or
    why there are none."""
    loss = graph.loss
    if loss is None or loss.op != "next_token":
        return "its loss is not `next_token`"
    given = dict(loss.inputs)
    tokens = next((i.name for i in graph.inputs if i.name == given["tokens"]), None)
    logits = next((name for name, ref in graph.outputs if ref == given["logits"]), None)
    if tokens is None or logits is None:
        return "its loss is not of an input and an output"
    return tokens, logits


def _predicted(graph: Graph) -> tuple[str, str]:
    found = predicted(graph)
    if not isinstance(found, str):
        return found
    raise ArchError(
        Diagnostic(
            "generation",
            f"`{graph.name}` generates nothing: {found}",
            expected="`loss next_token(logits, tokens)` of an output and an input",
        )
    )


def _depending(graph: Graph, tokens: str) -> set[str]:
    """The values that depend on an input."""
    found = {tokens}
    before = 0
    while len(found) > before:  # what one copy of a stack makes stepped, the next one takes
        before = len(found)
        for node, _ in walk(graph.nodes):
            if isinstance(node, Stack):
                if found & {node.input, node.result}:
                    found.add(node.carry)
                if found & {node.result}:
                    found.add(node.id)
            elif found & set(refs(node)):
                found.add(node.id)
    for node, _ in walk(graph.nodes):
        if isinstance(node, Stack) and node.result in found:
            found.add(node.id)
    return found


def _check(graph: Graph, axis: str, stepped: set[str], types: dict[str, Type]) -> None:
    """Refuses what needs more than the new positions and the keys and values of the old."""
    T = Size.of(axis)
    for node, _ in walk(graph.nodes):
        if isinstance(node, Stack) or node.id not in stepped:
            continue
        sizes = [a.size for a in node.type.axes if axis in a.size.vars]
        squared = node.op in ("alibi", "relative_bias")
        alone = sizes == ([T, T] if squared else [T])
        mixes = axis in node.type.mixed
        if node.op == "attend" and not mixes:
            alone = alone and dict(node.attrs)["causal"] == (dict(node.inputs)["k"] in stepped)
        if alone and not mixes:
            continue
        why = "looks at later positions" if mixes else f"has no position for each of `{axis}`"
        raise ArchError(
            Diagnostic(
                "not-causal",
                f"`{graph.name}` cannot be computed step by step: {node.op} {why}",
                node.span,
                found=str(node.type),
                notes=(Note("decoding feeds the tokens one after the other", None),),
            )
        )


def _states(graph: Graph, stepped: set[str], types: dict[str, Type]) -> Iterator[State]:
    """The keys and values of causal attention, and what is made once and used by steps."""
    where: dict[str, tuple[str, int]] = {each.name: (each.name, 1) for each in graph.inputs}
    kept: list[str] = []
    for node, around in walk(graph.nodes):
        copies = prod(stack.count for stack in around)
        path = place(node.path, around, ("{}",) * len(around))
        where[node.id] = (path, copies)
        used = _uses(node)
        if node.id in stepped:
            kept += [ref for ref in used if ref not in stepped and ref not in kept]
        if isinstance(node, Apply) and node.op == "attend" and node.attr["causal"]:
            keys, values = (types[dict(node.inputs)[name]] for name in "kv")
            (bound,) = (v.bound for v in graph.varying if Size.of(v.name) == keys.axes[0].size)
            window = node.attr["window"]
            if not isinstance(window, int) or window >= bound:
                window = None
            yield State(node.id, path, copies, (keys, values), True, window)
    for ref in kept:
        path, copies = where[ref]
        yield State(ref, path, copies, (types[ref],), past=False)


def _last(type: Type, count: int) -> Type:
    """A type of so many positions."""
    first, *others = type.axes
    return replace(type, axes=(replace(first, size=Size.of(count)), *others))


def _uses(node: Node) -> tuple[str, ...]:
    return refs(node) if isinstance(node, Apply) else (node.input, node.result)
