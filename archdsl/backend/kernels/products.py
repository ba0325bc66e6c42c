"""Matrix products on the CPU.

`matvec.c` is for few rows, and reads the weight once from memory. `matmul.c` is for many rows:
it packs parts of the weight into contiguous memory, which stay in the cache for all rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import prod
from typing import TypeAlias

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.kernels.launch import launch, stored_weight
from archdsl.backend.quantized import Quantized
from archdsl.backend.tensors import shape
from archdsl.backend.tinygrad_seam import NUM_CPU_THREADS, DType
from archdsl.frozen import Frozen

_ROWS = 516  # of a tile of `matmul.c`, approximately, at most
_TILE = (2**14, 2**17)  # elements of a weight in a tile of `matvec.c`: at least, at most
_TRANSPOSE_TILE = 64  # columns
_MIN_ROWS, _MIN_COLUMNS = 6, 64  # of the largest register tile


class Epilogue(Frozen):
    """What a matmul kernel computes from its sums: act(sums) * times + plus.

    Parts that are None are left out; `times` and `plus` have the shape of the result.
    """

    act: str | None = None
    times: Tensor | None = None
    plus: Tensor | None = None


NO_EPILOGUE = Epilogue()


def linear(
    kernel: str,
    x: Tensor,
    weight: Tensor | Quantized,
    bias: Tensor | None,
    epilogue: Epilogue = NO_EPILOGUE,
    dtype: DType | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """epilogue(x @ weight^T + bias) of x [B, …, in], weight [out, in], bias [out]: [B, …, out].

    Computed in float32, and returned in `dtype`, by default that of x. An epilogue or a
    quantized weight has no gradient; that of x is there. Only the first `rows[0]` vectors of x
    are computed.
    """
    (N, K), M = shape(weight), prod(shape(x)[:-1])
    a = x.cast(dtypes.float32).reshape(M, K)
    if kernel == "matmul":
        y = matmul(a, weight, True, bias, epilogue, rows)
    else:
        constants, parts = stored_weight("b", weight)
        macro, more = _epilogue(bias, epilogue, rows)
        constants |= {"M": M, "N": N, "K": K, "TILE_SIZE": _tile_size(N, K), **macro}
        y = Tensor.empty(M, N, device=x.device)
        inputs = {"a": a, **parts, **more}
        back = _back(weight, transpose_b=True)
        (y,) = launch("matvec", constants, {"y": y}, inputs, 2 * M * N * K, back)
    return y.reshape(*x.shape[:-1], N).cast(dtype or x.dtype)


def matmul(
    a: Tensor,
    b: Tensor | Quantized,
    transpose_b: bool = False,
    bias: Tensor | None = None,
    epilogue: Epilogue = NO_EPILOGUE,
    rows: Tensor | None = None,
) -> Tensor:
    """epilogue(a @ b + bias) of a [batch…, M, K], b [batch…, K, N], bias [N]: [batch…, M, N] in
    float32.

    With `transpose_b`, b is stored as [N, K]; a quantized b always is. A quantized b or an
    epilogue has no gradient; that of a is there. `rows` is that of `linear`; a then has
    no batch.
    """
    a = a.cast(dtypes.float32)
    (*batch, M, K), N = shape(a), shape(b)[-2 if transpose_b else -1]
    if isinstance(b, Tensor) and (M < _MIN_ROWS or N < _MIN_COLUMNS):
        plain: Tensor = a @ (b.transpose(-1, -2) if transpose_b else b).cast(dtypes.float32)
        return plain
    constants, parts = stored_weight("b", b)
    constants |= {"M": M, "N": N, "K": K, "BATCH": prod(batch)}
    constants |= dict(
        zip(("B_ROW", "B_COLUMN"), (1, K) if transpose_b else (N, 1), strict=True)
    )
    y = Tensor.empty(*batch, M, N, device=a.device)
    macro, more = _epilogue(bias, epilogue, rows)
    inputs = {"a": a, **parts, **more}
    constants |= _tiles(M) | macro
    operations = 2 * prod(batch) * M * N * K
    (y,) = launch("matmul", constants, {"y": y}, inputs, operations, _back(b, transpose_b))
    return y


def transpose(x: Tensor) -> tuple[Tensor, Tensor]:
    """Transposes x [batch…, M, N] of float32: [batch…, N, M], and the sums of its columns
    [batch…, N]. There is no gradient."""
    *batch, M, N = shape(x)
    constants = {"BATCH": prod(batch), "M": M, "N": N, "TILE_SIZE": _TRANSPOSE_TILE}
    y, sums = (Tensor.empty(*batch, N, *more, device=x.device) for more in ((M,), ()))
    y, sums = launch("transpose", constants, {"y": y, "sums": sums}, {"x": x})
    return y, sums


Back: TypeAlias = Callable[[UOp, UOp], tuple[UOp | None, ...]]


def _back(b: Tensor | Quantized, transpose_b: bool) -> Back:
    """The gradient function of a @ b + bias."""
    if isinstance(b, Tensor):
        return _gradient(transpose_b)
    return _gradient_of_quantized(b.offsets is not None)


@functools.cache  # as below
def _gradient_of_quantized(offsets: bool) -> Back:
    """The gradient function of y = a @ b^T + bias if b is quantized: b has no gradient.

    b is dequantized for this product alone, so that one matrix at a time is in memory.
    """

    def back(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
        dy = Tensor(gradient)
        a, values, scales, *more = (Tensor(uop) for uop in call.src[2:-1])
        stored = Quantized(values, scales, more.pop(0) if offsets else None)
        da = matmul(dy, stored.full("float32"))
        sums = [dy.sum(0).cast(each.dtype).uop for each in more]  # [N] each
        parts = (None,) * (3 if offsets else 2)
        return None, da.cast(a.dtype).uop, *parts, *sums, None

    return back


@functools.cache  # tinygrad compares programs by the identity of this function
def _gradient(transpose_b: bool) -> Back:
    """The gradient function of y = a @ b + bias for tinygrad, for each buffer of a call."""

    def back(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
        dy = Tensor(gradient)
        a, b, *more = (Tensor(uop) for uop in call.src[2:-1])
        dy_transposed, sums = transpose(dy)
        da = matmul(dy, b, not transpose_b)
        db = matmul(dy_transposed, a) if transpose_b else matmul(transpose(a)[0], dy)
        dbias = [sums.cast(each.dtype).uop for each in more]
        return None, da.cast(a.dtype).uop, db.cast(b.dtype).uop, *dbias, None

    return back


def _epilogue(
    bias: Tensor | None, epilogue: Epilogue, rows: Tensor | None
) -> tuple[dict[str, object], dict[str, Tensor | None]]:
    """The macro EPILOGUE for the sum `v` at offset `at` and column `j` of y, and its inputs;
    those of `rows` too."""
    code = "(v + read_bias(args->bias + (j)))" if bias is not None else "(v)"
    code = f"{epilogue.act or ''}{code}"
    inputs = {"bias": bias, "rows": rows}
    for sign, name, each in (("*", "times", epilogue.times), ("+", "plus", epilogue.plus)):
        if each is not None:
            code = f"{code} {sign} read(args->{name} + (at))"
            inputs[name] = each.cast(dtypes.float32)
    macros: dict[str, object] = {"EPILOGUE(v, read, read_bias, at, j)": f"({code})"}
    return macros | ({"SOME_ROWS": 1} if rows is not None else {}), inputs


def _tiles(M: int) -> dict[str, object]:
    """The rows MR of a register tile that waste least for M rows, and the rows MC of a tile."""
    mr = min((4, 5, 6), key=lambda mr: (-(-M // mr) * (mr + 1), -mr))
    even = -(-M // -(-M // _ROWS))
    mc = -(-even // mr) * mr
    return {"MR": mr, "MC": mc, "THREADS": NUM_CPU_THREADS.value}


def _tile_size(N: int, K: int) -> int:
    """The rows of a weight in a tile of `matvec.c`.

    There are several tiles per thread, if they are not too small; and a tile stays in the cache
    for the next rows of x.
    """
    fair, (least, most) = -(-N // (16 * NUM_CPU_THREADS.value)), (-(-n // K) for n in _TILE)
    return -(-min(max(fair, least), most) // 16) * 16
