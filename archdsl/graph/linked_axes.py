"""Which axes of an operator's tensors are one axis, so that they can be split over devices.

A matrix product makes the axis of its rows, and pointwise operators keep it. Attention does not
mix its heads. A matrix product then adds up over the axis: each device has a part of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from archdsl.frozen import Frozen
from archdsl.graph.axes import parse_pattern
from archdsl.graph.contraction import parse_pattern as parse_contraction
from archdsl.graph.elementwise import is_larger
from archdsl.graph.rules import POINTWISE
from archdsl.graph.signature import Site

RESULT = "->"  # the name of an operator's result beside those of its parameters and weights

Place: TypeAlias = tuple[str, int]  # a tensor of an operator, and the number of an axis


class Links(Frozen):
    """The axes of an operator, in groups that are one axis.

    - `same`: it computes each position of these by itself.
    - `summed`: it adds up over these, `sums` times.
    - `whole`: it needs all positions of these, and of the axes in no group.
    """

    same: tuple[tuple[Place, ...], ...] = ()
    summed: tuple[tuple[Place, ...], ...] = ()
    whole: tuple[tuple[Place, ...], ...] = ()
    sums: int = 1


def links(op: str, site: Site, result: int) -> Links:
    """The links of an operator whose result has so many axes.

    >>> from archdsl.graph.types import Axis, Size, Type
    >>> x = Type("float", (Axis("T", Size.of("T")), Axis("D", Size.of(4))))
    >>> found = links("linear", Site({"x": x}, {"dim": 8, "bias": False}, {}, {}), 2)
    >>> found.same
    ((('x', 0), ('->', 0)), (('weight', 0), ('bias', 0), ('->', 1)))
    >>> found.summed
    ((('x', 1), ('weight', 1)),)
    """
    rule = _pointwise if op in POINTWISE else RULES.get(op)
    return rule(site, result) if rule else Links()


def _pointwise(site: Site, result: int) -> Links:
    """The tensors of `MATCHED` operators may lack axes of the larger one."""
    x, other = site.x, site.tensors.get("other")
    groups = [[("x", i), (RESULT, i)] for i in range(result)]
    if other is not None:
        smaller = "other" if is_larger(x, other) else "x"
        along = site.attr.get("along") or range(len(site.tensors[smaller].axes))
        groups = [[("other" if smaller == "x" else "x", i), (RESULT, i)] for i in range(result)]
        for mine, i in enumerate(along):
            groups[i].append((smaller, mine))
    return Links(tuple(map(tuple, groups)))


def _each(count: int, x: str = "x") -> Iterable[tuple[Place, ...]]:
    """The first axes of a tensor, which the result has too."""
    return (((x, i), (RESULT, i)) for i in range(count))


def _product(site: Site, result: int) -> Links:
    last = result - 1
    rows = (("weight", 0), ("bias", 0), (RESULT, last))
    return Links((*_each(last), rows), ((("x", last), ("weight", 1)),))


def _embed(site: Site, result: int) -> Links:
    last = result - 1
    return Links((*_each(last), (("weight", 1), (RESULT, last))), ((("weight", 0),),))


def _weight(site: Site, result: int) -> Links:
    return Links(tuple(_each(result, "")))


def _vectors(site: Site, result: int) -> Links:
    """The features of a vector belong together."""
    last = result - 1
    features = (("x", last), ("weight", 0), ("bias", 0), (RESULT, last))
    return Links(tuple(_each(last)), whole=(features,))


def _positions(site: Site, result: int) -> Links:
    last = result - 1
    return Links(tuple(_each(last)), whole=((("x", last), ("weight", 1), (RESULT, last)),))


def _heads(site: Site, result: int) -> Links:
    """Rotary positions rotate features by the position; heads are apart."""
    return Links(tuple((("x", i), (RESULT, i)) for i in range(1, result - 1)))


def _attend(site: Site, result: int) -> Links:
    heads = [(name, len(site.tensors[name].axes) - 2) for name in "qkv"]
    if (bias := site.tensors.get("bias")) is not None:
        heads.append(("bias", len(bias.axes) - 3))
    if "sink" in site.tensors:
        heads.append(("sink", 0))
    return Links(((*heads, (RESULT, result - 2)),))


def _reshape(site: Site, result: int) -> Links:
    """A merged axis is split as the first of its axes is."""
    before, after = (
        {names[0]: i for i, names in enumerate(side) if names}
        for side in parse_pattern(site.attr["pattern"])
    )
    shared = (name for name in before if name in after)
    return Links(tuple((("x", before[name]), (RESULT, after[name])) for name in shared))


def _contract(site: Site, result: int) -> Links:
    pattern = parse_contraction(site.attr["pattern"])
    places: dict[str, list[Place]] = {name: [] for name in pattern.names}
    for param, names in zip(site.tensors, pattern.operands, strict=True):
        for i, name in enumerate(names):
            places[name].append((param, i))
    for i, name in enumerate(pattern.result):
        places[name].append((RESULT, i))
    return Links(
        tuple(tuple(places[name]) for name in pattern.result),
        tuple(tuple(places[name]) for name in pattern.dropped),
    )


def _logits(site: Site, result: int) -> Links:
    """A softmax over the classes: their maximum and the sum of exponentials, then that of the
    right class, and the mean of all with `smoothing`."""
    sums = 2 + ("smoothing" in site.attr) + bool(site.attr.get("smoothing"))
    classes = (("logits", len(site.tensors["logits"].axes) - 1),)
    return Links(summed=(classes,), sums=sums)


RULES: dict[str, Callable[[Site, int], Links]] = {
    "dropout": _pointwise,
    "linear": _product,
    "unembed": _product,
    "embed": _embed,
    "weight": _weight,
    "norm": _vectors,
    "posenc": _positions,
    "rotary": _heads,
    "attend": _attend,
    "reshape": _reshape,
    "contract": _contract,
    "next_token": _logits,
    "cross_entropy": _logits,
    "z_loss": _logits,
}
"""Operators that keep some axes apart; all others need their tensors whole."""
