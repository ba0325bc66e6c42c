"""One operator of the table at its arguments: checked, given its type, made a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.diagnostics import Note, Span, did_you_mean, listing
from archdsl.graph.nodes import Apply, Stack, walk
from archdsl.graph.nodes import refs as refs_of
from archdsl.graph.signature import Kind, Mismatch, Op, Param, Site
from archdsl.graph.types import Axis, Size, Type
from archdsl.semantics.binding import Bound
from archdsl.semantics.construction import Construction
from archdsl.semantics.shapes import where_bound
from archdsl.semantics.unknown import no_option
from archdsl.semantics.values import (
    POISON,
    Env,
    Poison,
    Scalar,
    Symbol,
    Tensor,
)
from archdsl.syntax import ast


class Operators:
    """Uses operators in a graph under construction."""

    def __init__(self, building: Construction):
        self.building = building
        self.wrong = building.wrong
        # Where each value stopped to be causal along an axis: the place, after the calls of
        # the blocks around it.
        self.broke: dict[tuple[str, str], tuple[Span, ...]] = {}
        self.tables: dict[str, Apply] = {}  # every `embed` by its place, for those tied to it

    def apply(
        self,
        op: Op,
        slots: Mapping[str, list[Bound]],
        span: Span,
        place: str,
        env: Env,
        label: ast.Name | None = None,
        named: bool = True,
    ) -> Tensor | Poison:
        path = (
            self.building.places.take(place, label.span if label else span, bool(label))
            if named
            else ""
        )
        made = self.node(op, slots, env, span, path)
        if isinstance(made, Poison):
            return made
        node, site = made
        for name in node.type.noncausal.difference(
            *(t.noncausal for t in site.tensors.values())
        ):
            self.broke.setdefault((name, node.id), (*self.building.calls, span))
        self.building.nodes.append(node)
        if op.name == "embed":
            full = self.building.places.full(path)
            self.tables[full] = node
            env.labels[path.rpartition(".")[2]] = full
        return Tensor(node.id, node.type)

    def node(
        self, op: Op, slots: Mapping[str, list[Bound]], env: Env, span: Span, path: str
    ) -> tuple[Apply, Site] | Poison:
        """An operator at its arguments, settled and typed, and what its rules saw of them."""
        made = self.site(op, slots, env, span)
        if isinstance(made, Poison):
            return made
        site, refs = made
        try:
            site = Site(
                site.tensors,
                {**site.attr, **op.resolve_defaults(site)},
                site.varying,
                site.named,
            )
            type = op.infer(site)
            op.weights(site)
        except Mismatch as mismatch:
            return self.mismatch(mismatch, op, slots, span)
        id, attrs = self.building.fresh(), tuple(site.attr.items())
        return Apply(id, op.name, refs, attrs, path, type, span), site

    def site(
        self, op: Op, slots: Mapping[str, list[Bound]], env: Env, span: Span
    ) -> tuple[Site, tuple[tuple[str, str], ...]] | Poison:
        """The types and values that an operator's rules see, and the tensors it is given."""
        tensors: dict[str, Type] = {}
        refs: list[tuple[str, str]] = []
        attr: dict[str, Any] = {}
        named: dict[str, Axis] = {}
        failed = False
        for param in op.params:
            bounds = slots.get(param.name, [])
            if param.kind is Kind.TENSOR:
                for bound in bounds:
                    assert isinstance(bound.value, Tensor)
                    tensors[param.name] = bound.value.type
                    refs.append((param.name, bound.value.ref))
                continue
            if not bounds:
                attr[param.name] = param.default
                continue
            values = [self._attribute(op, param, bound, env, tensors) for bound in bounds]
            if any(isinstance(v, Poison) for v in values):
                failed = True
                continue
            several = param.kind in (Kind.SIZES, Kind.NAMED_SIZES)
            attr[param.name] = tuple(values) if several else values[0]
            last = bounds[-1].value
            if isinstance(last, Scalar) and param.kind in (Kind.INT, Kind.SIZES):
                size = Size.of(int(last.value))
                named[param.name] = Axis(last.name, size, origin=last.origin)
        if failed:
            return POISON
        if attr.get("tied"):
            for name in ("vocab", "dim"):
                if name in slots:
                    return self.wrong(
                        "argument-value",
                        f"`{name}` is that of the `embed` it is tied to",
                        slots[name][0].span,
                        help=f"leave `{name}` out",
                    )
            table = self.tables[attr["tied"]]
            attr |= {"vocab": table.attr["vocab"], "dim": table.attr["dim"]}
        return Site(tensors, attr, self.building.varying, named), tuple(refs)

    def _attribute(
        self, op: Op, param: Param, bound: Bound, env: Env, tensors: Mapping[str, Type]
    ) -> Any:
        """A parameter's value as the graph keeps it, or POISON."""
        value = bound.value
        if isinstance(value, Poison):
            return value
        if isinstance(value, Symbol) and value.name == "none" and param.default is None:
            return None  # as if it were left out
        if isinstance(value, Symbol):
            match param.kind:
                case Kind.MARK:
                    return value.name
                case Kind.CHOICE if value.name in param.choices:
                    return value.name
                case Kind.LABEL:
                    return self._table(value, env)
                case Kind.AXIS:
                    return self._axis(value, tensors)
            return self.building.tell(no_option(op.name, op.params, param, value, env.names))
        if isinstance(value, Scalar) and param.kind is Kind.LABEL:
            return self._placed(str(value.value), bound.span)
        if isinstance(value, Scalar) and _fits(value.value, param):
            if param.kind is Kind.NAMED_SIZES:
                return value.name, value.value
            return float(value.value) if param.kind is Kind.NUMBER else value.value
        fraction = isinstance(value, Scalar) and isinstance(value.value, float)
        whole = param.kind in (Kind.INT, Kind.SIZES, Kind.NAMED_SIZES)
        origin = value.origin if isinstance(value, Scalar) else None
        notes = (Note("it is bound here", origin),) if origin and origin != bound.span else ()
        return self.building.misfit(
            op.name,
            param.name,
            bound.span,
            _wanted(param),
            value,
            notes=notes,
            help="`/` gives a fraction; write `//` for a whole number"
            if fraction and whole and "/" in bound.span.text
            else None,
        )

    def _table(self, symbol: Symbol, env: Env) -> Any:
        place = env.labels.get(symbol.name)
        if place is not None and "{" in place:
            return self.wrong(
                "argument-value",
                f"`{symbol.name}` is repeated, and has a table for each copy",
                symbol.span,
            )
        if place is not None:
            # One that is tied itself has the table of another.
            return self.tables[place].attr["tied"] or place
        return self.wrong(
            "unknown-name",
            f"no `embed` above is labelled `{symbol.name}`",
            symbol.span,
            expected=listing(env.labels) if env.labels else None,
            help=did_you_mean(symbol.name, env.labels)
            or f"label the one that is meant: `{symbol.name}: embed(vocab, D)`",
        )

    def _placed(self, place: str, span: Span) -> Any:
        """The table at a full place, which a string tells where no label is in sight."""
        if place in self.tables and "{" not in place:
            return self.tables[place].attr["tied"] or place
        return self.wrong(
            "unknown-name",
            f'no `embed` above is at "{place}"',
            span,
            expected=listing(p for p in self.tables if "{" not in p) or None,
            help=did_you_mean(place, self.tables),
        )

    def _axis(self, symbol: Symbol, tensors: Mapping[str, Type]) -> Any:
        x = next(iter(tensors.values()), Type("float"))
        found = [i for i, axis in enumerate(x.axes) if axis.name == symbol.name]
        if len(found) == 1:
            return found[0]
        if found:
            return self.wrong(
                "axis",
                f"two axes are named `{symbol.name}`",
                symbol.span,
                found=str(x),
                help="`reshape` gives axes other names",
            )
        names = [a.name for a in x.axes if a.name]
        return self.wrong(
            "axis",
            f"no axis is named `{symbol.name}`",
            symbol.span,
            expected=listing(names) or "a tensor whose axes have names",
            found=str(x),
            help=did_you_mean(symbol.name, names),
        )

    def mismatch(
        self, wrong: Mismatch, op: Op, slots: Mapping[str, list[Bound]], span: Span
    ) -> Poison:
        """A rule's refusal at the argument it is about, with the places of the others."""
        at = slots.get(wrong.at or "", [])
        place = at[0].span if at else span
        notes: list[Note] = []
        for other in dict.fromkeys((wrong.at or "", *wrong.bound)):
            if isinstance(other, Axis):
                notes += where_bound(other, place)
                continue
            for bound in slots.get(other, []):
                value = bound.value
                if isinstance(value, Scalar) and value.origin != place:
                    where = "bound here" if value.origin else "set from outside"
                    name = value.name or other
                    notes.append(Note(f"`{name}` is {value.text}, {where}", value.origin))
        if wrong.broken and at and isinstance(at[0].value, Tensor):
            breaks = self._broken(wrong.broken, at[0].value.ref)
            notes += [Note("this looks at later positions", s) for s in breaks[-1:]]
            notes += [Note("in the block that is called here", s) for s in breaks[:-1][:1]]
        return self.wrong(
            wrong.code,
            f"{op.name}: {wrong.message}",
            place,
            expected=wrong.expected,
            found=wrong.found,
            notes=tuple(notes),
            help=wrong.help,
        )

    def _broken(self, axis: str, ref: str) -> tuple[Span, ...]:
        """The first place on the way to a value that broke causality along an axis."""
        made = {node.id: node for node, _ in walk(tuple(self.building.nodes))}
        behind: set[str] = set()
        todo = [ref]
        while todo:
            node = made.get(todo.pop())
            if node and node.id not in behind:
                behind.add(node.id)
                todo += refs_of(node)
                todo += [n.id for n in node.body] if isinstance(node, Stack) else []
        places = (p for (a, id), p in self.broke.items() if a == axis and id in behind)
        return next(places, ())


def _fits(value: object, param: Param) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match param.kind:
        case Kind.INT:
            return whole and (value > 0 or (param.default == 0 and value == 0))  # type: ignore[operator]
        case Kind.SIZES | Kind.NAMED_SIZES:
            return whole and value > 0  # type: ignore[operator]
        case Kind.NUMBER:
            return whole or isinstance(value, float)
        case Kind.BOOL:
            return isinstance(value, bool)
        case Kind.TEXT:
            return isinstance(value, str)
        case Kind.CHOICE:
            return value in param.choices
        case _:
            return False


def _wanted(param: Param) -> str:
    if param.choices:
        return listing(param.choices)
    if param.kind is Kind.INT:
        return "a whole number, 0 or more" if param.default == 0 else "a whole number above 0"
    return f"{param.kind.value} above 0" if param.kind is Kind.SIZES else param.kind.value
