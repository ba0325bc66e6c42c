"""The core of attention on the CPU, and what a step keeps of it.

Which keys a query sees is told by `attend.h`; no scores of all of them are ever stored.
"""

from __future__ import annotations

from tinygrad import Tensor, dtypes

from archdsl.backend.kernels.launch import launch
from archdsl.backend.tensors import shape


def core(
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
) -> Tensor:
    """Queries [B, T, H, h] over keys [B, S, K, h] and values [B, S, K, w]: [B, T, H, w].

    Causal queries stand in columns from `past` [1] on, 0 where None, and see none before
    `starts` [B]; others see `lengths` [B] keys. In a `ring` each column has taken the place of
    the one so many before it.
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
    out = Tensor.empty(B, T, H, value, device=q.device)
    inputs = {"q": q.cast(dtypes.float32), "k": k, "v": v, "past": past}
    inputs |= {
        name: None if each is None else each.cast(dtypes.int32)
        for name, each in (("starts", starts), ("lengths", lengths))
    }
    operations = 2 * B * T * H * room * (size + value)
    (out,) = launch(kernel, constants, {"out": out}, inputs, operations)
    return out.cast(v.dtype)


def keep(
    keys: Tensor, values: Tensor, k: Tensor, v: Tensor, past: Tensor, ring: int
) -> tuple[Tensor, Tensor]:
    """The keys [B, room, K, h] and values [B, room, K, w] that are kept, with the new ones
    [B, n, K, h] and [B, n, K, w] written in from column `past` [1] on."""
    (B, T, heads, size), (_, room, _, value) = shape(k), shape(values)
    constants = {
        "B": B,
        "T": T,
        "ROOM": room,
        "RING": ring,
        "WIDTH": heads * size,
        "OTHER": heads * value,
    }
    inputs = {"k": k.cast(keys.dtype), "v": v.cast(values.dtype), "past": past}
    keys, values = launch("keep", constants, {"keys": keys, "values": values}, inputs)
    return keys, values
