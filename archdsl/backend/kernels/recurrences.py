"""Linear recurrences on the CPU, position by position: each takes the same time."""

from __future__ import annotations

from math import prod

from tinygrad import Tensor, dtypes

from archdsl.backend.kernels.launch import launch
from archdsl.backend.tensors import shape


def scan(a: Tensor, u: Tensor, start: Tensor | None) -> Tensor:
    """s_t = a_t * s_{t-1} + u_t for a and u [B, T, …], from `start` [B, …]: [B, T, …]."""
    batch, T, *sizes = shape(u)
    constants = {"B": batch, "T": T, "N": prod(sizes)}
    s = Tensor.empty(*u.shape, device=u.device)
    (s,) = launch(
        "scan", constants, {"s": s}, {"a": a, "u": u, "start": start}, 2 * prod(shape(u))
    )
    return s


def recur(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    start: Tensor | None,
    before: bool,
) -> tuple[Tensor, Tensor]:
    """`delta_rule` of backend/recurrence.py on tensors of float32: y [B, T, H, V], and the last
    state [B, H, K, V]. There is no gradient."""
    (batch, T, heads, values), (groups, keys) = shape(v), shape(k)[2:]
    constants = {
        "B": batch,
        "T": T,
        "H": heads,
        "GROUPS": groups,
        "SIZE": keys,
        "VALUE": values,
        "DECAY": 0 if decay is None else decay.ndim - 2,
        "DELTA": int(a is not None),
        "BEFORE": int(before),
    }
    outputs = {
        "y": Tensor.empty(batch, T, heads, values, device=v.device),
        "end": Tensor.empty(batch, heads, keys, values, device=v.device),
    }
    inputs = {"q": q, "k": k, "v": v, "decay": decay, "a": a, "b": b, "start": start}
    inputs = {name: None if x is None else x.cast(dtypes.float32) for name, x in inputs.items()}
    operations = batch * T * heads * keys * values * (8 if a is not None else 5)
    y, end = launch("recur", constants, outputs, inputs, operations)
    return y, end
