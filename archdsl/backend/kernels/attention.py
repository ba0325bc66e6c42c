"""The core of attention on the CPU, and what a step keeps of it.

Which keys a query sees is told by `attend.h`; no scores of all of them are ever stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.kernels.launch import launch
from archdsl.backend.tensors import shape


def attend(
    kernel: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    causal: bool,
    window: int | None = None,
    lengths: Tensor | None = None,
    past: Tensor | None = None,
    starts: Tensor | None = None,
    ring: int = 0,
    trains: bool = False,
) -> Tensor:
    """Queries [B, T, H, h] over keys [B, S, K, h] and values [B, S, K, w]: [B, T, H, w].

    Causal queries stand in columns from `past` [1] on, 0 where None, and see none before
    `starts` [B]; others see `lengths` [B] keys. In a `ring` each column has taken the place of
    the one so many before it. There are gradients where the kernel `trains`, which then writes
    down of each query what they are made of.
    """
    (B, T, H, size), (_, room, heads, value) = shape(q), shape(v)
    constants = {
        "B": B,
        "T": T,
        "H": H,
        "HEADS": heads,
        "SIZE": size,
        "VALUE": value,
        "ROOM": room,
        "RING": ring,
        "WINDOW": window or 0,
        "CAUSAL": int(causal),
        "SCALE": f"{scale!r}f",
    }
    outputs = {"out": Tensor.empty(B, T, H, value, device=q.device)}
    if trains:
        outputs["totals"] = Tensor.empty(B, T, H, 2, device=q.device)
    inputs = {"q": q.cast(dtypes.float32), "k": k, "v": v, "past": past}
    inputs |= {
        name: None if each is None else each.cast(dtypes.int32)
        for name, each in (("starts", starts), ("lengths", lengths))
    }
    operations = 2 * B * T * H * room * (size + value)
    back = _gradient(constants, lengths is not None, operations) if trains else None
    out, *_ = launch(kernel, constants, outputs, inputs, operations, back)
    return out.cast(v.dtype)


def _gradient(
    constants: Mapping[str, object], ragged: bool, operations: int
) -> Callable[[UOp, UOp], tuple[UOp | None, ...]]:
    """The gradients of attention as tinygrad asks for them, for each buffer of a call: what it
    gave, the totals, q, k, v, perhaps the lengths, and the team."""

    def back(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
        # What the call has written, not what was there before.
        out, totals = (Tensor(uop.after(call)) for uop in call.src[1:3])
        inputs = dict(zip("qkv", map(Tensor, call.src[3:6]), strict=True))
        made = {
            f"d{name}": Tensor.empty(*x.shape, device=x.device) for name, x in inputs.items()
        }
        inputs |= {"dout": Tensor(gradient), "given": out, "given_totals": totals}
        if ragged:
            inputs["lengths"] = Tensor(call.src[6])
        found = launch("attend_gradient", constants, made, inputs, 5 * operations // 2)
        of = (
            each.cast(inputs[name].dtype).uop for each, name in zip(found, "qkv", strict=True)
        )
        return None, None, *of, *([None] if ragged else []), None

    return back


def append(cache: Tensor, new: Tensor, past: Tensor, ring: int) -> Tensor:
    """A cache [B, C, …] with new positions [B, n, …] written in from column `past` [1] on; in
    a `ring` each column takes the place of the one so many before it."""
    (B, T, *_), (_, room, *sizes) = shape(new), shape(cache)
    constants = {"B": B, "T": T, "ROOM": room, "RING": ring, "WIDTH": prod(sizes)}
    inputs = {"given": new.cast(cache.dtype), "past": past}
    (cache,) = launch("append", constants, {"cache": cache}, inputs)
    return cache
