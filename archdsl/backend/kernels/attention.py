"""Fused attention on the CPU, and writes to the cache.

`attend.h` defines which keys a query sees. The matrix of all scores is never stored.
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

    Causal queries have the cache positions `past` [1], `past` + 1, … (default 0), and see no
    key before `starts` [B], which is left padding. Others see the first `lengths` [B] keys.
    A sliding-window cache of `ring` positions stores position p at p % ring. With `trains` the
    kernel also saves what the gradients need.
    """
    (B, T, H, size), (_, room, heads, value) = shape(q), shape(v)
    constants = {
        "B": B,
        "T": T,
        "H": H,
        "HEADS": heads,
        "SIZE": size,
        "VALUE": value,
        "CAPACITY": room,
        "RING_SIZE": ring,
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
    """The gradient function for tinygrad, for each buffer of the call: out, totals, q, k, v,
    lengths if ragged, thread pool."""

    def back(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
        # The values after the call, not before it.
        out, totals = (Tensor(uop.after(call)) for uop in call.src[1:3])
        inputs = dict(zip("qkv", map(Tensor, call.src[3:6]), strict=True))
        outputs = {
            f"d{name}": Tensor.empty(*x.shape, device=x.device) for name, x in inputs.items()
        }
        inputs |= {"dout": Tensor(gradient), "forward_out": out, "forward_totals": totals}
        if ragged:
            inputs["lengths"] = Tensor(call.src[6])
        found = launch("attend_gradient", constants, outputs, inputs, 5 * operations // 2)
        gradients = (
            each.cast(inputs[name].dtype).uop for each, name in zip(found, "qkv", strict=True)
        )
        return None, None, *gradients, *([None] if ragged else []), None

    return back


def append(cache: Tensor, new: Tensor, past: Tensor, ring: int) -> Tensor:
    """Writes values [B, n, …] of new tokens into a cache [B, C, …] at position `past` [1].

    A sliding-window cache of `ring` positions stores position p at p % ring.
    """
    (B, T, *_), (_, room, *sizes) = shape(new), shape(cache)
    constants = {"B": B, "T": T, "CAPACITY": room, "RING_SIZE": ring, "WIDTH": prod(sizes)}
    inputs = {"values": new.cast(cache.dtype), "past": past}
    (cache,) = launch("append", constants, {"cache": cache}, inputs)
    return cache
