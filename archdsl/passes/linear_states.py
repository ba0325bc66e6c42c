"""Recognizes scans whose update is linear in the state.

The update of such a state is a sum of terms. Each is a product of factors, which do not depend
on the state, with the state itself, with a sum of it along some axes, or with nothing:

    a * s                                         a decay
    contract("H K, H V -> H K V", k, r)           a write, where r does not use the state
    contract("H K, H V -> H K V", a, contract("H K V, H K -> H V", s, b))   a correction

A factor is a value of the body or outside of it, with the axes of the state that its own axes
stand for. `linear_form` returns None for all other updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from archdsl.frozen import Frozen
from archdsl.graph.contraction import parse_pattern
from archdsl.graph.nodes import Apply, Scan, refs

Label = int  # an axis: below 0 until it is known which axis of the state it is


class Factor(Frozen):
    """A value that does not depend on the state, and the axis of the state of each of its axes.

    With `inverse` the term is divided by it.
    """

    ref: str
    axes: tuple[Label, ...]
    inverse: bool = False


class Term(Frozen):
    """`number` times `factors`, times the state (`uses`).

    If the state is summed over `axes`, it is multiplied by `inner` before.
    """

    number: float
    factors: tuple[Factor, ...]
    uses: bool = False
    axes: frozenset[Label] = frozenset()
    inner: tuple[Factor, ...] = ()


class Sum(Frozen):
    """A sum of terms with these axes, in order."""

    axes: tuple[Label, ...]
    terms: tuple[Term, ...]


class Linear(Frozen):
    """The terms of an update: decays, corrections, and writes, which do not use the state.

    `read` are those of what is read: of the state after its update, or `before` it; None if it
    is the state itself, or no such sum. It has the axes `read_axes` of the state, in order.
    """

    decays: tuple[Term, ...]
    corrections: tuple[Term, ...]
    writes: tuple[Term, ...]
    read: tuple[Term, ...] | None = None
    read_axes: tuple[Label, ...] = ()
    before: bool = False


def linear_form(scan: Scan, rank: Mapping[str, int]) -> Linear | None:
    """The terms of a scan's update, or None if it is not linear in its state.

    `rank` is the number of axes of each value.
    """
    terms = _Terms(scan, rank, scan.carry)
    found = terms.of(scan.result)
    if found is None or len(found.axes) != rank[scan.carry]:
        return None
    update = found.terms
    decays = tuple(t for t in update if t.uses and not t.axes)
    corrections = tuple(t for t in update if t.axes)
    writes = tuple(t for t in update if not t.uses)
    if any(_depends(scan, scan.carry, each.ref) for t in update for each in _factors(t)):
        return None
    form = Linear(decays, corrections, writes)
    if scan.output == scan.result:
        return form
    for before, state in ((False, scan.result), (True, scan.carry)):
        read = _Terms(scan, rank, state).of(scan.output, whole=False)
        if read and all(t.uses and t.axes for t in read.terms):
            factors = {each.ref for t in read.terms for each in _factors(t)}
            if not any(_depends(scan, scan.carry, ref) for ref in factors):
                axes = read.axes
                return replace(form, read=read.terms, read_axes=axes, before=before)
    return form


def _factors(term: Term) -> tuple[Factor, ...]:
    return (*term.factors, *term.inner)


def _depends(scan: Scan, on: str, ref: str) -> bool:
    return ref in depending(scan, on)


def depending(scan: Scan, on: str) -> set[str]:
    """The values of a scan's body that depend on one of them, and it."""
    found = {on}
    for node in scan.body:
        if found & set(refs(node)):
            found.add(node.id)
    return found


class _Unknown(Exception):
    """Raised for a value that is not linear in the state."""


class _Terms:
    """Finds the terms of values of a scan's body, as functions of the value `state`."""

    def __init__(self, scan: Scan, rank: Mapping[str, int], state: str):
        self.nodes = {node.id: node for node in scan.body}
        self.rank, self.state = rank, state
        self.varies = depending(scan, state)
        self.new = 0

    def of(self, ref: str, whole: bool = True) -> Sum | None:
        """A value with the axes of the state; `whole`: it has all of them, in order."""
        try:
            found = self.sum(ref)
            places = {axis: axis for axis in found.axes if axis >= 0}
            if whole:
                places = dict(zip(found.axes, range(len(found.axes)), strict=True))
            if any(axis >= 0 and place != axis for axis, place in places.items()):
                return None  # an axis of the state has moved
            terms = tuple(_renamed(term, places) for term in found.terms)
            return Sum(tuple(places[axis] for axis in found.axes), terms)
        except (_Unknown, KeyError):
            return None

    def sum(self, ref: str) -> Sum:
        if ref == self.state:
            axes = tuple(range(self.rank[ref]))
            return Sum(axes, (Term(1.0, (), True),))
        node = self.nodes.get(ref)
        if ref not in self.varies or node is None:
            return self.product(ref)
        inputs = dict(node.inputs)
        match node.op:
            case "add" | "subtract":
                return self.add(node, inputs["x"], inputs["other"])
            case "multiply":
                return self.multiply(node, inputs["x"], inputs["other"])
            case "divide":
                if inputs["other"] in self.varies:
                    raise _Unknown
                return self.multiply(node, inputs["x"], inputs["other"], inverse=True)
            case "scale":
                by = node.attr["by"]
                assert isinstance(by, float)
                return _scaled(self.sum(inputs["x"]), by)
            case "contract" if "other" in inputs:
                return self.contract(node, inputs["x"], inputs["other"])
        raise _Unknown

    def fresh(self, count: int) -> tuple[Label, ...]:
        self.new += count
        return tuple(range(-self.new, -self.new + count))

    def product(self, ref: str) -> Sum:
        """A value that does not depend on the state, as a product of its factors."""
        node = self.nodes.get(ref)
        inputs = dict(node.inputs) if node else {}
        try:
            if node and node.op in ("multiply", "divide"):
                return self.multiply(
                    node, inputs["x"], inputs["other"], node.op == "divide", constant=True
                )
            if node and node.op == "scale":
                by = node.attr["by"]
                assert isinstance(by, float)
                return _scaled(self.product(inputs["x"]), by)
            if node and node.op == "contract" and "other" in inputs and not _sums(node):
                return self.contract(node, inputs["x"], inputs["other"], constant=True)
        except _Unknown:
            pass
        axes = self.fresh(self.rank[ref])
        return Sum(axes, (Term(1.0, (Factor(ref, axes),)),))

    def pair(self, node: Apply, x: Sum, other: Sum) -> tuple[Sum, Sum]:
        """The operands of an elementwise operator, with the same name for the same axis."""
        along = node.attr.get("along")
        larger, smaller = (x, other) if len(x.axes) >= len(other.axes) else (other, x)
        places = along if isinstance(along, tuple) else range(len(larger.axes))
        names: dict[Label, Label] = {}
        for axis, place in zip(smaller.axes, places, strict=True):
            assert isinstance(place, int)
            names |= _same(axis, larger.axes[place])
        return _rename(x, names), _rename(other, names)

    def add(self, node: Apply, x: str, other: str) -> Sum:
        left, right = self.pair(node, self.sum(x), self.sum(other))
        if node.op == "subtract":
            right = _scaled(right, -1.0)
        axes = left.axes if len(left.axes) >= len(right.axes) else right.axes
        if len(left.axes) != len(right.axes) and any(
            t.uses for t in (left if len(left.axes) < len(right.axes) else right).terms
        ):
            raise _Unknown  # a state that is the same along an axis
        return Sum(axes, (*left.terms, *right.terms))

    def multiply(
        self, node: Apply, x: str, other: str, inverse: bool = False, constant: bool = False
    ) -> Sum:
        value = self.product if constant else self.sum
        left, right = self.pair(node, value(x), value(other))
        axes = left.axes if len(left.axes) >= len(right.axes) else right.axes
        return Sum(axes, tuple(_products(left, right, inverse)))

    def contract(self, node: Apply, x: str, other: str, constant: bool = False) -> Sum:
        value = self.product if constant else self.sum
        pattern = parse_pattern(str(node.attr["pattern"]))
        left, right = value(x), value(other)
        names: dict[Label, Label] = {}
        known: dict[str, Label] = dict(zip(pattern.operands[0], left.axes, strict=True))
        for name, axis in zip(pattern.operands[1], right.axes, strict=True):
            if name in known:
                names |= _same(axis, known[name])
        left, right = _rename(left, names), _rename(right, names)
        known = dict(zip(pattern.operands[0], left.axes, strict=True))
        known |= dict(zip(pattern.operands[1], right.axes, strict=True))
        summed = frozenset(known[name] for name in pattern.dropped)
        terms = _products(left, right, False)
        if summed:
            terms = (_summed(term, summed) for term in terms)
        return Sum(tuple(known[name] for name in pattern.result), tuple(terms))


def _sums(node: Apply) -> bool:
    return bool(parse_pattern(str(node.attr["pattern"])).dropped)


def _same(one: Label, other: Label) -> dict[Label, Label]:
    """The names that make two axes the same."""
    if one == other:
        return {}
    if one >= 0 and other >= 0:
        raise _Unknown  # two axes of the state
    return {min(one, other): max(one, other)}


def _products(left: Sum, right: Sum, inverse: bool) -> Iterator[Term]:
    for one in left.terms:
        for two in right.terms:
            if one.uses and two.uses:
                raise _Unknown
            state = one if one.uses else two
            factors = two.factors
            if inverse:
                if len(right.terms) > 1:
                    raise _Unknown
                factors = tuple(replace(f, inverse=not f.inverse) for f in factors)
            number = one.number / two.number if inverse else one.number * two.number
            both = (*one.factors, *factors)
            yield replace(state, number=number, factors=both)


def _summed(term: Term, axes: frozenset[Label]) -> Term:
    """A term summed over axes."""
    if not term.uses or term.axes:
        raise _Unknown
    return Term(term.number, (), True, axes, term.factors)


def _scaled(value: Sum, by: float) -> Sum:
    return replace(value, terms=tuple(replace(t, number=t.number * by) for t in value.terms))


def _rename(value: Sum, names: Mapping[Label, Label]) -> Sum:
    if not names:
        return value
    axes = tuple(names.get(axis, axis) for axis in value.axes)
    renamed = {**{a: a for t in value.terms for a in _axes(t)}, **names}
    return Sum(axes, tuple(_renamed(term, renamed) for term in value.terms))


def _axes(term: Term) -> Iterator[Label]:
    yield from term.axes
    yield from (axis for each in _factors(term) for axis in each.axes)


def _renamed(term: Term, names: Mapping[Label, Label]) -> Term:
    def new(factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
        return tuple(
            replace(each, axes=tuple(_name(names, axis) for axis in each.axes))
            for each in factors
        )

    axes = frozenset(_name(names, axis) for axis in term.axes)
    return replace(term, factors=new(term.factors), inner=new(term.inner), axes=axes)


def _name(names: Mapping[Label, Label], axis: Label) -> Label:
    return names[axis] if axis in names or axis < 0 else axis
