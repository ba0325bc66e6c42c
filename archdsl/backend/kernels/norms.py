"""Layer norm and RMS norm on the CPU, in one pass over memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import prod

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.kernels.launch import launch
from archdsl.backend.tensors import shape

_TILE = 4096  # numbers
_RUNS, _SHORTEST_RUN = 64, 8  # of rows whose gradients of the gain and bias are summed


def norm(x: Tensor, rms: bool, eps: float, gain: Tensor | None, bias: Tensor | None) -> Tensor:
    """Normalizes x [B, …, D] along D, times gain [D], plus bias [D]: [B, …, D].

    Computed in float32. With `rms` the mean is not subtracted.
    """
    M, D = prod(shape(x)[:-1]), shape(x)[-1]
    constants = {
        "M": M,
        "D": D,
        "TILE_SIZE": max(1, _TILE // D),
        "RMS": int(rms),
        "EPS": f"{eps!r}f",
        "HAS_GAIN": int(gain is not None),
        "HAS_BIAS": int(bias is not None),
    }
    y = Tensor.empty(*x.shape, device=x.device)
    inputs = {"x": x.cast(dtypes.float32), "gain": gain, "bias": bias}
    back = _gradient(tuple(constants.items()), gain is not None, bias is not None)
    (y,) = launch("norm", constants, {"y": y}, inputs, 8 * M * D, back)
    return y.cast(x.dtype)


@functools.lru_cache(1000)  # tinygrad compares programs by the identity of this function
def _gradient(
    constants: tuple[tuple[str, object], ...], gain: bool, bias: bool
) -> Callable[[UOp, UOp], tuple[UOp | None, ...]]:
    """The gradient function for tinygrad, for each buffer of the call: y, x, gain and bias if
    given, thread pool."""
    names = ["x", *["gain"] * gain, *["bias"] * bias]

    def back(gradient: UOp, call: UOp) -> tuple[UOp | None, ...]:
        inputs = dict(zip(names, map(Tensor, call.src[2:-1]), strict=True))
        x = inputs["x"]
        M, D = prod(shape(x)[:-1]), shape(x)[-1]
        # Not by the number of threads: sums of other runs would round differently.
        run = max(_SHORTEST_RUN, -(-M // _RUNS))
        outputs = {"dx": Tensor.empty(*x.shape, device=x.device)}
        outputs |= {
            f"d{name}": Tensor.empty(-(-M // run), D, device=x.device) for name in names[1:]
        }
        read = {"x": x, "dy": Tensor(gradient), "gain": inputs.get("gain")}
        dx, *parts = launch(
            "norm_gradient", {**dict(constants), "TILE_SIZE": run}, outputs, read, 16 * M * D
        )
        weights = zip(parts, names[1:], strict=True)
        sums = (part.sum(0).cast(inputs[name].dtype).uop for part, name in weights)
        return None, dx.uop, *sums, None

    return back
