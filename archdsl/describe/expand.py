"""Expands a typed graph to a spec with all defaults and sizes written out.

The spec uses no block of another file, and compiles to the same graph, node for node. Values
that are used once are written inline in chains, the others have names. A repeated body that is
not a single chain becomes a block; the outer values that it uses are further parameters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from archdsl.describe.build_syntax import (
    CHOICES,
    RESERVED,
    SPAN,
    Binding,
    NameScope,
    arg,
    block_name,
    call,
    chain,
    integer,
    name,
    number,
    plain_type,
    scalar,
    settings,
    suggest_name,
)
from archdsl.describe.flow import (
    captured_values,
    chained_inputs,
    infix,
    inline_values,
    is_chain,
)
from archdsl.describe.layer_choice import choose_by_number
from archdsl.describe.state_blocks import state_blocks
from archdsl.diagnostics import fail
from archdsl.frozen import Frozen
from archdsl.graph import masks
from archdsl.graph.alike import alike
from archdsl.graph.elementwise import check_order, is_larger, match_axes
from archdsl.graph.masks import is_input
from archdsl.graph.mixture import for_all_vectors
from archdsl.graph.nodes import (
    Apply,
    Body,
    Graph,
    Input,
    Mixture,
    Node,
    Scan,
    Stack,
    outer_refs,
    refs,
    walk,
)
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Mismatch, Site
from archdsl.graph.sites import site
from archdsl.graph.types import Size, Type
from archdsl.graph.unused import results
from archdsl.syntax import ast
from archdsl.syntax.mistakes import reserved_word

TIED = "tied"  # uses a block again
_DEEPEST = 6  # nested brackets; a deeper value gets a name


def expand(graph: Graph) -> ast.File:
    """Builds the spec of a graph.

    Raises `ArchError` if an input or an axis has the name of an operator or a choice that the
    model uses, and if a stack repeats an operator together with its arguments' computation.
    """
    return _File(graph).build()


class _File:
    """Builds the file: its blocks and its model."""

    def __init__(self, graph: Graph):
        graph = replace(graph, nodes=for_all_vectors(graph.nodes, graph.types()))
        self.graph = graph
        self.types = graph.types()
        self.blocks: list[ast.Block] = []
        self.params: dict[str, dict[str, str]] = {}  # of blocks of layers, by their carry
        nodes = [node for node, _ in walk(graph.nodes)]
        self.bound = {each.name for each in (*graph.inputs, *graph.labels)}
        self.bound |= {axis.name for axis in graph.varying}
        self.reserved = RESERVED
        self.check_clashes(nodes)
        self.bound |= {output for output, _ in graph.outputs}
        taken = NameScope(self.bound | {node.path for node in nodes})
        self.names = {
            id: taken.fresh_name(block_name(n)) for n in nodes for id in self.block_ids(n)
        }
        taken.names |= {f"{self.names[n.id]}_update" for n in nodes if isinstance(n, Scan)}
        embeds = [n for n in nodes if isinstance(n, Apply) and n.op == "embed"]
        tables = [n.path for n in embeds if self.has_weights(n)]
        last = Counter(path.rpartition(".")[2] for path in tables)
        # A label can name these in the body of the model; the others need a path.
        self.labels = {path for path in tables if last[path] == 1}

    def check_clashes(self, nodes: Iterable[Node]) -> None:
        """Rejects names of inputs and axes that would hide an operator or a choice."""
        used: set[object] = set()
        for node in nodes:
            if isinstance(node, Apply):
                used |= {node.op, *(value for value in node.attr.values() if value in CHOICES)}
                if mask := node.attr.get("mask"):
                    self.reserved |= {a.op for a in masks.atoms(masks.parse(str(mask)))}
        used |= self.reserved - RESERVED
        for each in sorted(self.bound & used):
            fail(
                "duplicate-name",
                f"`{each}` of `{self.graph.name}` has the same name as an operator or a "
                "choice that the model uses",
                help="give the input or the axis another name",
            )

    def has_weights(self, node: Node) -> bool:
        if isinstance(node, Stack | Mixture):
            return True
        if isinstance(node, Scan):
            return False
        return bool(OPS[node.op].weights(site(self.graph, node, self.types)))

    def block_ids(self, node: Node) -> list[str]:
        """The ids for which a block is written: bodies that are no chains, by their carry, and
        operators that need names of axes."""
        match node:
            case Stack():
                return [body.carry for body in node.bodies if not is_chain(body)]
            case Mixture():
                return [] if is_chain(node.inside) else [node.carry]
            case Apply() if infix(node):
                return [] if self.matches(node) else [node.id]
            case Apply():
                return [node.id] if node.attr.get("axis") is not None else []
            case Scan():
                return [node.id]

    def matches(self, node: Apply) -> bool:
        """Whether the axes of two tensors match as they do in the model.

        In the written spec the axes of fixed sizes have no names, or those of the graph.
        """
        here = site(self.graph, node, self.types)
        for tensors in (here.tensors, {p: _unnamed(type) for p, type in here.tensors.items()}):
            same = Site(tensors, {}, here.varying, {})
            try:
                check_order(same)
                if match_axes(same).get("along") != node.attr.get("along"):
                    return False
            except Mismatch:
                return False
        return True

    # -- the model --

    def build(self) -> ast.File:
        graph, seen = self.graph, set[str]()
        body = _Body(self, graph.nodes, {each.name: each.name for each in graph.inputs})
        body.taken.names |= self.bound
        body.labels = self.labels
        inputs = [
            ast.Input(
                SPAN,
                name(each.name),
                self.input_type(each, seen),
                None if each.default is None else scalar(each.default),
            )
            for each in graph.inputs
        ]
        edges = body.model()
        loss = [self.loss(body, seen)] if graph.losses else []
        statements = (
            *inputs,
            self.init(),
            *_after_blank_lines(edges),
            *_after_blank_lines(loss),
        )
        model = ast.Model(
            SPAN, name(graph.name), ast.Params(SPAN, ()), ast.Body(SPAN, statements)
        )
        return ast.File(SPAN, (*self.blocks, model))

    def input_type(self, each: Input, seen: set[str]) -> ast.Type:
        """The type of an input; the first use of a varying axis has its bounds."""
        varying = {axis.name: axis for axis in self.graph.varying}
        axes = []
        for axis in plain_type(each.type).axes:
            if isinstance(axis.size, ast.Name) and axis.size.id not in seen:
                seen.add(axis.size.id)
                known = varying[axis.size.id]
                least = integer(known.least) if known.least != 1 else None
                axis = replace(axis, bound=integer(known.bound), least=least)
            axes.append(axis)
        below, pad = (None if n is None else integer(n) for n in (each.type.below, each.pad))
        return ast.Type(SPAN, each.type.dtype, tuple(axes), below, pad)

    def init(self) -> ast.Init:
        rule, numbers = self.graph.init
        return ast.Init(SPAN, call(rule, (arg(key, number(n)) for key, n in numbers)))

    def loss(self, body: _Body, seen: set[str]) -> ast.Loss:
        labels = {each.name: each for each in self.graph.labels}
        body.names |= {label: label for label in labels}
        terms = (
            ast.Term(
                SPAN,
                None if term.weight == 1 else ast.Float(SPAN, repr(term.weight)),
                self.term(term.loss, body, labels, seen),
            )
            for term in self.graph.losses
        )
        return ast.Loss(SPAN, tuple(terms), None)

    def term(
        self, loss: Apply, body: _Body, labels: dict[str, Input], seen: set[str]
    ) -> ast.Call:
        """A loss; its first use of a label declares it."""
        args = []
        for param, ref in loss.inputs:
            label = labels.pop(ref, None)
            args.append(
                arg(
                    None if OPS[loss.op].param(param).required else param,
                    ast.Typed(SPAN, name(ref), self.input_type(label, seen))
                    if label
                    else name(body.names[ref]),
                )
            )
        return ast.Call(SPAN, name(loss.op), (*args, *settings(loss, ())))

    # -- blocks --

    def repeated(self, stack: Stack, outer: Mapping[str, str]) -> ast.Expr:
        """The repeated block of a stack; `outer` are the names outside the stack."""
        blocks = [self.body(stack, body, outer) for body in stack.bodies]
        count = integer(stack.count)
        if not stack.kinds:
            if stack.tied:
                return ast.Repeat(SPAN, blocks[0], count, True, None)
            return ast.Binary(SPAN, blocks[0], "*", count)
        taken = NameScope((*self.names.values(), *outer.values(), *self.bound))
        number = taken.fresh_name("i")
        block = choose_by_number(dict(enumerate(stack.kinds)), blocks, number)
        return ast.Repeat(SPAN, block, count, stack.tied, name(number))

    def repeats(self, first: Stack, node: Stack) -> bool:
        """Whether a stack with the weights of another one can be written as the same block."""
        outer = captured_values(first), captured_values(node)
        if len(outer[0]) != len(outer[1]):
            return False
        known = dict(zip(*outer, strict=True))
        same = (first.count, first.kinds, first.tied) == (node.count, node.kinds, node.tied)
        bodies = zip(first.bodies, node.bodies, strict=True) if same else ()
        same = same and all(alike(*pair, known, typed=False) for pair in bodies)
        # Only the call of one block can have other arguments.
        block = len(first.bodies) == 1 and first.bodies[0].carry in self.params
        return same and (block or outer[0] == outer[1])

    def body(self, stack: Stack | Mixture, body: Body, outer: Mapping[str, str]) -> ast.Expr:
        """What the layers of one kind, or the experts, compute."""
        direct = [n for n in body.nodes if isinstance(n, Apply) and not n.path]
        if len(body.nodes) > 1 and any(self.has_weights(n) for n in direct):
            fail(
                "stack",
                f"`{stack.path}` of `{self.graph.name}` repeats an operator together with "
                "the computation of its arguments",
                help="compute the arguments before the stack, or put the operator in a block",
            )
        if is_chain(body):
            inside = _Body(self, body.nodes, outer)
            nodes = (node for node in body.nodes if not isinstance(node, Scan))
            steps = tuple(ast.Step(SPAN, inside.step(node)) for node in nodes)
            return steps[0].value if len(steps) == len(direct) == 1 else ast.Lambda(SPAN, steps)
        return self.layer(body, outer)

    def layer(self, layer: Body, outer: Mapping[str, str]) -> ast.Expr:
        """Writes the body of a stack as a block; the carry and outer values are parameters."""
        block = self.names[layer.carry]
        taken = NameScope(self.names.values())
        known = {layer.carry: taken.fresh_name("x")}
        known |= {ref: taken.fresh_name(outer[ref]) for ref in outer_refs(layer)}
        types = [self.types[node.id] for node in reversed(layer.nodes)]
        used = {axis.size: axis.name for type in types for axis in type.axes if axis.name}
        binding = Binding(taken, used)
        self.params[layer.carry] = known
        params = tuple(
            ast.Param(SPAN, name(param), binding.type(self.types[ref]), None)
            for ref, param in known.items()
        )
        result = binding.type(self.types[layer.result])
        body = _Body(self, layer.nodes, known)
        body.taken, body.sizes = taken, binding.named
        statements = ast.Body(SPAN, body.block(layer.result))
        self.blocks.append(
            ast.Block(SPAN, name(block), ast.Params(SPAN, params), result, statements)
        )
        return call(block, (arg(known[ref], name(outer[ref])) for ref in outer_refs(layer)))

    def state(self, scan: Scan, outer: Mapping[str, str]) -> ast.Expr:
        """Writes a state as a block, and its update as another one; calls the first."""

        def update(known: Mapping[str, str], taken: NameScope) -> ast.Body:
            body = _Body(self, scan.body, known)
            body.taken = taken
            return ast.Body(SPAN, body.block(scan.result))

        taken = NameScope(self.names.values())
        block = self.names[scan.id]
        self.blocks += state_blocks(scan, self.types, block, outer, taken, update)
        return call(block, (arg(None, name(outer[ref])) for ref in refs(scan)))

    def along(self, node: Apply) -> str:
        """Writes a block of one operator, whose parameters give the axes names."""
        block, taken = self.names[node.id], NameScope(self.names.values())
        known = {param: taken.fresh_name(param) for param, _ in node.inputs}
        axes = self.axis_names(node, taken)
        params = tuple(
            ast.Param(
                SPAN,
                name(known[param]),
                ast.Type(
                    SPAN,
                    self.types[ref].dtype,
                    tuple(ast.Axis(SPAN, name(axis), None) for axis in axes[param]),
                    None,
                    None,
                ),
                None,
            )
            for param, ref in node.inputs
        )
        first, *others = known
        value: ast.Expr
        if infix(node):
            value = _between(name(known["x"]), node, name(known["other"]))
        else:
            index = node.attr["axis"]
            assert isinstance(index, int)
            args = [arg(p, name(known[p])) for p in others]
            args += [arg("axis", name(axes[first][index])), *settings(node, ())]
            value = chain(name(known[first]), call(node.op, args))
        statements = ast.Body(SPAN, (ast.Result(SPAN, value),))
        self.blocks.append(
            ast.Block(SPAN, name(block), ast.Params(SPAN, params), None, statements)
        )
        return block

    def axis_names(self, node: Apply, taken: NameScope) -> dict[str, list[str]]:
        """Names for the axes of each tensor; axes that an operator matches share one."""
        types = {param: self.types[ref] for param, ref in node.inputs}
        if not infix(node):
            return {
                p: [taken.fresh_name(a.name or "A") for a in type.axes]
                for p, type in types.items()
            }
        larger = "x" if is_larger(types["x"], types["other"]) else "other"
        names = [taken.fresh_name(a.name or "A") for a in types[larger].axes]
        along = node.attr.get("along")
        places = range(len(names)) if along is None else along
        assert isinstance(places, range | tuple)
        smaller = [names[i] for i in places if isinstance(i, int)]
        return {p: names if p == larger else smaller for p in types}


def _between(left: ast.Expr, node: Apply, right: ast.Expr) -> ast.Expr:
    """An operator of two tensors as a sign between them."""
    sign = infix(node)
    assert sign is not None
    node_type = ast.Compare if node.op == "compare" else ast.Binary
    return node_type(SPAN, left, sign, right)


def _unnamed(type: Type) -> Type:
    """A type without the names of axes of fixed size."""
    axes = (
        replace(axis, name=None) if axis.size.value is not None else axis for axis in type.axes
    )
    return replace(type, axes=tuple(axes))


class _Pending(Frozen):
    """An expression that waits to be used inline."""

    ref: str
    expr: ast.Expr
    depth: int


class _Body:
    """Writes one body in the order of execution."""

    def __init__(self, file: _File, nodes: tuple[Node, ...], names: Mapping[str, str]):
        self.file = file
        self.nodes = nodes
        self.names = dict(names)
        self.taken = NameScope((*file.names.values(), *names.values()))
        self.labels: Collection[str] = ()
        self.sizes: Mapping[Size, str] | None = None  # the names that a block binds
        self.places = {node.path for node in nodes if file.has_weights(node)}
        self.first: dict[str, Node] = {}  # the first node with a path, which has the weights
        self.statements: list[ast.Statement] = []
        self.pending: list[_Pending] = []
        self.outputs: list[tuple[str, str]] = []

    # -- whole bodies --

    def model(self) -> list[ast.Statement]:
        """Writes the edges and outputs of a model."""
        graph = self.file.graph
        self.outputs = list(graph.outputs)
        outputs = results(graph)
        for ref in self.write(outputs):
            # Only a fact may use a value that no output depends on.
            type = plain_type(self.file.types[ref])
            self.statements.append(ast.ExpectType(SPAN, name(self.names[ref]), type))
        for output, ref in self.outputs:
            self.output(output, ref, name(self.names[ref]))
        return self.statements

    def block(self, result: str) -> tuple[ast.Statement, ...]:
        """Writes the edges of a block and its result."""
        if unused := self.write(set(), result):
            fail(
                "unused-name",
                f"`{self.names[unused[0]]}` of `{self.file.graph.name}` is computed in a "
                "block but never used, which a spec cannot express",
            )
        (value,) = self.operands((result,))
        self.name_pending()
        return (*self.statements, ast.Result(SPAN, value.expr))

    def write(self, outputs: set[str], result: str | None = None) -> list[str]:
        """Writes all nodes except pending ones; returns the ids of unused ones."""
        waiting = inline_values(self.nodes, outputs, result)
        self.write_ready_outputs()
        for node in self.nodes:
            if isinstance(node, Apply) and node.op == "weight":
                self.name_pending()
                self.weight(node)
                continue
            piece = self.write_node(node)
            if node.id in waiting and piece.depth <= _DEEPEST:
                self.pending.append(piece)
            else:
                self.name_pending()
                self.bind(node, piece.expr)
        used = {ref for node in self.nodes for ref in refs(node)} | outputs | {result}
        return [node.id for node in self.nodes if node.id not in used]

    # -- statements --

    def name_pending(self) -> None:
        """Gives pending values a name, so that the order of execution stays the same."""
        nodes = {node.id: node for node in self.nodes}
        waiting, self.pending = self.pending, []
        for piece in waiting:
            self.bind(nodes[piece.ref], piece.expr)

    def bind(self, node: Node, expr: ast.Expr) -> None:
        """Writes a named value: the next output, or an edge."""
        if (
            self.outputs
            and self.outputs[0][1] == node.id
            and self.outputs[0][0] not in self.file.reserved
        ):
            output, _ = self.outputs.pop(0)
            self.output(output, node.id, expr)
        else:
            self.names[node.id] = self.taken.fresh_name(suggest_name(node, expr))
            self.statements.append(ast.Edge(SPAN, name(self.names[node.id]), expr))
        self.write_ready_outputs()

    def weight(self, node: Apply) -> None:
        """Writes a trained tensor: a statement, or a labelled call if its path is no name."""
        start, std = node.attr["start"], node.attr["std"]
        fresh = "." not in node.path and node.path not in self.taken.names
        if not fresh or reserved_word(node.path, SPAN):
            self.bind(node, ast.Labeled(SPAN, name(node.path), self.operator(node)))
            return
        value: ast.Expr | None = None
        if isinstance(start, float):
            value = number(start)
        elif isinstance(std, float):
            value = call("normal", (arg("std", number(std)),))
        self.names[node.id] = self.taken.fresh_name(node.path)
        type = plain_type(self.file.types[node.id])
        self.statements.append(ast.Weight(SPAN, name(node.path), type, value))
        self.write_ready_outputs()

    def write_ready_outputs(self) -> None:
        """Writes the next outputs whose values already have names."""
        while self.outputs and self.outputs[0][1] in self.names:
            output, ref = self.outputs[0]
            if output in self.file.reserved:
                return  # its name would hide a name of the language, so it comes last
            self.outputs.pop(0)
            self.output(output, ref, name(self.names[ref]))

    def output(self, output: str, ref: str, expr: ast.Expr) -> None:
        self.names.setdefault(ref, output)
        type = plain_type(self.file.types[ref])
        self.statements.append(ast.Output(SPAN, name(output), type, None, expr))

    # -- expressions --

    def write_node(self, node: Node) -> _Pending:
        """The expression of a node with its inputs."""
        if isinstance(node, Scan):
            return _Pending(node.id, self.file.state(node, self.names), 0)
        wanted = chained_inputs(node) if isinstance(node, Apply) else (node.input,)
        parts = self.operands(wanted)
        if isinstance(node, Apply) and infix(node):
            left, right = parts
            depth = 1 + max(left.depth, right.depth)
            return _Pending(node.id, self.pair(node, left.expr, right.expr), depth)
        if not parts:
            return _Pending(node.id, self.step(node), 0)
        return _Pending(node.id, chain(parts[0].expr, self.step(node)), parts[0].depth)

    def pair(self, node: Apply, left: ast.Expr, right: ast.Expr) -> ast.Expr:
        """An infix expression, or a call if it needs a label or a block of its own."""
        own = node.id in self.file.names
        place = self.unique_label(node)
        if not place and not own:
            return _between(left, node, right)
        callee = self.file.along(node) if own else node.op
        kind = settings(node, ("to", "along")) if node.op == "compare" and not own else ()
        both = ast.Call(SPAN, name(callee), (arg(None, left), arg("other", right), *kind))
        return ast.Labeled(SPAN, name(place), both) if place else both

    def operands(self, wanted: tuple[str, ...]) -> list[_Pending]:
        """The expressions of values at their use: pending ones, or names."""
        waiting = [piece for piece in self.pending if piece.ref in wanted]
        start = len(self.pending) - len(waiting)
        inline = [ref for ref in wanted if ref in {piece.ref for piece in waiting}]
        if inline == [piece.ref for piece in self.pending[start:]]:
            self.pending = self.pending[:start]
        else:
            self.name_pending()
        result = {piece.ref: piece for piece in waiting if piece.ref not in self.names}
        return [result.get(ref) or _Pending(ref, name(self.names[ref]), 0) for ref in wanted]

    def step(self, node: Apply | Stack | Mixture) -> ast.Expr:
        """The expression of a node after an arrow, without its input."""
        if self.file.has_weights(node) and node.path:
            first = self.first.setdefault(node.path, node)
            if first is not node:
                return self.tied(first, node)
        match node:
            case Apply():
                result: ast.Expr = self.operator(node)
                label = node.path if self.file.has_weights(node) else self.unique_label(node)
            case Stack():
                result = self.file.repeated(node, self.names)
                label = node.path
            case Mixture():
                expert = self.file.body(node, node.inside, self.names)
                gates = arg("gates", name(self.names[node.gates]))
                result = call("mixture", (gates, arg("expert", expert)))
                label = node.path
        return ast.Labeled(SPAN, name(label), result) if label else result

    def tied(self, first: Node, node: Node) -> ast.Expr:
        """The step of a node that has the weights of an earlier one."""
        args = [arg(None, ast.String(SPAN, node.path))]
        match first, node:
            case Apply(), Apply():
                same = replace(node, attrs=tuple(set(node.attrs) - set(first.attrs)))
                tensors = (pair for pair in node.inputs[1:] if pair not in first.inputs)
                args += [arg(param, name(self.names[ref])) for param, ref in tensors]
                args += settings(same, self.labels)
            case Stack(), Stack() if self.file.repeats(first, node):
                params = self.file.params.get(first.bodies[0].carry, {})
                pairs = zip(captured_values(first), captured_values(node), strict=True)
                args += [arg(params[old], name(self.names[r])) for old, r in pairs if old != r]
            case _:
                fail(
                    "stack",
                    f"`{node.path}` of `{self.file.graph.name}` is used again with other "
                    "operators, which a spec cannot express",
                )
        return call(TIED, args)

    def operator(self, node: Apply) -> ast.Call | ast.Name:
        op = OPS[node.op]
        names = {param: self.names[ref] for param, ref in node.inputs[1:]}
        others = [arg(param, name(names[param])) for param in names if not is_input(param)]
        if node.id in self.file.names:
            return call(self.file.along(node), others)
        return call(op.name, (*others, *settings(node, self.labels, self.sizes, names)))

    def unique_label(self, node: Apply) -> str | None:
        """A label for an operator without weights, if its default path is taken."""
        taken = [p for p in self.places if re.fullmatch(rf"{node.op}(_\d+)?", p)]
        if not taken or not node.path:
            return None
        place = next(p for n in range(2, 10**6) if (p := f"{node.op}_{n}") not in self.places)
        self.places.add(place)
        return place


def _after_blank_lines(statements: Iterable[ast.Statement]) -> Iterator[ast.Statement]:
    """Adds an empty line before each statement."""
    return (replace(each, trivia=ast.Trivia(blank=True)) for each in statements)
