"""Products on the CPU.

Few rows read a weight once, as it lies (`matvec.c`); for many rows a part of it at a time is
laid out anew, and stays in the cache for all rows (`matmul.c`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import prod

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.kernels.launch import launch, stored
from archdsl.backend.quantized import Quantized
from archdsl.backend.tensors import shape
from archdsl.backend.tinygrad_seam import NUM_CPU_THREADS
from archdsl.frozen import Frozen

_ROWS = 516  # of one chunk of a product of many rows, about as many at most
_CHUNK = (2**14, 2**17)  # numbers of a weight that few rows are multiplied with in one chunk
_STRIP = 64  # columns that are turned over in one chunk
_LEAST_ROWS, _LEAST_COLUMNS = 6, 64  # of the largest register tile


class Epilogue(Frozen):
    """What becomes of the sums of a product: act(sums) * times + plus, each of them where it
    is there; `times` and `plus` have the shape of the result."""

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
) -> Tensor:
    """x [B, …, in] times weight [out, in] + bias [out], and what becomes of that: [B, …, out],
    by way of float32.

    With a `epilogue` or a quantized weight there is no gradient.
    """
    (N, K), M = shape(weight), prod(shape(x)[:-1])
    a = x.cast(dtypes.float32).reshape(M, K)
    if kernel == "matmul":
        y = matmul(a, weight, True, bias, epilogue)
    else:
        constants, parts = stored("b", weight)
        how, more = _epilogue(bias, epilogue)
        constants |= {"M": M, "N": N, "K": K, "RUN": _run(N, K), **how}
        y = Tensor.empty(M, N, device=x.device)
        inputs = {"a": a, **parts, **more}
        back = _gradient(transpose_b=True)
        (y,) = launch("matvec", constants, {"y": y}, inputs, 2 * M * N * K, back)
    return y.reshape(*x.shape[:-1], N).cast(x.dtype)


def matmul(
    a: Tensor,
    b: Tensor | Quantized,
    transpose_b: bool = False,
    bias: Tensor | None = None,
    epilogue: Epilogue = NO_EPILOGUE,
) -> Tensor:
    """a [batch…, M, K] times b [batch…, K, N] + bias [N], and what becomes of that:
    [batch…, M, N] in float32.

    With `transpose_b`, b is stored as [N, K]; a quantized b always is. A quantized b or an
    epilogue has no gradient.
    """
    a = a.cast(dtypes.float32)
    (*batch, M, K), N = shape(a), shape(b)[-2 if transpose_b else -1]
    if isinstance(b, Tensor) and (M < _LEAST_ROWS or N < _LEAST_COLUMNS):
        plain: Tensor = a @ (b.transpose(-1, -2) if transpose_b else b).cast(dtypes.float32)
        return plain
    constants, parts = stored("b", b)
    constants |= {"M": M, "N": N, "K": K, "BATCH": prod(batch)}
    constants |= dict(
        zip(("B_ROW", "B_COLUMN"), (1, K) if transpose_b else (N, 1), strict=True)
    )
    y = Tensor.empty(*batch, M, N, device=a.device)
    how, more = _epilogue(bias, epilogue)
    inputs = {"a": a, **parts, **more}
    constants |= _tiles(M) | how
    operations = 2 * prod(batch) * M * N * K
    (y,) = launch("matmul", constants, {"y": y}, inputs, operations, _gradient(transpose_b))
    return y


def transposed(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [batch…, M, N] of float32 turned over, [batch…, N, M], and the sums of its columns,
    [batch…, N]; without a gradient."""
    *batch, M, N = shape(x)
    constants = {"BATCH": prod(batch), "M": M, "N": N, "RUN": _STRIP}
    y, sums = (Tensor.empty(*batch, N, *more, device=x.device) for more in ((M,), ()))
    y, sums = launch("transpose", constants, {"y": y, "sums": sums}, {"x": x})
    return y, sums


@functools.cache  # tinygrad knows a program again by this very function
def _gradient(transpose_b: bool) -> Callable[[UOp, UOp], tuple[UOp | None, ...]]:
    """The gradients of y = a b + bias as tinygrad asks for them, for each buffer of a call."""

    def back(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
        dy = Tensor(gradient)
        a, b, *more = (Tensor(uop) for uop in call.src[2:-1])
        over, sums = transposed(dy)
        da = matmul(dy, b, not transpose_b)
        db = matmul(over, a) if transpose_b else matmul(transposed(a)[0], dy)
        dbias = [sums.cast(each.dtype).uop for each in more]
        return None, da.cast(a.dtype).uop, db.cast(b.dtype).uop, *dbias, None

    return back


def _epilogue(
    bias: Tensor | None, epilogue: Epilogue
) -> tuple[dict[str, object], dict[str, Tensor | None]]:
    """The macro of what is done with the sums at a place of y, of column j, and its inputs."""
    made = "(v + trained(args->bias + (j)))" if bias is not None else "(v)"
    made = f"{epilogue.act or ''}{made}"
    inputs = {"bias": bias}
    for sign, name, each in (("*", "times", epilogue.times), ("+", "plus", epilogue.plus)):
        if each is not None:
            made = f"{made} {sign} read(args->{name} + (at))"
            inputs[name] = each.cast(dtypes.float32)
    return {"EPILOGUE(v, read, trained, at, j)": f"({made})"}, inputs


def _tiles(M: int) -> dict[str, object]:
    """The height of a register tile that wastes least on M rows, and the rows of a chunk."""
    tall = min((4, 5, 6), key=lambda tall: (-(-M // tall) * (tall + 1), -tall))
    even = -(-M // -(-M // _ROWS))
    rows = -(-even // tall) * tall
    return {"TALL": tall, "ROWS": rows, "THREADS": NUM_CPU_THREADS.value}


def _run(N: int, K: int) -> int:
    """How many of a weight's rows are a chunk: several for each thread, but no crumbs, and no
    more than stay in the cache for the next rows."""
    fair, (least, most) = -(-N // (16 * NUM_CPU_THREADS.value)), (-(-n // K) for n in _CHUNK)
    return -(-min(max(fair, least), most) // 16) * 16
