"""A program: a graph lowered for one machine, at fixed sizes, as it is run and printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from archdsl.frozen import Frozen
from archdsl.graph.nodes import Apply, Graph, Stack, walk
from archdsl.graph.printer import show
from archdsl.graph.types import format_integer
from archdsl.graph.verify import verify
from archdsl.passes.fuse import fuse
from archdsl.passes.select_kernels import TINYGRAD, select_kernels


class Program(Frozen):
    """What runs: a graph whose calls are in order, each with its operands, the operators fused
    behind it, and the kernels that it launches; tinygrad lowers what names none.

    `batch` rows at `sizes` of the varying axes, in `dtype`, which is that of the weights and of
    all values between calls; kernels sum in float32. `target` are the kernels of ours that may
    be used, None for tinygrad's alone; a program that `trains` has gradients, so that nothing
    is fused. An input and an output of one name is a cache: written in place, and kept from
    step to step.
    """

    graph: Graph
    batch: int
    sizes: tuple[tuple[str, int], ...]
    dtype: str = "float32"
    target: str | None = None
    trains: bool = False

    @property
    def caches(self) -> frozenset[str]:
        """The inputs that are written in place and kept from step to step."""
        return frozenset(name for name, _ in self.graph.outputs) & {
            each.name for each in self.graph.inputs
        }

    def cache_values(self) -> set[str]:
        """The ids of the caches as they are written, in the bodies of stacks and outside."""
        found = {ref for name, ref in self.graph.outputs if name in self.caches}
        for node, _ in walk(self.graph.nodes):
            if isinstance(node, Stack):
                found |= {each.of for each in node.gives if each.id in found}
        return found

    def launches(self) -> Counter[str]:
        """How often each kernel of ours is launched, all layers counted."""
        found: Counter[str] = Counter()
        for node, around in walk(self.graph.nodes):
            if isinstance(node, Apply):
                for kernel in node.kernels:
                    if kernel != TINYGRAD:
                        times = 1
                        for stack in around:
                            times *= stack.count
                        found[kernel] += times
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
    """The program of a graph that PIPELINE has been through, or of a half of a decoding."""
    if target and not trains:
        graph = fuse(graph)
    graph = verify(select_kernels(graph, target, batch, sizes))
    used = tuple((axis.name, sizes[axis.name]) for axis in graph.varying)
    return Program(graph, batch, used, dtype, target, trains)


def _lines(program: Program) -> Iterator[str]:
    sizes = [f"B = {format_integer(program.batch)}"]
    sizes += [f"{name} = {format_integer(size)}" for name, size in program.sizes]
    kernels = f"kernels for {program.target}" if program.target else "kernels of tinygrad"
    trains = ", with gradients" if program.trains else ""
    yield f"program {', '.join(sizes)}, {program.dtype}, {kernels}{trains}"
    if program.caches:
        kept = [i.name for i in program.graph.inputs if i.name in program.caches]
        yield f"kept from step to step: {', '.join(kept)}"
    yield show(program.graph).rstrip("\n")
