"""The layers of a stack: what is captured of the second one is known of all behind it.

A program's capture is a list of calls of kernels with buffers. Those of a later copy are the
second one's with other buffers: for what a copy has of its own, such as its weights, that of
the other; for what it begins with, what the one before has given; for what it has made,
new ones. All else must be what the first copy has as well. Where any of this does not hold, a
copy is traced as the first two are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from tinygrad import Tensor, UOp

from archdsl.backend.tinygrad_seam import Ops, buffers, current_capture
from archdsl.backend.use import Run


def through(
    run: Run,
    count: int,
    x: Tensor,
    trace: Callable[[int, Tensor], Tensor],
    own: Callable[[int], Mapping[str, Tensor]],
) -> Tensor:
    """What a stack of `count` copies makes of x.

    `trace` computes one copy, the i-th, of what it begins with; `own` are the tensors that it
    alone has, each by a name that it has in all copies.
    """
    x = run.part(x)
    first: set[UOp] = set()
    second: _Copy | None = None
    for i in range(count):
        made = second.again(x, own(i)) if second else None
        if made is None:
            has = {name: tensor.uop for name, tensor in own(i).items()} if i == 1 else {}
            newest, before = next(UOp.unique_num), x.uop
            start = len(_captured())
            made = run.part(trace(i, x))
            calls = tuple(call for linear in _captured()[start:] for call in linear.src)
            if i == 0:
                first = set(_buffers(*calls))
            elif i == 1:
                second = _Copy.of(calls, has, before, made.uop, first, newest)
        x = made
    return x


def owned(run: Run, path: str, i: int) -> dict[str, Tensor]:
    """The weights of the i-th copy of the stack at a path, by what follows their places."""
    before = f"{path}.{i}."
    found = {n.removeprefix(before): w for n, w in run.weights.items() if n.startswith(before)}
    for name, weight in run.quantized.items():
        if name.startswith(before):
            parts = {f"{name.removeprefix(before)}.{key}": t for key, t in vars(weight).items()}
            found |= {key: tensor for key, tensor in parts.items() if tensor is not None}
    return found


@dataclass(frozen=True)
class _Copy:
    """A copy as it was captured: its calls, what it has of its own, what it begins with and
    gives, and the buffers of all that it has made."""

    calls: tuple[UOp, ...]
    own: Mapping[str, UOp]
    begin: UOp
    end: UOp
    made: frozenset[UOp]

    @staticmethod
    def of(
        calls: tuple[UOp, ...],
        own: Mapping[str, UOp],
        begin: UOp,
        end: UOp,
        first: set[UOp],
        newest: int,
    ) -> _Copy | None:
        """The copy, unless it has what others of its kind may not have; `first` are the buffers
        of the first one, and newer ones than `newest` are of this one."""
        mine = {uop.base for uop in own.values() if _whole(uop)}
        # A part of what others have parts of, too, cannot be told from what all have.
        shared = {each for uop in own.values() for each in _buffers(uop)} - mine
        used = set(_buffers(*calls)) - mine - {begin.base}
        made = {each for each in used if each.arg.slot > newest and each not in buffers}
        if not _whole(begin) or not _whole(end) or end.base not in made:
            return None
        if mine & first or used & shared or not used - made <= first:
            return None
        return _Copy(calls, own, begin, end, frozenset(made))

    def again(self, x: Tensor, own: Mapping[str, Tensor]) -> Tensor | None:
        """What another copy gives of x, whose calls are captured; None where it is unlike."""
        if own.keys() != self.own.keys():
            return None
        pairs = [(uop, own[name].uop) for name, uop in self.own.items() if _whole(uop)]
        pairs.append((self.begin, x.uop))
        if not all(_alike(ours, theirs) for ours, theirs in pairs):
            return None
        moved = {ours.base: theirs.base for ours, theirs in pairs}
        moved |= {each: _another(each) for each in self.made}
        calls = (
            call.replace(src=(call.src[0], *(_moved(each, moved) for each in call.src[1:])))
            for call in self.calls
        )
        capture = current_capture()
        assert capture is not None  # or there would be no calls
        capture.add_linear(UOp(Ops.LINEAR, src=tuple(calls)), {})
        return Tensor(_moved(self.end, moved))


def _captured() -> list[UOp]:
    """What a program's capture has so far; nothing where there is none under way."""
    capture = current_capture()
    found: list[UOp] = capture._linears if capture else []
    return found


def _buffers(*uops: UOp) -> Iterator[UOp]:
    """What they read and write; of calls of kernels that is not the kernels."""
    for uop in uops:
        for each in uop.src[1:] if uop.op is Ops.CALL else (uop,):
            yield from (found for found in each.toposort() if found.op is Ops.BUFFER)


def _whole(uop: UOp) -> bool:
    """Whether it is a buffer, in any shape, and no part of one."""
    base = uop.base
    return base.op is Ops.BUFFER and base.max_numel() == uop.max_numel()


def _alike(ours: UOp, theirs: UOp) -> bool:
    """Whether two are buffers of one size and dtype, seen in one way."""
    if not _whole(theirs) or _another(ours.base, theirs.base.arg.slot) is not theirs.base:
        return False
    return _moved(ours, {ours.base: theirs.base}) is theirs


def _another(buffer: UOp, slot: int | None = None) -> UOp:
    """A buffer of the same size, dtype and device."""
    slot = next(UOp.unique_num) if slot is None else slot
    return buffer.replace(arg=replace(buffer.arg, slot=slot))


def _moved(uop: UOp, moved: Mapping[UOp, UOp]) -> UOp:
    return moved[uop] if uop in moved else uop.substitute(dict(moved))
