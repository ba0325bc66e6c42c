"""The convolution along a sequence, and the positions that a step keeps for it."""

from __future__ import annotations

from tinygrad import Tensor, dtypes

from archdsl.backend.context import OpCall
from archdsl.backend.functional import apply_epilogue, project
from archdsl.backend.tensors import make_contiguous, shape


def conv1d(op: OpCall) -> Tensor:
    x, padding = op.x, op.attr["padding"]  # [B, T, C]
    valid = op.context.valid_mask(op.axes[0].size) if padding else None  # [B, T] or None
    if valid is not None:
        x = valid.unsqueeze(-1).where(x, 0)  # [B, T, C]
    span = (op.attr["kernel"] - 1) * op.attr["dilation"]
    front = span if op.attr["causal"] else padding
    x = x.pad((None, (front, padding), None))  # [B, T + padding, C]
    if op.attr["groups"] > 1:
        y = _grouped(op, _windows(op, x)).cast(op.dtype)  # [B, T', dim]
        return apply_epilogue(op.context, y, op.epilogue).cast(op.dtype)  # [B, T', dim]
    x = make_contiguous(_windows(op, x).flatten(2))  # [B, T', C kernel]
    return project(op, x, epilogue=op.epilogue, dtype=op.dtype)  # [B, T', dim]


def _windows(op: OpCall, x: Tensor) -> Tensor:
    """What the kernel covers at each of its places: [B, T', C, kernel]."""
    kernel, stride, dilation = (op.attr[name] for name in ("kernel", "stride", "dilation"))
    if dilation == 1:
        return x.unfold(1, kernel, stride)  # [B, T', C, kernel]
    count = (shape(x)[1] - (kernel - 1) * dilation - 1) // stride + 1
    starts = range(0, kernel * dilation, dilation)
    parts = (x[:, at : at + (count - 1) * stride + 1 : stride] for at in starts)
    return Tensor.stack(*parts, dim=-1)  # [B, T', C, kernel]


def _grouped(op: OpCall, windows: Tensor) -> Tensor:
    """A convolution with kernels of its own for each group of features: [B, T', dim]."""
    weight, groups = op.weights["weight"], op.attr["groups"]  # [dim, C / G, kernel]
    (batch, count, width, kernel), dim = shape(windows), shape(weight)[0]
    if groups == width:  # a kernel sees one feature: no matrix product
        windows = windows.unsqueeze(3).cast(dtypes.float32)  # [B, T', C, 1, kernel]
        kernels = weight.reshape(width, dim // width, kernel)  # [C, dim / C, kernel]
        y = (windows * kernels).sum(-1).flatten(2)  # [B, T', dim]
    else:
        x = windows.reshape(batch, count, groups, width // groups * kernel)
        x = x.transpose(1, 2)  # [B, G, T', C kernel / G]
        kernels = weight.reshape(groups, dim // groups, width // groups * kernel)
        y = op.context.matmul(x, kernels, transpose_b=True)  # [B, G, T', dim / G]
        y = y.transpose(1, 2).flatten(2)  # [B, T', dim]
    bias = op.weights.get("bias")  # [dim]
    return y if bias is None else y + bias


def extend(op: OpCall) -> Tensor:
    tail, new = op.x, op.tensors["new"]  # [B, n, …], [B, T, …]
    n, T = shape(tail)[1], shape(new)[1]
    positions = Tensor.arange(n + T) + (op.tensors["past"] - n)  # [n + T]
    kept = positions.reshape(1, -1) >= op.tensors["left_pad"].reshape(-1, 1)  # [B, n + T]
    kept = kept & (positions.reshape(1, -1) >= 0)  # [B, n + T]
    x = tail.cast(new.dtype).cat(new, dim=1)  # [B, n + T, …]
    kept = kept.reshape(*shape(kept), *[1] * (x.ndim - 2))  # [B, n + T, 1, …]
    # Computed before the tail is overwritten.
    found: Tensor = kept.where(x, 0).contiguous().realize()  # [B, n + T, …]
    return found


def store(op: OpCall) -> Tensor:
    state, new = op.x, op.tensors["new"]  # [B, n, …], [B, n or more, …]
    last = new[:, shape(new)[1] - shape(state)[1] :] if new.shape != state.shape else new
    Tensor.realize(state.assign(last.cast(state.dtype).contiguous()))
    return state
