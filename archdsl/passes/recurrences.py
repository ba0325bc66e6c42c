"""Plans how a linear scan is computed for many positions at once.

The axes of the state are divided into heads, keys and values: keys are summed over when the
state is read or corrected, and values are the axes of which each is computed alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from archdsl.frozen import Frozen
from archdsl.graph.nodes import Scan
from archdsl.graph.types import Type
from archdsl.passes.linear_states import Factor, Linear, Term, linear_form


class Plan(Frozen):
    """How a scan is computed.

    `decays` are summed. With a `read` q, the axes of the state are divided into `heads`, `keys`
    and `values`; q, k and v are products of factors, and a and b those of a correction, each
    with a number. Without it, the whole state is computed, from a sum of `writes`.
    """

    decays: tuple[Term, ...]
    writes: tuple[Term, ...]
    heads: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    q: Term | None = None
    k: Term | None = None
    v: Term | None = None
    a: Term | None = None
    b: Term | None = None
    read_axes: tuple[int, ...] = ()
    before: bool = False


def plan(scan: Scan, types: Mapping[str, Type]) -> Plan | None:
    """How to compute a scan; None if it is computed position by position."""
    inside = [each.type for each in scan.takes] + [each.type for each in scan.body]
    if scan.carry_type.vars or any(type.vars for type in inside):
        return None  # lengths may differ between examples
    form = linear_form(scan, {ref: len(type.axes) for ref, type in types.items()})
    if form is None:
        return None
    found = _read(form, len(scan.carry_type.axes)) if form.read else None
    if found is None and not form.corrections:
        return Plan(form.decays, form.writes)
    return found


def _read(form: Linear, rank: int) -> Plan | None:
    """The plan for a state that only a sum over its keys is read of."""
    assert form.read is not None
    if len(form.read) != 1 or len(form.corrections) > 1 or len(form.writes) != 1:
        return None
    (q,), (write,) = form.read, form.writes
    sums = {term.axes for term in (q, *form.corrections)}
    if q.factors or len(sums) != 1:
        return None
    (keys,) = sums
    k = [each for each in write.factors if keys & set(each.axes)]
    v = [each for each in write.factors if not keys & set(each.axes)]
    pairs = [*q.inner, *k]
    a = b = None
    if form.corrections:
        (correction,) = form.corrections
        pairs += [*correction.factors, *correction.inner]
        a = Term(correction.number, correction.factors)
        b = Term(1.0, correction.inner)
    heads = _axes(pairs) - keys
    decays = _axes(each for term in form.decays for each in term.factors)
    values = set(range(rank)) - heads - keys
    # A decay of its own for each number of the state, or for each head of it.
    if decays & values and (a is not None or not decays & keys):
        heads, values = heads | (decays & values), values - decays
    return Plan(
        form.decays,
        form.writes,
        tuple(sorted(heads)),
        tuple(sorted(keys)),
        tuple(sorted(values)),
        Term(q.number, q.inner),
        Term(write.number, tuple(k)),
        Term(1.0, tuple(v)),
        a,
        b,
        form.read_axes,
        form.before,
    )


def _axes(factors: Iterable[Factor]) -> set[int]:
    return {axis for each in factors for axis in each.axes}
