"""The invariants of a graph, checked after each pass and in tests.

A user's mistakes are reported before a graph exists; a failure here is a bug in archdsl.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import isfinite

from archdsl.graph import masks
from archdsl.graph.mixture import mixture, mixture_type
from archdsl.graph.nodes import (
    Apply,
    Attribute,
    Body,
    Graph,
    Input,
    Layers,
    Mixture,
    Node,
    Scan,
    Slice,
    Stack,
    refs,
    walk,
)
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Kind, Mismatch, Op, Param, Site
from archdsl.graph.sites import common_path, site
from archdsl.graph.types import Size, Type, Varying


class BrokenGraph(Exception):
    """Raised for an invalid graph: a bug in archdsl, not a user's mistake."""


def verify(graph: Graph) -> Graph:
    """Returns the graph if it is valid; otherwise raises `BrokenGraph`, which names the value.

    - Every value is defined once, before its use; only the loss uses labels.
    - Every operator is in the table, has exactly its parameters with valid values, and has the
      type that its rule infers.
    - The bodies of a stack return the type that they take, and each layer has a body.
    - The body of a mixture is that of one vector, and uses no value from outside.
    - The body of a stack or a scan returns the type that it takes; that of a scan has no
      weights and none of its axis.
    - Every varying axis is an axis of an input, and every ragged one has padding.
    - Operators with the same path have the same weights, and a tied one uses the table of an
      `embed`.
    - There is an output.
    """
    _Verifier(graph).run()
    return graph


class _Verifier:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.types = graph.types()
        self.varying = {axis.name: axis for axis in graph.varying}

    def run(self) -> None:
        graph = self.graph
        _require_unique((axis.name for axis in graph.varying), "axis")
        for axis in graph.varying:
            self.axis(axis)
        for each in (*graph.inputs, *graph.labels):
            self.input(each)
        self.ids()
        inputs = {each.name for each in graph.inputs}
        known = self.nodes(graph.nodes, inputs)
        self.paths()
        self.tables()
        _require_unique((name for name, _ in graph.outputs), "output")
        _require(bool(graph.outputs or graph.losses), graph.name, "has no output and no loss")
        for name, ref in graph.outputs:
            _require(ref in known, name, f"refers to {ref}, which is not defined")
        self.loss(known)

    # -- inputs --

    def axis(self, axis: Varying) -> None:
        where = f"axis {axis.name}"
        _require(axis.bound >= 1, where, f"has the bound {axis.bound}")
        fits = 1 <= axis.least <= axis.bound
        _require(fits, where, f"has the least length {axis.least}")
        sources = [i for i in self.graph.inputs if axis.name in i.type.vars]
        _require(bool(sources), where, "is not an axis of any input")
        if axis.ragged is not None:
            padded = [i.name for i in sources if i.pad is not None and len(i.type.axes) == 1]
            counted = [i.name for i in self.graph.inputs if i.type == Type("int")]
            fits = axis.ragged in (*padded, *counted)
            _require(
                fits, where, f"is ragged by {axis.ragged}, which has no `pad` on this axis"
            )

    def input(self, each: Input) -> None:
        self.type(each.name, each.type)
        if each.pad is not None:
            below = each.type.below
            fits = each.type.dtype == "int" and each.pad >= 0
            fits = fits and (below is None or each.pad < below)
            _require(fits, each.name, f"has pad {each.pad}, which {each.type} does not allow")
            ragged = any(self.varying[name].ragged is not None for name in each.type.vars)
            _require(ragged, each.name, "has a pad but no ragged axis")
        if each.default is not None:
            _require(each.pad != each.default, each.name, "has its pad as its default")
            fits = each.type.allows(each.default)
            _require(fits, each.name, f"has the default {each.default}, not of {each.type}")
            known = {a.size for i in self.graph.required for a in i.type.axes}
            for name in sorted(each.type.vars):
                fits = Size.of(name) in known
                _require(fits, each.name, f"has a default, but no other input has axis {name}")

    def type(self, where: str, type: Type) -> None:
        _require(
            type.dtype in ("float", "int", "bool"), where, f"has the unknown dtype {type.dtype}"
        )
        bounded = type.below is None or (type.dtype == "int" and type.below >= 1)
        _require(bounded, where, f"has the bound {type.below} of {type.dtype} values")
        for axis in type.axes:
            fixed = axis.size.value
            _require(fixed is None or fixed >= 1, where, f"has an axis of size {fixed}")
        unknown = sorted((type.vars | type.noncausal) - set(self.varying))
        _require(not unknown, where, f"has an undeclared axis: {', '.join(unknown)}")

    def ids(self) -> None:
        inputs = [each.name for each in (*self.graph.inputs, *self.graph.labels)]
        numbered = [term.loss.id for term in self.graph.losses]
        for node, _ in walk(self.graph.nodes):
            numbered.append(node.id)
            if isinstance(node, Stack):
                numbered += [body.carry for body in node.bodies]
                numbered += [each.id for each in (*node.takes, *node.gives)]
            elif isinstance(node, Mixture):
                numbered.append(node.carry)
            elif isinstance(node, Scan):
                numbered += [node.carry, *(each.id for each in node.takes)]
                numbered += [node.final] if node.final is not None else []
        for id in numbered:
            _require(id.startswith("%"), id, "is the id of a value and does not start with `%`")
        _require_unique([*inputs, *numbered], "value")

    # -- nodes --

    def nodes(self, nodes: tuple[Node, ...], known: set[str]) -> set[str]:
        """Checks nodes; returns the ids that are defined after them, given those before."""
        known = set(known)
        for node in nodes:
            self.type(node.id, node.type)
            match node:
                case Apply():
                    self.apply(node, known, loss=False)
                case Stack():
                    self.stack(node, known)
                    known |= {each.id for each in node.gives}
                case Mixture():
                    self.mixture(node, known)
                case Scan():
                    self.scan(node, known)
                    known |= {node.final} if node.final is not None else set()
            known.add(node.id)
        return known

    def stack(self, node: Stack, known: set[str]) -> None:
        _require(node.count >= 1, node.id, f"repeats its body {node.count} times")
        bodies = list(range(len(node.bodies)))
        first = list(dict.fromkeys(node.kinds)) if node.kinds else [0]
        fits = first == bodies and len(node.kinds) == (node.count if len(bodies) > 1 else 0)
        _require(fits, node.id, "does not have one body for each kind of its layers")
        self.require_defined(node.id, (node.input,), known)
        for kind, body in enumerate(node.bodies):
            self.body(node, kind, body, known)
        result = self.types[node.last.result]
        _require(
            node.type.is_same(result), node.id, f"has type {node.type} and returns {result}"
        )

    def body(self, node: Stack, kind: int, body: Body, known: set[str]) -> None:
        self.type(body.carry, body.carry_type)
        # The layer before may have made the input noncausal.
        given, taken = self.types[node.input], body.carry_type
        enters = given.with_noncausal(taken.noncausal).is_same(taken)
        _require(enters, node.id, f"passes {given} to a body that takes {taken}")
        same = taken.is_same(node.bodies[0].carry_type)
        _require(same, node.id, f"has a body that takes {taken}, which another does not")
        layers = Layers(node, kind).count
        for each in body.takes:
            self.require_defined(each.id, (each.of,), known)
            self.check_slice(layers, each, self.types[each.of], each.type)
        inner = self.nodes(body.nodes, known | {body.carry, *(each.id for each in body.takes)})
        for each in body.gives:
            self.require_defined(each.id, (each.of,), inner)
            self.check_slice(layers, each, each.type, self.types[each.of])
        _require(
            body.result in inner,
            node.id,
            f"returns {body.result}, which its body does not define",
        )
        result = self.types[body.result]
        returns = result.with_noncausal(taken.noncausal).is_same(taken)
        _require(returns, node.id, f"takes {taken} and returns {result}")

    def mixture(self, node: Mixture, known: set[str]) -> None:
        self.require_defined(node.id, refs(node), known)
        x, gates = self.types[node.input], self.types[node.gates]
        try:
            mixture(Site({"x": x, "gates": gates}, {}, self.varying, {}))
        except Mismatch as refused:
            raise BrokenGraph(
                f"{node.id} does not follow its type rule: {refused}"
            ) from refused
        count = gates.axes[-1].size.value
        _require(count == node.count, node.id, f"has {node.count} experts and {count} gates")
        fits = 1 <= node.chosen <= node.count
        _require(fits, node.id, f"chooses {node.chosen} of {node.count} experts")
        one = Type("float", x.axes[-1:])
        taken = node.carry_type
        _require(one.is_same(taken), node.id, f"passes {one} to a body that takes {taken}")
        inner = self.nodes(node.body, {node.carry})
        _require(node.result in inner, node.id, f"returns {node.result}, not of its body")
        result = self.types[node.result]
        _require(len(result.axes) == 1, node.id, f"returns {result}, which is no vector")
        type = mixture_type(x, gates, result)
        if not type.is_same(node.type):  # the texts of two types take long, for every operator
            raise BrokenGraph(f"{node.id} has type {node.type} instead of {type}")

    def scan(self, node: Scan, known: set[str]) -> None:
        carry = node.carry_type
        self.type(node.carry, carry)
        _require(bool(node.type.axes), node.id, f"has the type {node.type} without positions")
        along = node.along.size
        _require(not along.vars & carry.vars, node.carry, f"has the axis {along} of its scan")
        self.require_defined(node.id, (each.of for each in node.takes), known)
        for each in node.takes:
            self.type(each.id, each.type)
            all = self.types[each.of]
            sliced = bool(all.axes) and all.axes[0].size == along
            same = replace(all, axes=all.axes[1:], below=None).is_same(
                replace(each.type, below=None)
            )
            _require(sliced and same, each.id, f"has type {each.type}, no slice of {all}")
        if node.start is not None:
            self.require_defined(node.id, (node.start,), known)
            given = self.types[node.start]
            fits = given.with_noncausal(carry.noncausal).is_same(carry)
            _require(fits, node.id, f"starts with {given} instead of {carry}")
        if node.valid is not None:
            self.require_defined(node.id, (node.valid,), known)
            valid = self.types[node.valid]
            fits = valid.dtype == "bool" and [axis.size for axis in valid.axes] == [along]
            _require(fits, node.id, f"has the valid positions {valid}")
        inner = self.nodes(node.body, known | {node.carry, *(each.id for each in node.takes)})
        for inside in node.body:
            trained = OPERATORS[inside.op].weights(site(self.graph, inside, self.types))
            _require(not trained, inside.id, f"has weights, in the body of {node.id}")
            mixed = along.vars & inside.type.vars
            _require(not mixed, inside.id, f"has the axis {along} of its scan {node.id}")
        self.require_defined(node.id, (node.result, node.output), inner)
        result, output = self.types[node.result], self.types[node.output]
        returns = result.with_noncausal(carry.noncausal).is_same(carry)
        _require(returns, node.id, f"takes {carry} and passes {result} on")
        all = replace(output, axes=(node.along, *output.axes))
        all = all.with_noncausal(carry.noncausal)
        _require(node.type.is_same(all), node.id, f"has type {node.type} instead of {all}")

    def check_slice(self, count: int, each: Slice, all: Type, one: Type) -> None:
        """Checks that a value of all layers of a kind has these layers as its first axis."""
        self.type(each.id, each.type)
        layers = all.axes[0].size.value if all.axes else None
        same = Type(all.dtype, all.axes[1:], all.below, all.noncausal).is_same(one)
        _require(
            layers == count and same,
            each.id,
            f"has type {one}, which is not that of one layer of {all}",
        )

    def require_defined(self, where: str, used: Iterable[str], known: set[str]) -> None:
        for ref in used:
            _require(ref in known, where, f"uses {ref}, which is not defined before it")

    def apply(self, node: Apply, known: set[str], loss: bool) -> None:
        self.require_defined(node.id, refs(node), known)
        op = OPERATORS.get(node.op)
        if op is None:
            raise BrokenGraph(f"{node.id} uses the unknown operator {node.op}")
        _require(
            op.loss == loss, node.id, f"uses {node.op}, which is {'not ' if loss else ''}a loss"
        )
        self.parameters(node, op)
        here = site(self.graph, node, self.types)
        try:
            open = op.resolve_defaults(here)
            _require(not open, node.id, f"has no value for {', '.join(open)}")
            type = self.type_after_tail(node, op.infer(here))
        except Mismatch as refused:
            message = f"{node.id} does not follow the type rule of {node.op}: {refused}"
            raise BrokenGraph(message) from refused
        if not type.is_same(node.type):  # the texts of two types take long, for every operator
            raise BrokenGraph(f"{node.id} has type {node.type} instead of {type}")

    def type_after_tail(self, node: Apply, type: Type) -> Type:
        """The type after the operators that are fused into a node."""
        for tail in node.tail:
            op, others = OPERATORS.get(tail.op), [tail.other] if tail.other else []
            if op is None or op.positions or op.loss:
                raise BrokenGraph(f"{node.id} is fused with {tail.op}, which cannot be fused")
            tensors = [Kind.TENSOR] * (1 + len(others))
            fits = [p.kind for p in op.params if p.kind is not Kind.AXES] == tensors
            fits = fits and not op.weights(Site({"x": type}, {}, {}, {}))
            _require(fits, node.id, f"is fused with {tail.op}, which cannot be fused")
            names = (param.name for param in op.params if param.kind is Kind.TENSOR)
            given = (type, *(self.types[other] for other in others))
            type = op.infer(Site(dict(zip(names, given, strict=True)), {}, self.varying, {}))
        return type

    def parameters(self, node: Apply, op: Op) -> None:
        given = [name for name, _ in node.inputs]
        tensors = [
            p for p in op.params if p.kind is Kind.TENSOR and (p.required or p.name in given)
        ]
        wanted = [param.name for param in tensors]
        wanted += self.mask_inputs(node, op)
        wanted += [name for name in op.positions if name in given and name not in wanted]
        _require(given == wanted, node.id, f"has the tensors {given} instead of {wanted}")
        settings = op.settings_of(dict(node.attrs))
        names, wanted = [name for name, _ in node.attrs], [param.name for param in settings]
        _require(names == wanted, node.id, f"has the settings {names} instead of {wanted}")
        for param, (name, value) in zip(settings, node.attrs, strict=True):
            _require(_fits(param, value), node.id, f"has {name} = {value!r}")

    def mask_inputs(self, node: Apply, op: Op) -> tuple[str, ...]:
        """The tensors that the mask of a node reads."""
        setting = node.attr.get("mask")
        if not op.masked or not isinstance(setting, str):
            return ()
        try:
            return masks.inputs(masks.parse(setting))
        except ValueError as refused:
            raise BrokenGraph(f"{node.id} has the unknown mask {setting!r}") from refused

    # -- paths, outputs, loss --

    def paths(self) -> None:
        """Checks that operators with the same path have the same weights, since the names of
        weights start with it."""
        used: dict[tuple[type, str], tuple[str, object]] = {}
        for node, around in walk(self.graph.nodes):
            # The only operator of a stack's body may have an empty path.
            if node.path or not around or isinstance(node, Stack | Mixture):
                names = node.path.split(".")
                fits = all(name.isidentifier() or name.isdecimal() for name in names)
                _require(fits, node.id, f"has the invalid path {node.path!r}")
            path = common_path(node.path, around)
            match node:
                case Apply():
                    has: object = OPERATORS[node.op].weights(site(self.graph, node, self.types))
                case Stack():
                    has = node.count, node.tied
                case Mixture():
                    has = node.count, node.chosen
                case Scan():
                    has = ()  # its body has no weights
            if not has:
                continue
            first, same = used.setdefault((type(node), path), (node.id, has))
            other = f"is the path of {first} and of {node.id}, which have different weights"
            _require(same == has, path, other)

    def tables(self) -> None:
        """Checks that a tied operator uses the table of an `embed` outside of stacks."""
        tables: dict[str, tuple[Attribute, Attribute]] = {
            node.path: (node.attr["vocab"], node.attr["dim"])
            for node in self.graph.nodes
            if isinstance(node, Apply) and node.op == "embed" and node.attr["tied"] is None
        }
        _require_unique((*tables, *(each.path for each in self.graph.tables)), "table")
        tables |= {each.path: (each.vocab, each.dim) for each in self.graph.tables}
        for node, _ in walk(self.graph.nodes):
            if isinstance(node, Apply) and (tied := node.attr.get("tied")) is not None:
                table = tables.get(str(tied))
                if table is None:
                    raise BrokenGraph(
                        f"{node.id} is tied to {tied}, which is not a table of an `embed`"
                    )
                for name, size in zip(("vocab", "dim"), table, strict=True):
                    equal = node.attr[name] == size
                    _require(equal, node.id, f"is tied to {tied}, whose {name} differs")

    def loss(self, known: set[str]) -> None:
        labels = {each.name for each in self.graph.labels}
        used: set[str] = set()
        for term in self.graph.losses:
            weight = f"has the weight {term.weight!r}, which is not a number above 0"
            _require(isfinite(term.weight) and term.weight > 0, term.loss.id, weight)
            self.apply(term.loss, known | labels, loss=True)
            used.update(refs(term.loss))
        unused = ", ".join(sorted(labels - used))
        _require(not unused, unused, "is a label that the loss does not use")


def _fits(param: Param, value: Attribute) -> bool:
    """Whether a parameter can have this value after its defaults are resolved."""
    if value is None:
        return param.default is None
    match param.kind:
        case Kind.INT:
            return type(value) is int and value >= (0 if param.default == 0 else 1)
        case Kind.TOKEN | Kind.OFFSET:
            return type(value) is int
        case Kind.NUMBER:
            return type(value) is float and isfinite(value)
        case Kind.BOOL:
            return type(value) is bool
        case Kind.CHOICE:
            return value in param.choices
        case Kind.AXIS:
            return type(value) is int and value >= 0
        case Kind.AXES:
            return isinstance(value, tuple) and all(type(v) is int and v >= 0 for v in value)
        case Kind.SIZES:
            return isinstance(value, tuple) and all(type(v) is int and v >= 1 for v in value)
        case Kind.NAMED_SIZES:
            return isinstance(value, tuple) and all(
                isinstance(v, tuple) and type(v[1]) is int and v[1] >= 1 for v in value
            )
        case _:
            return isinstance(value, str)


def _require_unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        _require(name not in seen, name, f"is the name of more than one {what}")
        seen.add(name)


def _require(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise BrokenGraph(f"{where} {what}")
