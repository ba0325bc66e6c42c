"""Writes a state as two blocks: the state with what it is computed from, and its update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from archdsl.describe.build_syntax import SPAN, Binding, NameScope, arg, call, name
from archdsl.diagnostics import fail
from archdsl.graph.nodes import Scan, refs
from archdsl.graph.types import Type
from archdsl.syntax import ast


def state_blocks(
    scan: Scan,
    types: Mapping[str, Type],
    block: str,
    outer: Mapping[str, str],
    taken: NameScope,
    write: Callable[[Mapping[str, str], NameScope], ast.Body],
) -> Iterator[ast.Block]:
    """The block `block`, which takes the values that a scan uses, and the block of its update.

    `types` are those of the graph's values and `outer` their names. `write` writes the body of
    an update, given the names in it and those that are taken.
    """
    slices = {each.of: each for each in scan.takes}
    if not slices:
        fail(
            "state",
            f"`{scan.path}` uses no value along its axis, which a block cannot express",
        )
    state, given = taken.fresh_name("s"), refs(scan)
    names = {ref: taken.fresh_name(outer[ref]) for ref in given}
    axis = taken.fresh_name(scan.along.name or "T")
    binding = Binding(taken)
    carry = binding.type(scan.carry_type)
    # What the update sees of each value.
    one = {
        ref: binding.type(slices[ref].type if ref in slices else types[ref]) for ref in given
    }
    first = ast.Axis(SPAN, name(axis), None)
    whole = {
        ref: replace(type, axes=(first, *type.axes)) if ref in slices else type
        for ref, type in one.items()
    }
    used = {each for node in scan.body for each in refs(node)} | {scan.result}
    inner = [ref for ref in given if ref in slices or ref in used]
    known = {slices[ref].id if ref in slices else ref: names[ref] for ref in inner}
    update = f"{block}_update"
    own = {scan.carry: state} if scan.carry in used else {}
    params = [_param(state, carry) for _ in own]
    params += [_param(names[ref], one[ref]) for ref in inner]
    yield _block(update, params, write(own | known, taken))
    value = call(update, (arg(None, name(each)) for each in (own | known).values()))
    start = None if scan.start is None else name(names[scan.start])
    statement = ast.State(SPAN, name(state), carry, name(axis), start, value)
    body = ast.Body(SPAN, (statement, ast.Result(SPAN, name(state))))
    yield _block(block, (_param(names[ref], whole[ref]) for ref in given), body)


def _param(param: str, type: ast.Type) -> ast.Param:
    return ast.Param(SPAN, name(param), type, None)


def _block(block: str, params: Iterable[ast.Param], body: ast.Body) -> ast.Block:
    return ast.Block(SPAN, name(block), ast.Params(SPAN, tuple(params)), None, body)
