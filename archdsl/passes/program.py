"""A program: a graph lowered for one target at fixed sizes, as it runs and prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod

from archdsl.frozen import Frozen
from archdsl.graph.nodes import Apply, Graph, Scan, Stack, walk
from archdsl.graph.printer import show
from archdsl.graph.types import format_integer
from archdsl.graph.verify import verify
from archdsl.passes.fuse import fuse
from archdsl.passes.select_kernels import TINYGRAD, select_kernels
from archdsl.passes.widen import DTYPE, widen


class Program(Frozen):
    """A graph as it runs: calls in order, with operands, fused operators and kernels.

    Tinygrad lowers the calls that name no kernel. `batch` is the number of rows and `sizes` are
    the sizes of the varying axes. `dtype` is that of weights and of values between calls, but
    for the `wide` ones, which are float32; kernels sum in float32. `target` selects archdsl's
    own kernels, None only tinygrad's. If it `trains`, gradients are needed and nothing is
    fused. An input and an output with the same name are a cache, which is written in place and
    persists between steps.
    """

    graph: Graph
    batch: int
    sizes: tuple[tuple[str, int], ...]
    dtype: str = "float32"
    target: str | None = None
    trains: bool = False
    wide: frozenset[str] = frozenset()

    @property
    def caches(self) -> frozenset[str]:
        """The inputs that are written in place and persist between steps."""
        return frozenset(name for name, _ in self.graph.outputs) & {
            each.name for each in self.graph.inputs
        }

    def cache_values(self) -> set[str]:
        """The ids of the written caches, inside and outside of stacks."""
        found = {ref for name, ref in self.graph.outputs if name in self.caches}
        for node, _ in walk(self.graph.nodes):
            if isinstance(node, Stack):
                found |= {each.of for each in node.gives if each.id in found}
        return found

    def launches(self) -> Counter[str]:
        """How often each of archdsl's own kernels is launched, over all layers."""
        found: Counter[str] = Counter()
        for node, around in walk(self.graph.nodes):
            if isinstance(node, Apply | Scan):
                for kernel in node.kernels:
                    if kernel != TINYGRAD:
                        found[kernel] += prod(each.count for each in around)
        return found

    def __str__(self) -> str:
        return "\n".join(_lines(self)) + "\n"


def lower(
    graph: Graph,
    batch: int,
    sizes: Mapping[str, int],
    dtype: str = "float32",
    target: str | None = None,
    trains: bool = False,
) -> Program:
    """Lowers a graph after PIPELINE, or one graph of a `Decoding`, to a program."""
    if target and not trains:
        graph = fuse(graph)
    graph = verify(select_kernels(graph, target, batch, sizes))
    used = tuple((axis.name, sizes[axis.name]) for axis in graph.varying)
    wide = widen(graph) if dtype == DTYPE else frozenset()
    return Program(graph, batch, used, dtype, target, trains, wide)


def _lines(program: Program) -> Iterator[str]:
    sizes = [f"B = {format_integer(program.batch)}"]
    sizes += [f"{name} = {format_integer(size)}" for name, size in program.sizes]
    kernels = f"kernels for {program.target}" if program.target else "kernels of tinygrad"
    trains = ", with gradients" if program.trains else ""
    yield f"program {', '.join(sizes)}, {program.dtype}, {kernels}{trains}"
    if program.wide:
        yield f"in float32: {', '.join(sorted(program.wide, key=lambda id: (len(id), id)))}"
    if program.caches:
        caches = [i.name for i in program.graph.inputs if i.name in program.caches]
        yield f"caches kept between steps: {', '.join(caches)}"
    yield show(program.graph).rstrip("\n")
