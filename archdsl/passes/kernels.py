"""Which kernel does what: a table of them, and the choice for every piece of work in a graph.

A piece of work is a product with a weight, the core of an attention, a norm or a lookup; of
the kernels that fit it on a target the cheapest is taken. What fits none is tinygrad's own.
Costs are in multiply-adds of one processor's lane, measured where they are not counted, and
serve to compare kernels for the same work.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

from archdsl.graph.nodes import Apply, Graph
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Site
from archdsl.graph.sites import place, sites
from archdsl.graph.types import Type
from archdsl.passes.epilogues import Epilogue, epilogues


@dataclass(frozen=True)
class Product:
    """[rows, into] times a weight [out, into]: [rows, out]."""

    rows: int
    into: int
    out: int

    def __str__(self) -> str:
        return f"[{self.rows}, {self.into}] x [{self.into}, {self.out}]"


@dataclass(frozen=True)
class Attention:
    """`queries` positions of each of `heads` heads, all rows counted, looking at `keys`.

    `size` is that of a head's queries, or of its values where they are larger.
    """

    heads: int
    queries: int
    keys: int
    size: int
    bias: bool

    def __str__(self) -> str:
        bias = ", bias" if self.bias else ""
        return f"{self.heads} heads of {self.size}, {self.queries} x {self.keys}{bias}"


@dataclass(frozen=True)
class Norm:
    """Each of `rows` rows of `width` features."""

    rows: int
    width: int
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} [{self.rows}, {self.width}]"


@dataclass(frozen=True)
class Lookup:
    """`count` rows of a table of `rows`, each of `width` features."""

    count: int
    rows: int
    width: int

    def __str__(self) -> str:
        return f"{self.count} of [{self.rows}, {self.width}]"


Work: TypeAlias = Product | Attention | Norm | Lookup


@dataclass(frozen=True)
class Kernel:
    """A row of the table: what the kernel does, where, which of it, and at what cost."""

    name: str
    work: type
    target: str
    fits: Callable[[Any], bool]
    cost: Callable[[Any], float]


TINYGRAD = "tinygrad"
CPU = "cpu"

# Scratch of a kernel lies on the stack of the thread that runs it: less than 1 MiB, where
# threads have 2 or more. It grows with these sizes; what is larger is left to tinygrad.
WIDEST_HEAD = 512  # features of a head, its gradients included
WIDEST_SUM = 2**16  # numbers that `matvec` sums, which it shortens where weights are quantized

KERNELS = (
    # Reads the weight once for three rows, as it lies.
    Kernel(
        "matvec",
        Product,
        CPU,
        lambda w: w.into <= WIDEST_SUM,
        lambda w: w.into * w.out * (4 * -(-w.rows // 3) + 1.5 * w.rows),
    ),
    # Lays the weight out anew, then has six rows share each of its numbers.
    Kernel(
        "matmul",
        Product,
        CPU,
        lambda w: w.out >= 64 and w.rows >= 6,
        lambda w: w.into * w.out * (6 + w.rows),
    ),
    # Goes through the keys for each query.
    Kernel(
        "attend_few",
        Attention,
        CPU,
        lambda w: not w.bias and w.size <= WIDEST_HEAD,
        lambda w: w.heads * w.queries * w.keys * w.size * 6,
    ),
    # Goes through them for 72 at once, six sharing each number.
    Kernel(
        "attend",
        Attention,
        CPU,
        lambda w: not w.bias and w.size <= WIDEST_HEAD,
        lambda w: w.heads * w.keys * w.size * (6 * -(-w.queries // 72) + 2.5 * w.queries + 10),
    ),
    Kernel(
        "norm",
        Norm,
        CPU,
        lambda w: w.kind != "l2",
        lambda w: w.rows * w.width,
    ),
    Kernel("embed", Lookup, CPU, lambda w: True, lambda w: w.count * w.width),
)


def choose(work: Work, target: str | None) -> str:
    """The name of the cheapest kernel for a piece of work, tinygrad's where there is none.

    >>> choose(Product(1, 768, 3072), CPU), choose(Product(128, 768, 3072), CPU)
    ('matvec', 'matmul')
    >>> choose(Product(128, 768, 3072), None)
    'tinygrad'
    """
    fitting = [
        kernel
        for kernel in KERNELS
        if kernel.target == target and isinstance(work, kernel.work) and kernel.fits(work)
    ]
    return min(fitting, key=lambda kernel: kernel.cost(work)).name if fitting else TINYGRAD


@dataclass(frozen=True)
class Choice:
    """A kernel chosen for a part of a node, whose `path` has `{}` for a copy's number."""

    node: str
    path: str
    work: Work
    kernel: str
    then: Epilogue | None = None  # what it does with its sums y

    def __str__(self) -> str:
        then = f", then {self.then}" if self.then else ""
        return f"{self.path}: {self.work}: {self.kernel}{then}"


def choices(
    graph: Graph,
    target: str | None,
    sizes: Mapping[str, int],
    seen: Mapping[str, int] | None = None,
    batch: int = 1,
    once: Container[str] = (),
) -> Iterator[Choice]:
    """The kernel for every piece of work of a graph, at these sizes of the varying axes.

    `seen` are those of what attention looks at, where a step looks at more than it computes,
    and `once` what it does not compute.
    """
    ends = epilogues(graph, once).last.values() if target else ()
    finishing = {each.product.id: each for each in ends}
    for node, around, here in sites(graph):
        path = place(node.path, around, ("{}",) * len(around))
        works = list(_works(node, here, sizes, seen or sizes, batch))
        products = [part for part, work in works if isinstance(work, Product)]
        for part, work in works:
            where = f"{path}.{part}" if part else path
            then = finishing.get(node.id) if [part] == products[-1:] else None
            yield Choice(node.id, where, work, choose(work, target), then)


def _works(
    node: Apply, here: Site, sizes: Mapping[str, int], seen: Mapping[str, int], batch: int
) -> Iterator[tuple[str, Work]]:
    def rows(type: Type) -> int:
        """All positions of all rows."""
        return batch * type.elements.at(sizes) // type.axes[-1].size.at(sizes)

    def core(type: Type, keys: Type, heads: int, size: int) -> Attention:
        queries, looked_at = type.axes[0].size.at(sizes), keys.axes[0].size.at(seen)
        return Attention(batch * heads, queries, looked_at, size, "bias" in here.tensors)

    match node.op:
        case "norm":
            yield "", Norm(rows(here.x), here.width, here.attr["kind"])
        case "embed":
            width = node.type.axes[-1].size.at(sizes)
            yield "", Lookup(rows(node.type), here.attr["vocab"], width)
        case "unembed":
            yield "", Product(rows(here.x), here.width, here.attr["vocab"])
        case "attend":
            _, heads, size = (axis.size.at(sizes) for axis in here.tensors["q"].axes)
            value = here.tensors["v"].axes[-1].size.at(sizes)
            yield "", core(node.type, here.tensors["k"], heads, max(size, value))
        case _:
            memory = here.tensors.get("over", node.type)
            for weight in OPS[node.op].weights(here):
                if weight.init == "matrix":
                    part = weight.name.removesuffix("weight").rstrip(".")
                    out, *into = weight.shape
                    looked_at = memory if part in ("k", "v") else node.type
                    yield part, Product(rows(looked_at), prod(into), out)
            if node.op == "attention":
                attr = here.attr
                yield "core", core(node.type, memory, attr["heads"], attr["head_size"])
