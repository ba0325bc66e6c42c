"""Captures two layers of a stack, and replays the calls of the second for the layers after it.

A captured program is a list of kernel calls with their buffers. A layer runs the same calls as
the second layer of its kind with other buffers: its own weights, the output of the layer before
as its input, and new buffers for its intermediate values. All other buffers must be shared by
all layers of the kind, so the first of them must use them too. A layer for which this does not
hold is traced, as the first two of each kind are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from tinygrad import Tensor, UOp

from archdsl.backend.quantized import Quantized
from archdsl.backend.tinygrad_seam import Ops, buffers, current_capture
from archdsl.frozen import Frozen


def run_layers(
    realize: Callable[[Tensor], Tensor],
    kinds: Iterable[int],
    x: Tensor,
    trace: Callable[[int, Tensor], Tensor],
    own: Callable[[int], Mapping[str, Tensor]],
) -> Tensor:
    """The output of a stack for input x; see `each_layer`."""
    *_, last = each_layer(realize, kinds, x, trace, own)
    return last


def each_layer(
    realize: Callable[[Tensor], Tensor],
    kinds: Iterable[int],
    x: Tensor,
    trace: Callable[[int, Tensor], Tensor],
    own: Callable[[int], Mapping[str, Tensor]],
) -> Iterator[Tensor]:
    """The input x of a stack, then the output of each layer; `kinds` are their kinds.

    `trace(i, x)` computes layer i, and `realize` its value. `own(i)` are the tensors that only
    layer i uses, by names that are the same in all layers of a kind.
    """
    x = realize(x)
    yield x
    first: dict[int, set[UOp]] = {}
    second: dict[int, _LayerCapture | None] = {}
    for i, kind in enumerate(kinds):
        replayed = second.get(kind)
        out = replayed.replay(x, own(i)) if replayed else None
        if out is None:
            is_second = kind in first and kind not in second
            weights = {name: each.uop for name, each in own(i).items()} if is_second else {}
            newest, given = next(UOp.unique_num), x.uop
            start = len(_captured_calls())
            out = realize(trace(i, x))
            calls = tuple(call for linear in _captured_calls()[start:] for call in linear.src)
            if is_second:
                second[kind] = _LayerCapture.of(
                    calls, weights, given, out.uop, first[kind], newest
                )
            elif kind not in first:
                first[kind] = set(_buffers(*calls))
        x = out
        yield x


def layer_tensors(
    weights: Mapping[str, Tensor], quantized: Mapping[str, Quantized], path: str
) -> dict[str, Tensor]:
    """The weights of the layer at a path, by their names within the layer."""
    prefix = f"{path}."
    found = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
    for name, weight in quantized.items():
        if name.startswith(prefix):
            parts = {f"{name.removeprefix(prefix)}.{key}": t for key, t in vars(weight).items()}
            found |= {key: tensor for key, tensor in parts.items() if tensor is not None}
    return found


class _LayerCapture(Frozen):
    """A captured layer: its calls, own tensors, input, output, and intermediate buffers."""

    calls: tuple[UOp, ...]
    own: Mapping[str, UOp]
    input: UOp
    output: UOp
    intermediate: frozenset[UOp]

    @staticmethod
    def of(
        calls: tuple[UOp, ...],
        own: Mapping[str, UOp],
        input: UOp,
        output: UOp,
        first: set[UOp],
        newest: int,
    ) -> _LayerCapture | None:
        """The capture of layer 1; None if its calls cannot be replayed for other layers.

        `first` are the buffers of layer 0. Buffers with numbers above `newest` were created by
        layer 1.
        """
        mine = {uop.base for uop in own.values() if _is_whole(uop)}
        # A slice of a buffer that other layers slice too looks like a shared buffer.
        shared = {each for uop in own.values() for each in _buffers(uop)} - mine
        used = set(_buffers(*calls)) - mine - {input.base}
        created = {each for each in used if each.arg.slot > newest and each not in buffers}
        if not _is_whole(input) or not _is_whole(output) or output.base not in created:
            return None
        if mine & first or used & shared or not used - created <= first:
            return None
        return _LayerCapture(calls, own, input, output, frozenset(created))

    def replay(self, x: Tensor, own: Mapping[str, Tensor]) -> Tensor | None:
        """Adds the calls of another layer to the capture, and gives the layer's output.

        None if the layer's tensors differ in name, shape or dtype.
        """
        if own.keys() != self.own.keys():
            return None
        pairs = [(uop, own[name].uop) for name, uop in self.own.items() if _is_whole(uop)]
        pairs.append((self.input, x.uop))
        if not all(_is_alike(ours, theirs) for ours, theirs in pairs):
            return None
        replaced = {ours.base: theirs.base for ours, theirs in pairs}
        replaced |= {each: _new_buffer(each) for each in self.intermediate}
        calls = (
            call.replace(
                src=(call.src[0], *(_substitute(each, replaced) for each in call.src[1:]))
            )
            for call in self.calls
        )
        capture = current_capture()
        assert capture is not None  # calls were captured, so a capture is running
        capture.add_linear(UOp(Ops.LINEAR, src=tuple(calls)), {})
        return Tensor(_substitute(self.output, replaced))


def _captured_calls() -> list[UOp]:
    """The calls captured so far; empty if no capture is running."""
    capture = current_capture()
    found: list[UOp] = capture._linears if capture else []
    return found


def _buffers(*uops: UOp) -> Iterator[UOp]:
    """The buffers that UOps read and write; of a call only its arguments, not its kernel."""
    for uop in uops:
        for each in uop.src[1:] if uop.op is Ops.CALL else (uop,):
            yield from (found for found in each.toposort() if found.op is Ops.BUFFER)


def _is_whole(uop: UOp) -> bool:
    """Whether a UOp is a whole buffer in any shape, not a slice of one."""
    base = uop.base
    return base.op is Ops.BUFFER and base.max_numel() == uop.max_numel()


def _is_alike(ours: UOp, theirs: UOp) -> bool:
    """Whether two UOps are the same view of buffers of the same size and dtype."""
    if not _is_whole(theirs) or _new_buffer(ours.base, theirs.base.arg.slot) is not theirs.base:
        return False
    return _substitute(ours, {ours.base: theirs.base}) is theirs


def _new_buffer(buffer: UOp, slot: int | None = None) -> UOp:
    """A buffer of the same size, dtype and device, with another number."""
    slot = next(UOp.unique_num) if slot is None else slot
    return buffer.replace(arg=replace(buffer.arg, slot=slot))


def _substitute(uop: UOp, replaced: Mapping[UOp, UOp]) -> UOp:
    return replaced[uop] if uop in replaced else uop.substitute(dict(replaced))
