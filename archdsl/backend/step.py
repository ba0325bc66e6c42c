"""A model computed step by step, as passes/decoding.py has derived it.

`once` computes what does not depend on the tokens; `step` computes the logits of a few new
tokens [B, n] from the keys and values of those before. Rows of unequal length stand with
their ends below one another: what is lacking stands in front, and `starts` says how much.
The number of columns before, `past`, is a variable of tinygrad's, so that one program serves
all positions. Shapes are written as in backend/use.py; S are all columns up to the new ones,
L those that there is room for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from tinygrad import Tensor, dtypes

from archdsl.backend import positions
from archdsl.backend.attend import weighted
from archdsl.backend.copies import owned, through
from archdsl.backend.emit import EMIT
from archdsl.backend.kernels import attention
from archdsl.backend.tensors import made, shape
from archdsl.backend.use import TILE, Run, Use
from archdsl.backend.walk import prepared, used
from archdsl.graph.nodes import Apply, Node, Stack
from archdsl.graph.sites import place
from archdsl.passes.decoding import Decoding
from archdsl.passes.kernels import TINYGRAD, Attention

Copy: TypeAlias = tuple[int, ...]
# Values by where they are made: the id, and the copies of the stacks around it.
Values: TypeAlias = dict[tuple[str, Copy], Tensor]


@dataclass
class Step:
    """What a step knows beside its values: where its tokens stand, and what came before.

    `keys` and `values` [B, L or fewer, K, h] are written in place.
    """

    run: Run
    plan: Decoding
    past: Any  # int, or a bound variable
    room: int  # L, how many columns there are at most
    starts: Tensor  # [B]
    kept: Mapping[tuple[str, Copy], Tensor]
    keys: Mapping[tuple[str, Copy], Tensor]
    values: Mapping[tuple[str, Copy], Tensor]
    count: int = 0
    rows: dict[int, Tensor] = field(default_factory=dict)  # of tables, at these positions
    first: dict[int, Tensor] = field(default_factory=dict)  # by how many tokens are new

    @property
    def end(self) -> Any:
        """S: how many columns there are. Tensor cores take whole tiles of them: what comes
        after the new ones is hidden as the future is."""
        end = self.past + self.count
        return -(-end // TILE) * TILE if self.run.tensor_cores else end

    @property
    def columns(self) -> Tensor:
        """[n]: the columns of the new tokens."""
        columns: Tensor = Tensor.arange(self.count) + self.past
        return columns

    @property
    def beginning(self) -> Tensor:
        """[1]: the column of the first new token, computed once for all layers."""
        if self.count not in self.first:
            first = self.columns[:1].cast(dtypes.int32).to(self.run.device)
            self.first[self.count] = first.contiguous()
        return self.first[self.count]

    @property
    def positions(self) -> Tensor:
        """[B, n]: the position of each new token in its row; 0 in front of it."""
        found: Tensor = (self.columns.reshape(1, -1) - self.starts.reshape(-1, 1)).maximum(0)
        return found


def once(run: Run, plan: Decoding, inputs: Mapping[str, Tensor]) -> Values:
    """What steps use of that which does not depend on the tokens."""
    values: Values = {(name, ()): tensor for name, tensor in inputs.items()}
    prepared(run, inputs, plan.once)
    _walk_once(run, plan, values, plan.graph.nodes, (), ())
    wanted = {state.ref for state in plan.states if not state.past}
    return {key: value for key, value in values.items() if key[0] in wanted}


# The walks are no functions inside others: these would keep themselves, and all values, until
# Python looks for cycles, and tinygrad gives what is kept a place of its own in memory.


def _walk_once(
    run: Run,
    plan: Decoding,
    values: Values,
    nodes: tuple[Node, ...],
    around: tuple[Stack, ...],
    copy: Copy,
) -> None:
    for node in nodes:
        match node:
            case Apply() if node.id in plan.once and node.id not in run.epilogues.within:
                use = used(run, node, _finder(values, copy), around, copy)
                values[node.id, copy] = EMIT[use.op](use)
            case Stack():
                for i in range(node.count):
                    if node.carry in plan.once:
                        x = node.input if i == 0 else node.result
                        at = copy if i == 0 else (*copy, i - 1)
                        values[node.carry, (*copy, i)] = run.part(_seen_from(values, x, at))
                    _walk_once(run, plan, values, node.body, (*around, node), (*copy, i))
                if node.id in plan.once:
                    end = values[node.result, (*copy, node.count - 1)]
                    values[node.id, copy] = run.part(end)


def step(here: Step, tokens: Tensor, last: bool) -> Tensor:
    """The logits of new tokens [B, n]: [B, n, vocab], or [B, 1, vocab] of the `last` alone."""
    run, plan = here.run, here.plan
    here.count = shape(tokens)[1]
    run.knows(plan.graph, plan.once)
    run.sizes[plan.axis] = here.count
    values: Values = {(plan.tokens, ()): tokens, **here.kept}
    looking = [i for i, node in enumerate(plan.graph.nodes) if _looks(node)]

    end = looking[-1] + 1 if last and looking else 0
    _walk(here, values, plan.graph.nodes[:end], (), ())
    if end:
        # Behind the last attention the last position stands for itself.
        _shorten(here, values)
    _walk(here, values, plan.graph.nodes[end:], (), ())
    ((_, logits),) = plan.graph.outputs
    return _seen_from(values, logits, ())


def _walk(
    here: Step,
    values: Values,
    nodes: tuple[Node, ...],
    around: tuple[Stack, ...],
    copy: Copy,
) -> None:
    for node in nodes:
        if node.id in here.plan.once or node.id in here.run.epilogues.within:
            continue
        match node:
            case Apply():
                use = used(here.run, node, _finder(values, copy), around, copy)
                values[node.id, copy] = _stepped(here, node, copy, use)
            case Stack():
                x = _seen_from(values, node.input, copy)
                one = partial(_copy, here, values, node, around, copy)
                own = partial(_owned, here, place(node.path, around, copy), copy)
                values[node.id, copy] = through(here.run, node.count, x, one, own)


def _copy(
    here: Step,
    values: Values,
    node: Stack,
    around: tuple[Stack, ...],
    copy: Copy,
    i: int,
    x: Tensor,
) -> Tensor:
    """What the i-th copy of a block makes of x."""
    values[node.carry, (*copy, i)] = x
    _walk(here, values, node.body, (*around, node), (*copy, i))
    return _seen_from(values, node.result, (*copy, i))


def _owned(here: Step, path: str, copy: Copy, i: int) -> dict[str, Tensor]:
    """The tensors that the i-th copy of the stack at a path alone has: weights, and what is
    kept of it."""
    found = owned(here.run, path, i)
    for what, each in (("keys", here.keys), ("values", here.values), ("kept", here.kept)):
        for (ref, at), tensor in each.items():
            if at[: len(copy) + 1] == (*copy, i):
                found[f"{what} {ref} {at[len(copy) + 1 :]}"] = tensor
    return found


def _seen_from(values: Values, ref: str, copy: Copy) -> Tensor:
    """A value as a copy sees it: its own, or that of a stack around."""
    return next(
        values[ref, copy[:n]] for n in range(len(copy), -1, -1) if (ref, copy[:n]) in values
    )


def _finder(values: Values, copy: Copy) -> Callable[[str], Tensor]:
    """What finds values by their ids, as a copy sees them."""
    return lambda ref: _seen_from(values, ref, copy)


def _looks(node: Node) -> bool:
    """Whether a node, or one inside it, looks at the past."""
    if isinstance(node, Stack):
        return any(map(_looks, node.body))
    return node.op == "attend" and bool(node.attr["causal"])


def _shorten(here: Step, values: Values) -> None:
    plan = here.plan
    for (ref, copy), value in values.items():
        axes = [a.size.vars for a in here.run.types[ref].axes]
        if ref not in plan.once and not copy and {plan.axis} in axes:
            index = axes.index(frozenset({plan.axis})) + 1
            where = [slice(None)] * value.ndim
            where[index] = slice(here.count - 1, here.count)
            values[ref, copy] = value[tuple(where)]
    here.past, here.count = here.past + here.count - 1, 1
    here.rows.clear()
    here.run.sizes[plan.axis] = 1


def _stepped(here: Step, node: Apply, copy: Copy, use: Use) -> Tensor:
    if use.op == "attend" and use.attr["causal"]:
        return _attend(here, use, here.keys[node.id, copy], here.values[node.id, copy])
    out = STEPS[use.op](here, use) if use.op in STEPS else EMIT[use.op](use)
    # A sum that goes on to the next layer is computed once: for one token tinygrad would
    # else make it of all products behind it again, in every layer.
    return made(out) if node.op == "add" else out


# -- operators that ask for the position --


def _posenc(here: Step, use: Use) -> Tensor:
    rows = positions.encodings(use)[here.positions]  # [B, n, D]
    return use.x + rows.cast(use.x.dtype)  # [B, n, D]


def _rotary(here: Step, use: Use) -> Tensor:
    angles = positions.angles(use)
    if id(angles) not in here.rows:
        # Looked up once for all layers.
        here.rows[id(angles)] = angles[:, here.positions].contiguous()  # [2, B, n, size / 2]
    return positions.turned(use, here.rows[id(angles)])  # [B, n, …, h]


def _attend(here: Step, use: Use, keys: Tensor, values: Tensor) -> Tensor:
    """As backend/attend.py, of new queries [B, n, H, h] to what is kept of all columns.

    Where there is less room than columns, each new one takes the place of the oldest: a ring.
    """
    q, k, v = (use.tensors[name] for name in "qkv")
    (batch, n, heads, size), room = shape(q), shape(keys)[1]
    ring = room < here.room
    widest = max(size, shape(values)[-1])
    work = Attention(batch * heads, n, room, widest, "bias" in use.tensors)
    if (kernel := use.run.kernel(work)) != TINYGRAD:
        scale, window, past = use.attr["scale"], use.attr["window"], here.beginning
        places = room if ring else 0
        kept = attention.keep(keys, values, k, v, past, places)
        return attention.core(
            kernel, q, *kept, scale, True, window, None, past, here.starts, places
        )
    at = here.past % room if ring else here.past
    new = slice(at, at + n)
    written = (
        keys[:, new].assign(k.cast(keys.dtype)),
        values[:, new].assign(v.cast(values.dtype)),
    )
    Tensor.realize(*written)
    S = room if ring else here.end
    seen = _seen(here, use, room if ring else None).unsqueeze(1)  # [B, 1, n, S]
    return weighted(use, q, keys[:, :S], values[:, :S], S, seen)  # [B, n, H, w]


def _seen(here: Step, use: Use, ring: int | None) -> Tensor:
    """[B, n, S]: which columns each new token may attend to; S are the places of a ring."""
    if ring is None:
        columns: Tensor = Tensor.arange(here.room)[: here.end]  # [S]
    else:
        # The last column that has taken each place.
        newest = here.past + here.count - 1
        age = (-Tensor.arange(ring) + newest) % ring  # [S]
        columns = -age + newest  # [S]
    behind = here.columns.reshape(-1, 1) - columns.reshape(1, -1)  # [n, S]
    seen = behind >= 0  # [n, S]
    if use.attr["window"] is not None:
        seen = seen & (behind < use.attr["window"])  # [n, S]
    there = columns.reshape(1, 1, -1) >= here.starts.reshape(-1, 1, 1)  # [B, 1, S]
    # What stands in front of a row sees itself: seeing nothing it would be no number.
    return (seen & there) | (behind == 0)  # [B, n, S]


def _alibi(here: Step, use: Use) -> Tensor:
    heads = use.attr["heads"]
    steep = use.run.constant(("alibi", heads), lambda: positions.slopes(heads))  # [H]
    bias = steep.reshape(1, heads, 1, 1) * -_behind(here, here.room)  # [1, H, n, L]
    return bias[..., : here.end]  # [1, H, n, S]


def _relative_bias(here: Step, use: Use) -> Tensor:
    bound = use.run.bound(use.axes[0].size)
    table = positions.distances(use, bound)  # [2 bound - 1]
    index = (bound - 1 - _behind(here, here.room)).clip(0, 2 * bound - 2)  # [n, L]
    bias = use.weights["weight"][table[index]].permute(2, 0, 1)  # [H, n, L]
    return bias.unsqueeze(0)[..., : here.end]  # [1, H, n, S]


def _behind(here: Step, room: int) -> Tensor:
    """[n, L]: how far each column stands behind each new token."""
    return here.columns.reshape(-1, 1) - Tensor.arange(room).reshape(1, -1)


STEPS: dict[str, Callable[[Step, Use], Tensor]] = {
    "posenc": _posenc,
    "rotary": _rotary,
    "alibi": _alibi,
    "relative_bias": _relative_bias,
}
