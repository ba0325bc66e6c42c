"""The rules of `contract` and `take`, whose patterns name the axes of two tensors.

    H K, H V -> H K V

Names stand for the axes of each tensor in order, as in the patterns of `reshape`. An axis that
the right side does not name is summed over by `contract`, and looked up in by `take`. The
notation is that of einsum (Rogozhnikov 2022).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from archdsl.diagnostics import listing
from archdsl.frozen import Frozen
from archdsl.graph.signature import Mismatch, Site
from archdsl.graph.types import Axis, Size, Type


class Pattern(Frozen):
    """The names of the axes of each tensor, and of the result."""

    operands: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All names on the left, in the order of their first use."""
        return tuple(dict.fromkeys(name for names in self.operands for name in names))

    @property
    def dropped(self) -> tuple[str, ...]:
        """The names that the result lacks."""
        return tuple(name for name in self.names if name not in self.result)

    def shared(self, name: str) -> bool:
        """Whether several tensors have an axis of this name."""
        return sum(name in names for names in self.operands) > 1


def parse_pattern(pattern: str) -> Pattern:
    """Parses a pattern.

    >>> parse_pattern("i k, j k -> i j")
    Pattern(operands=(('i', 'k'), ('j', 'k')), result=('i', 'j'))
    """
    sides = pattern.split("->")
    if len(sides) != 2:
        raise _pattern_error("a pattern has two sides with `->` between them", pattern)
    found = Pattern(tuple(_names(part, pattern) for part in sides[0].split(",")), ())
    found = replace(found, result=_names(sides[1], pattern))
    if unknown := sorted(set(found.result) - set(found.names)):
        raise _pattern_error(f"{listing(unknown, 'and')} must appear on the left", pattern)
    return found


def _names(text: str, pattern: str) -> tuple[str, ...]:
    names = tuple(text.split())
    for name in names:
        if not name.isidentifier():
            raise _pattern_error(f"`{name}` is not the name of an axis", pattern)
    if len(set(names)) < len(names):
        raise _pattern_error("a name appears twice for one tensor", pattern)
    return names


def _axes(site: Site, pattern: Pattern) -> dict[str, Axis]:
    """The axis of each name, the same size in all tensors that have it."""
    text, params = site.attr["pattern"], tuple(site.tensors)
    if len(pattern.operands) != len(params):
        wanted, given = len(pattern.operands), len(params)
        raise _pattern_error(f"the pattern is for {wanted} tensors, not {given}", text)
    found: dict[str, Axis] = {}
    for param, names in zip(params, pattern.operands, strict=True):
        axes = site.tensors[param].axes
        if len(axes) != len(names):
            raise Mismatch(
                "axis",
                "the pattern has another number of axes than this tensor",
                param,
                expected=f"[{', '.join(names)}]",
                found=str(site.tensors[param]),
            )
        for name, axis in zip(names, axes, strict=True):
            before = found.setdefault(name, axis)
            if before.size != axis.size:
                raise Mismatch(
                    "shape-mismatch",
                    f"`{name}` has two sizes",
                    param,
                    expected=f"{name} = {before.size}",
                    found=str(site.tensors[param]),
                    bound=(before, axis),
                )
    return found


def _result(pattern: Pattern, axes: dict[str, Axis], types: list[Type]) -> Type:
    """The float type of a result; causal if no value depends on later positions.

    Two axes of the result along one axis of an input mix its positions: element (i, j)
    depends on both.
    """
    kept = tuple(replace(axes[name], name=name) for name in pattern.result)
    noncausal = frozenset[str]().union(*(type.noncausal for type in types))
    noncausal |= frozenset[str]().union(*(axes[name].size.vars for name in pattern.dropped))
    varying = [name for axis in kept for name in axis.size.vars]
    noncausal |= {name for name in varying if varying.count(name) > 1}
    return Type("float", kept, None, noncausal)


def contract(site: Site) -> Type:
    """The type rule of `contract`."""
    pattern = parse_pattern(site.attr["pattern"])
    types = [site.floats(param) for param in site.tensors]
    return _result(pattern, _axes(site, pattern), types)


def contract_flops(site: Site) -> Size:
    """Two for each product that is added; none if nothing is summed over."""
    pattern = parse_pattern(site.attr["pattern"])
    if not any(pattern.shared(name) for name in pattern.dropped):
        return Size.of(0)
    axes = _axes(site, pattern)
    return prod((axes[name].size for name in pattern.names), start=Size.of(2))


def take(site: Site) -> Type:
    """The type rule of `take`, from a table of floats or of whole numbers."""
    table, index = site.tensors["x"], site.tensors["index"]
    if table.dtype == "bool":
        raise Mismatch(
            "type-mismatch",
            "the table must have numbers",
            "x",
            expected="float or int values",
            found=str(table),
        )
    if index.dtype != "int":
        raise Mismatch(
            "type-mismatch",
            "the index must be whole numbers",
            "index",
            expected="int[…]",
            found=str(index),
        )
    if site.attr["pattern"] is None:
        if not table.axes:
            raise Mismatch("axis", "a single number has no axes", "x", found=str(table))
        looked_up, *others = table.axes
        axes = (*index.axes, *others)
        noncausal = table.noncausal | index.noncausal | looked_up.size.vars
        _check_index(index, looked_up)
        return Type(table.dtype, axes, table.below, noncausal)
    pattern = parse_pattern(site.attr["pattern"])
    named = _axes(site, pattern)
    (dropped, *others_) = pattern.dropped or ("",)
    if others_ or dropped not in set(pattern.operands[0]) - set(pattern.operands[1]):
        raise _pattern_error(
            "one axis, of the table alone, must be missing on the right", site.attr["pattern"]
        )
    _check_index(index, named[dropped])
    found = _result(pattern, named, [table, index])
    return replace(found, dtype=table.dtype, below=table.below)


def _check_index(index: Type, axis: Axis) -> None:
    """Raises `Mismatch` if an index can be too large for an axis."""
    size = axis.size.value
    if size is None:
        raise Mismatch(
            "axis",
            f"an index cannot be checked against the axis {axis.size}, whose length varies",
            "x",
            expected="an axis of fixed size",
            found=str(axis),
            bound=(axis,),
        )
    if index.below is None or index.below > size:
        raise Mismatch(
            "element-bound",
            f"the axis has {size} positions, but an index can be "
            + ("any number" if index.below is None else f"as large as {index.below - 1}"),
            "index",
            expected=f"an index < {size}",
            found=str(index),
            bound=(axis,),
        )


def _pattern_error(message: str, pattern: str) -> Mismatch:
    return Mismatch("axis", message, "pattern", found=f'"{pattern}"')
