"""Fused attention on the CPU, and writes to the cache.

`attend.h` and `masks.py` define which keys a query sees. The matrix of all scores is never
stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.kernels import masks
from archdsl.backend.kernels.launch import launch
from archdsl.backend.tensors import shape
from archdsl.graph.masks import Mask


def attend(
    kernel: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    mask: Mask,
    lengths: Tensor | None = None,
    past: Tensor | None = None,
    starts: Tensor | None = None,
    ring: int = 0,
    softcap: float | None = None,
    sink: Tensor | None = None,
    trains: bool = False,
) -> Tensor:
    """Queries [B, T, H, h] over keys [B, S, K, h] and values [B, S, K, w]: [B, T, H, w].

    Queries have the cache positions `past` [1], `past` + 1, … (default 0), and see no key
    before `starts` [B], which is left padding, and none from `lengths` [B] on. A sliding-window
    cache of `ring` positions stores position p at p % ring. `sink` is [B or 1, H]. With
    `trains` the kernel also saves what the gradients need.
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
        "SCALE": f"{float(scale)!r}f",
        "CAPPED": int(softcap is not None),
        "SOFTCAP": f"{float(softcap or 1)!r}f",
        "SINKS": 0,
        **masks.macros(mask),
    }
    outputs = {"out": Tensor.empty(B, T, H, value, device=q.device)}
    if trains:
        outputs["totals"] = Tensor.empty(B, T, H, 2, device=q.device)
    inputs = {"q": q.cast(dtypes.float32), "k": k, "v": v, "past": past}
    if sink is not None:
        sink = sink.cast(dtypes.float32).reshape(-1, H)
        constants["SINKS"] = shape(sink)[0]
    inputs["sink"] = sink
    inputs |= {
        name: None if each is None else each.cast(dtypes.int32)
        for name, each in (("starts", starts), ("lengths", lengths))
    }
    operations = 2 * B * T * H * room * (size + value)
    given = [name for name, each in inputs.items() if each is not None]
    back = _gradient(constants, given, operations) if trains else None
    out, *_ = launch(kernel, constants, outputs, inputs, operations, back)
    return out.cast(v.dtype)


def _gradient(
    constants: Mapping[str, object], given: Sequence[str], operations: int
) -> Callable[[UOp, UOp], tuple[UOp | None, ...]]:
    """The gradient function for tinygrad, for each buffer of the call: out, totals, the `given`
    inputs, thread pool."""

    def back(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
        # The values after the call, not before it.
        out, totals = (Tensor(uop.after(call)) for uop in call.src[1:3])
        tensors = dict(zip(given, map(Tensor, call.src[3:]), strict=False))
        outputs = {
            f"d{name}": Tensor.empty(*tensors[name].shape, device=out.device) for name in "qkv"
        }
        dout = Tensor(gradient)
        inputs = tensors | {"dout": dout, "forward_out": out, "forward_totals": totals}
        found = launch("attend_gradient", constants, outputs, inputs, 5 * operations // 2)
        gradients: dict[str, UOp] = {
            name: each.cast(tensors[name].dtype).uop
            for name, each in zip("qkv", found, strict=True)
        }
        if "sink" in tensors:
            # The share of the sink in the softmax; it adds nothing to the sum of values.
            top, total = totals[..., 0], totals[..., 1]  # [B, T, H]
            share = (tensors["sink"].unsqueeze(1) - top).exp() / total  # [B, T, H]
            lost = (share * (dout * out).sum(-1)).sum(1)  # [B, H]
            lost = lost if tensors["sink"].shape[0] > 1 else lost.sum(0, keepdim=True)
            gradients["sink"] = (-lost).uop  # [B or 1, H]
        return None, None, *(gradients.get(name) for name in given), None

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
