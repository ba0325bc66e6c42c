"""Applies an operator to its arguments: checks them, infers the type, adds a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.diagnostics import Note, Span, did_you_mean, listing
from archdsl.graph.nodes import Apply, Scan, Stack, walk
from archdsl.graph.nodes import refs as refs_of
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind, Mismatch, Op, Param, Site, Weight
from archdsl.graph.split import SPLIT, ranges, with_name
from archdsl.graph.types import Axis, Size, Type
from archdsl.semantics.binding import Arguments, Bound
from archdsl.semantics.graph_builder import GraphBuilder
from archdsl.semantics.mask_values import read_mask, setting
from archdsl.semantics.shapes import where_bound
from archdsl.semantics.unknown import unknown_option
from archdsl.semantics.values import (
    POISON,
    Env,
    Extent,
    Poison,
    Scalar,
    Several,
    Symbol,
    Tensor,
)
from archdsl.syntax import ast


class Operators:
    """Applies operators in a graph under construction."""

    def __init__(self, builder: GraphBuilder):
        self.builder = builder
        # Where a value stopped being causal, by axis and node: the calls of the enclosing
        # blocks, then the operator.
        self.noncausal_at: dict[tuple[str, str], tuple[Span, ...]] = {}
        self.weights: dict[str, tuple[tuple[Weight, ...], Span]] = {}  # by path
        self.tables: dict[str, Apply] = {}  # every `embed` by its path, for tied operators

    def apply(
        self,
        op: Op,
        arguments: Arguments,
        span: Span,
        place: str,
        env: Env,
        label: ast.Name | None = None,
        named: bool = True,
    ) -> Tensor | Poison:
        path = (
            self.builder.places.unique_path(place, label.span if label else span, bool(label))
            if named
            else ""
        )
        made = self.node(op, arguments, env, span, path)
        if isinstance(made, Poison):
            if op.name == "embed":
                self.builder.failed_labels.add(path.rpartition(".")[2])
            return made
        node, site = made
        if self.builder.scanned and not self._fits_a_state(op, site, node):
            return POISON
        weights = op.weights(site)
        if weights and not self._has_same_weights(weights, path, span):
            return POISON
        before = frozenset[str]().union(*(t.noncausal for t in site.tensors.values()))
        for name in node.type.noncausal - before:
            self.noncausal_at.setdefault((name, node.id), (*self.builder.calls, span))
        self.builder.add(node)
        if op.name == "embed":
            full = self.builder.places.full_path(path)
            self.tables[full] = node
            env.labels[path.rpartition(".")[2]] = full
        return Tensor(node.id, node.type)

    def split(self, arguments: Arguments, span: Span, env: Env) -> Several | Poison:
        """The parts of an axis, each a `slice`."""
        made = self.site(SPLIT, arguments, env)
        if isinstance(made, Poison):
            return made
        site, refs = made
        op, found = OPS["slice"], []
        try:
            index = site.index(-1)
            for start, stop, name in ranges(site):
                attr = {"axis": index, "start": start, "stop": stop}
                type = op.infer(Site(site.tensors, attr, site.varying, {}))
                type = with_name(type, index, name)
                id, attrs = self.builder.new_id(), tuple(attr.items())
                path = self.builder.places.unique_path(op.name, span, labelled=False)
                self.builder.add(Apply(id, op.name, refs, attrs, path, type, span))
                found.append(Tensor(id, type))
        except Mismatch as mismatch:
            return self.report_mismatch(mismatch, SPLIT, arguments.slots, span)
        return Several(tuple(found))

    def _fits_a_state(self, op: Op, site: Site, node: Apply) -> bool:
        """Whether an operator may be in the update of a state; reports it if not."""
        assert self.builder.scanned is not None
        assert node.span is not None
        along, name = self.builder.scanned
        if op.weights(site):
            self.builder.report_error(
                "state",
                f"`{op.name}` has weights, which the update of a state cannot have",
                node.span,
                help="compute the value before the state, or declare a `weight` there",
            )
            return False
        for each in (*site.tensors.values(), node.type):
            if each.vars & along.size.vars:
                self.builder.report_error(
                    "state",
                    f"the update of a state sees one position along `{name}`",
                    node.span,
                    found=str(each),
                    help=f"`{name}` must be the first axis: reorder axes with `reshape`",
                )
                return False
        return True

    def _has_same_weights(self, weights: tuple[Weight, ...], path: str, span: Span) -> bool:
        """Whether an operator whose weights are used again has weights of the same sizes."""
        full = self.builder.places.full_path(path)
        again = self.builder.places.reused_at
        if again is None or full not in self.weights:
            self.weights[full] = weights, span
            return True
        known, first = self.weights[full]
        if known == weights:
            return True
        self.builder.report_error(
            "shape-mismatch",
            f"the weights of `{full}` have other sizes here than where they are used first",
            again,
            expected=_sizes(known),
            found=_sizes(weights),
            notes=(Note("they are first used here", first),),
        )
        return False

    def node(
        self, op: Op, arguments: Arguments, env: Env, span: Span, path: str
    ) -> tuple[Apply, Site] | Poison:
        """An operator's node, with its type, and the site that its rules saw."""
        made = self.site(op, arguments, env)
        if isinstance(made, Poison):
            return made
        site, refs = made
        try:
            given = {**site.attr, **op.write_out(site.attr)}
            site = Site(
                site.tensors,
                {param.name: given[param.name] for param in op.settings},
                site.varying,
                site.named,
            )
            attr = {**site.attr, **op.resolve_defaults(site)}
            site = Site(site.tensors, attr, site.varying, site.named)
            type = op.infer(site)
            op.check_names(site)
            op.weights(site)
        except Mismatch as mismatch:
            return self.report_mismatch(mismatch, op, arguments.slots, span)
        attrs = tuple((p.name, site.attr[p.name]) for p in op.settings_of(site.attr))
        id = self.builder.new_id()
        return Apply(id, op.name, refs, attrs, path, type, span), site

    def site(
        self, op: Op, arguments: Arguments, env: Env
    ) -> tuple[Site, tuple[tuple[str, str], ...]] | Poison:
        """The types and values that an operator's rules see, and its tensors."""
        slots = arguments.slots
        tensors: dict[str, Type] = {}
        refs: list[tuple[str, str]] = []
        attr: dict[str, Any] = {}
        named: dict[str, Axis] = {}
        of_mask: list[tuple[str, str, Type]] = []
        failed = not arguments.sound
        for param in op.params:
            bounds = slots.get(param.name, [])
            if param.kind is Kind.TENSOR:
                for bound in bounds:
                    if isinstance(bound.value, Symbol):
                        continue  # `none`, the same as no argument
                    if isinstance(bound.value, Poison):
                        failed = True
                        continue
                    assert isinstance(bound.value, Tensor)
                    tensors[param.name] = bound.value.type
                    refs.append((param.name, bound.value.ref))
                continue
            if not bounds:
                attr[param.name] = param.default
                continue
            if param.kind is Kind.MASK:
                mask = read_mask(bounds[0].value, bounds[0].expr, self.builder)
                if isinstance(mask, Poison):
                    failed = True
                    continue
                attr[param.name], of_mask = setting(mask)
                continue
            if param.kind is Kind.AXIS and failed:
                continue  # the axes of its tensor may be unknown
            values = [self._attribute(op, param, bound, env, tensors) for bound in bounds]
            if any(isinstance(v, Poison) for v in values):
                failed = True
                continue
            several = param.kind in (Kind.SIZES, Kind.NAMED_SIZES)
            attr[param.name] = tuple(values) if several else values[0]
            last = bounds[-1].value
            if isinstance(last, Extent):
                named[param.name] = last.axis
            if isinstance(last, Scalar) and param.kind in (Kind.INT, Kind.SIZES):
                size = Size.of(int(last.value))
                named[param.name] = Axis(last.name, size, origin=last.origin)
        if attr.get("tied"):
            for name in ("vocab", "dim"):
                if name in slots:
                    return self.builder.report_error(
                        "argument-value",
                        f"`{name}` comes from the tied `embed`",
                        slots[name][0].span,
                        help=f"remove `{name}`",
                    )
        if failed:
            return POISON
        if attr.get("tied"):
            table = self.tables[attr["tied"]]
            attr |= {"vocab": table.attr["vocab"], "dim": table.attr["dim"]}
        refs += [(name, ref) for name, ref, _ in of_mask]
        tensors |= {name: type for name, _, type in of_mask}
        return Site(tensors, attr, self.builder.varying, named), tuple(refs)

    def _attribute(
        self, op: Op, param: Param, bound: Bound, env: Env, tensors: Mapping[str, Type]
    ) -> Any:
        """A parameter's value in the graph, or POISON."""
        value = bound.value
        if isinstance(value, Poison):
            return value
        if isinstance(value, Symbol) and value.name == "none" and param.default is None:
            return None  # the same as no argument
        if isinstance(value, Extent) and param.kind is Kind.SIZE:
            return str(value.axis.size)
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
            return self.builder.report_diagnostic(
                unknown_option(op.name, op.params, param, value, env.names)
            )
        if isinstance(value, Scalar) and param.kind is Kind.LABEL:
            return self._table_at(str(value.value), bound.span)
        if isinstance(value, Scalar) and _fits(value.value, param):
            if param.kind is Kind.NAMED_SIZES:
                return value.name, value.value
            return float(value.value) if param.kind is Kind.NUMBER else value.value
        fraction = isinstance(value, Scalar) and isinstance(value.value, float)
        whole = param.kind in (Kind.INT, Kind.SIZES, Kind.NAMED_SIZES)
        origin = value.origin if isinstance(value, Scalar) else None
        notes = (
            (Note("the value is bound here", origin),)
            if origin and origin != bound.span
            else ()
        )
        return self.builder.report_argument(
            op.name,
            param.name,
            bound.span,
            _wanted(param),
            value,
            notes=notes,
            help="`/` returns a fraction; write `//` for a whole number"
            if fraction and whole and "/" in bound.span.text
            else None,
        )

    def _table(self, symbol: Symbol, env: Env) -> Any:
        place = env.labels.get(symbol.name)
        if place is not None and "{" in place:
            return self.builder.report_error(
                "argument-value",
                f"`{symbol.name}` is repeated, so each layer has its own table",
                symbol.span,
            )
        if place is not None:
            # A tied `embed` uses the table of another one.
            return self.tables[place].attr["tied"] or place
        if symbol.name in self.builder.skipped | self.builder.failed_labels:
            return POISON  # it may be the label of an `embed` with a mistake
        return self.builder.report_error(
            "unknown-name",
            f"no earlier `embed` has the label `{symbol.name}`",
            symbol.span,
            expected=listing(env.labels) if env.labels else None,
            help=did_you_mean(symbol.name, [*env.labels, *self.builder.failed_labels])
            or f"add the label: `{symbol.name}: embed(vocab, D)`",
        )

    def _table_at(self, place: str, span: Span) -> Any:
        """The table at a full path, written as a string."""
        if place in self.tables and "{" not in place:
            return self.tables[place].attr["tied"] or place
        if place.rpartition(".")[2] in self.builder.skipped | self.builder.failed_labels:
            return POISON
        return self.builder.report_error(
            "unknown-name",
            f'no earlier `embed` has the path "{place}"',
            span,
            expected=listing(p for p in self.tables if "{" not in p) or None,
            help=did_you_mean(place, self.tables),
        )

    def _axis(self, symbol: Symbol, tensors: Mapping[str, Type]) -> Any:
        x = next(
            (type for type in tensors.values() if symbol.name in [a.name for a in type.axes]),
            next(iter(tensors.values()), Type("float")),
        )
        found = [i for i, axis in enumerate(x.axes) if axis.name == symbol.name]
        if len(found) == 1:
            return found[0]
        if found:
            return self.builder.report_error(
                "axis",
                f"two axes are named `{symbol.name}`",
                symbol.span,
                found=str(x),
                help="rename an axis with `reshape`",
            )
        names = [a.name for a in x.axes if a.name]
        return self.builder.report_error(
            "axis",
            f"no axis is named `{symbol.name}`",
            symbol.span,
            expected=listing(names) or "a tensor whose axes have names",
            found=str(x),
            help=did_you_mean(symbol.name, names),
        )

    def report_mismatch(
        self, mismatch: Mismatch, op: Op, slots: Mapping[str, list[Bound]], span: Span
    ) -> Poison:
        """Reports that an operator's rule refused its arguments, and where they are bound."""
        at = slots.get(mismatch.at or "", [])
        place = at[0].span if at else span
        notes: list[Note] = []
        for other in dict.fromkeys((mismatch.at or "", *mismatch.bound)):
            if isinstance(other, Axis):
                found = where_bound(other, place)
                # The call of the enclosing block has a note of its own.
                notes += [each for each in found if each.span not in self.builder.calls]
                continue
            for bound in slots.get(other, []):
                value = bound.value
                if isinstance(value, Scalar) and value.origin != place:
                    where = "bound here" if value.origin else "set from outside"
                    name = value.name or other
                    notes.append(Note(f"`{name}` is {value.text}, {where}", value.origin))
        if mismatch.broken and at and isinstance(at[0].value, Tensor):
            places = self._first_noncausal(mismatch.broken, at[0].value.ref)
            notes += [Note("this uses later positions", s) for s in places[-1:]]
            notes += [Note("in the block called here", s) for s in places[:-1][:1]]
        return self.builder.report_error(
            mismatch.code,
            f"{op.name}: {mismatch.message}",
            place,
            expected=mismatch.expected,
            found=mismatch.found,
            notes=tuple(notes),
            help=mismatch.help,
        )

    def _first_noncausal(self, axis: str, ref: str) -> tuple[Span, ...]:
        """Where a value or one of its inputs first stopped being causal along an axis."""
        made = {node.id: node for node, _ in walk(tuple(self.builder.nodes))}
        found: set[str] = set()
        todo = [ref]
        while todo:
            node = made.get(todo.pop())
            if node and node.id not in found:
                found.add(node.id)
                todo += refs_of(node)
                if isinstance(node, Stack):
                    todo += [each.id for body in node.bodies for each in body.nodes]
                todo += [each.id for each in node.body] if isinstance(node, Scan) else []
        places = (p for (a, id), p in self.noncausal_at.items() if a == axis and id in found)
        return next(places, ())


def _fits(value: object, param: Param) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match param.kind:
        case Kind.INT:
            return whole and (value > 0 or (param.default == 0 and value == 0))  # type: ignore[operator]
        case Kind.TOKEN | Kind.OFFSET:
            return whole
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


def _sizes(weights: tuple[Weight, ...]) -> str:
    return ", ".join(f"{each.name} {list(each.shape)}" for each in weights)


def _wanted(param: Param) -> str:
    if param.choices:
        return listing(param.choices)
    if param.kind is Kind.INT:
        return "a whole number, 0 or more" if param.default == 0 else "a whole number above 0"
    return f"{param.kind.value} above 0" if param.kind is Kind.SIZES else param.kind.value
