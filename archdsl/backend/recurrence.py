"""Linear recurrences s_t = A_t s_{t-1} + u_t, computed for many positions at once.

A sequence is cut into chunks. Within a chunk each position is a sum over those before it, a
matrix product. The states between the chunks are again a recurrence, of as many steps as there
are chunks; it is solved by joining neighbours, log2 of that many times. Time and memory grow
linearly with the sequence (Yang et al. 2024, "Gated Linear Attention", section 4; Dao and Gu
2024, section 6).

Decays are numbers by which the state is multiplied, of any sign. A product of many is computed
as a sum of logarithms. Only ratios of later to earlier products occur, which do not overflow
unless the state does. All is computed in float32. C are the positions of a chunk, n is the
number of chunks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from tinygrad import Tensor, dtypes

from archdsl.backend.kernels import recurrences
from archdsl.backend.tensors import make_contiguous, shape
from archdsl.frozen import Frozen
from archdsl.passes.select_kernels import TINYGRAD

_CHUNK = 64  # positions; with a decay for each head
_FEATURE_CHUNK = 16  # with a decay for each feature, where a sum takes C * K exponentials
_DELTA_CHUNK = 32  # of the delta rule, which inverts a matrix [C, C]
_GRID = 64  # logarithms are split at multiples of 1 / _GRID, whose sums are exact
_NOTHING = -128.0  # exp of it is 0 in float32


def scan(
    a: Tensor, u: Tensor, start: Tensor | None = None, kernel: str = TINYGRAD
) -> tuple[Tensor, Tensor]:
    """s_t = a_t * s_{t-1} + u_t for u [B, T, …], and a that broadcasts to it: s as u, and the
    last state [B, …]. `start` [B, …] is the state before the first position, by default 0.

    The C kernels have no gradient.
    """
    u = u.cast(dtypes.float32)  # [B, T, …]
    a = a.cast(dtypes.float32)  # as u, or with axes of size 1
    if kernel != TINYGRAD:
        s = recurrences.scan(a.expand(u.shape), u, start)  # [B, T, …]
        return s, s[:, -1]
    a = a.expand(a.shape[0], shape(u)[1], *a.shape[2:])  # [B, T, …]
    s = _states(a, u, start, operator.mul)  # [B, T, …]
    return s, s[:, -1]


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    start: Tensor | None = None,
    before: bool = False,
    kernel: str = TINYGRAD,
) -> tuple[Tensor, Tensor]:
    """s_t = decay_t * s_{t-1} + k_t v_t^T and y_t = q_t s_t: y [B, T, H, V], and the last state
    [B, H, K, V] in float32. With `before`, y_t = q_t s_{t-1}.

    q and k are [B, T, G, K], where H / G heads of v [B, T, H, V] share one, and the decay is
    [B, T, H], [B, T, H, K] or [B, T, H, K, V], by default 1. `start` is the state before the
    first position, by default 0.
    """
    return delta_rule(q, k, v, decay, None, None, start, before, kernel)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    start: Tensor | None = None,
    before: bool = False,
    kernel: str = TINYGRAD,
) -> tuple[Tensor, Tensor]:
    """`linear_attention` with another update: s_t = decay_t * s_{t-1} + a_t (b_t s_{t-1}) +
    k_t v_t^T, where a and b are [B, T, H, K] (Yang et al. 2024, "Gated Delta Networks")."""
    dtype = v.dtype
    given = [None if x is None else x.cast(dtypes.float32) for x in (q, k, v, decay, a, b)]
    q, k, v, decay, a, b = given  # type: ignore[assignment]
    batch, T, heads, values = shape(v)
    if kernel != TINYGRAD:
        if decay is not None:
            decay = decay.expand(*v.shape[:3], *decay.shape[3:])  # [B, T, H, …]
        y, end = recurrences.recur(q, k, v, decay, a, b, start, before)
        return y.cast(dtype), end
    if decay is None:
        decay = Tensor.ones(1, 1, 1, device=v.device)
    decay = decay.expand(batch, T, heads, *decay.shape[3:])  # [B, T, H, …]
    if start is None:
        start = Tensor.zeros(batch, heads, shape(k)[3], values, device=v.device)
    if T == 1 or decay.ndim == 5:
        y, end = _one_by_one(q, k, v, decay, a, b, start, before)
    else:
        y, end = _in_chunks(q, k, v, decay, a, b, start, before)
    return y.cast(dtype), end


# -- the states between --


def _states(
    a: Tensor, u: Tensor, start: Tensor | None, times: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The states s_i = a_i s_{i-1} + u_i for u [B, n, …], after each step: as u. `times` is the
    product of a_i with a state, or with another a."""
    if start is not None:
        first = times(a[:, :1], start.cast(dtypes.float32).unsqueeze(1))  # [B, 1, …]
        u = (u[:, :1] + first).cat(u[:, 1:], dim=1) if shape(u)[1] > 1 else u + first
    return _joined(make_contiguous(a), make_contiguous(u), times)


def _joined(a: Tensor, u: Tensor, times: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The states of a recurrence [B, n, …] that starts with 0: those of the steps joined in
    pairs are every second one, and each other one follows from the one before it."""
    count = shape(u)[1]
    if count == 1:
        return u
    if count % 2:
        (a, last_a), (u, last_u) = ((x[:, :-1], x[:, -1:]) for x in (a, u))
        s = _joined(a, u, times)  # [B, n - 1, …]
        last = times(last_a, s[:, -1:]) + last_u  # [B, 1, …]
        return s.cat(last, dim=1).contiguous()  # [B, n, …]
    (first_a, second_a), (first_u, second_u) = (_halves(x) for x in (a, u))
    joined_a = times(second_a, first_a).contiguous()  # [B, n / 2, …]
    joined_u = (times(second_a, first_u) + second_u).contiguous()  # [B, n / 2, …]
    second = _joined(joined_a, joined_u, times)  # [B, n / 2, …]
    earlier = second[:, :-1].pad((None, (1, 0), *[None] * (u.ndim - 2)))  # [B, n / 2, …]
    first = times(first_a, earlier) + first_u  # [B, n / 2, …]
    both = first.unsqueeze(2).cat(second.unsqueeze(2), dim=2)  # [B, n / 2, 2, …]
    return both.reshape(u.shape).contiguous()  # [B, n, …]


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The positions 0, 2, … and 1, 3, … of x [B, n, …]."""
    batch, count, *rest = shape(x)
    pairs = x.reshape(batch, count // 2, 2, *rest)
    return pairs[:, :, 0], pairs[:, :, 1]


def _one_by_one(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    start: Tensor,
    before: bool,
) -> tuple[Tensor, Tensor]:
    """With the state of each position in memory: one position, or a decay of each number."""
    heads = shape(v)[2]
    q, k = (_per_head(x, heads, 2).unsqueeze(-1) for x in (q, k))  # [B, T, H, K, 1]
    u = k * v.unsqueeze(-2)  # [B, T, H, K, V]
    decay = decay.reshape(*decay.shape, *[1] * (5 - decay.ndim))  # [B, T, H, …]
    if a is not None and b is not None:
        assert shape(v)[1] == 1, "a decay of each number has no correction"
        read = (b.unsqueeze(-1) * start.unsqueeze(1)).sum(-2, keepdim=True)  # [B, 1, H, 1, V]
        u = u + a.unsqueeze(-1) * read  # [B, 1, H, K, V]
    s = _states(decay, u, start, operator.mul)  # [B, T, H, K, V]
    seen = start.unsqueeze(1).cat(s[:, :-1], dim=1) if before else s  # [B, T, H, K, V]
    return (q * seen).sum(-2), s[:, -1]


# -- chunks --


class _Decays(Frozen):
    """The products of decays within chunks, as logarithms and signs [B, n, H, C, 1 or K].

    `exact` and `rest` are the two parts of the logarithm of the product up to each position,
    the first a multiple of 1 / _GRID; `signs` are the signs of the products.
    """

    exact: Tensor
    rest: Tensor
    signs: Tensor

    @staticmethod
    def of(decay: Tensor) -> _Decays:
        """The products from the start of each chunk to each position, inclusive."""
        log = decay.abs().maximum(1e-45).log().maximum(_NOTHING)
        exact = (log * _GRID).round().detach() / _GRID
        flips = (decay < 0).cast(dtypes.float32).cumsum(3)
        signs = 1 - 2 * (flips - 2 * (flips / 2).floor())
        return _Decays(
            exact.cumsum(3).contiguous(),
            (log - exact).cumsum(3).contiguous(),
            signs.detach().contiguous(),
        )

    def earlier(self) -> _Decays:
        """The products up to the position before each."""
        pads = (None, None, None, (1, 0), None)
        exact, rest = (x[:, :, :, :-1].pad(pads) for x in (self.exact, self.rest))
        return _Decays(exact, rest, self.signs[:, :, :, :-1].pad(pads, value=1.0))

    def last(self) -> _Decays:
        """The product of each chunk."""
        return _Decays(*(x[:, :, :, -1:] for x in (self.exact, self.rest, self.signs)))

    def since(self, other: _Decays, seen: Tensor | None = None) -> Tensor:
        """The products of the decays after the positions of `other`; 0 where not `seen`."""
        log = (self.exact - other.exact) + (self.rest - other.rest)
        if seen is not None:
            log = seen.where(log, -float("inf"))
        return log.exp() * (self.signs * other.signs)

    def since_start(self) -> Tensor:
        """The products from the start of the chunk: [B, n, H, C, 1 or K]."""
        return (self.exact + self.rest).exp() * self.signs

    def at(self, axis: int) -> _Decays:
        """With another axis of size 1."""
        return _Decays(*(x.unsqueeze(axis) for x in (self.exact, self.rest, self.signs)))


def _in_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    start: Tensor,
    before: bool,
) -> tuple[Tensor, Tensor]:
    batch, T, heads, values = shape(v)
    size = _chunk_size(T, decay.ndim == 4, a is not None)
    decay = decay if decay.ndim == 4 else decay.unsqueeze(-1)  # [B, T, H, 1 or K]
    after = _Decays.of(_chunked(decay, size, 1.0))
    q, k, v = (_chunked(x, size) for x in (q, k, v))  # [B, n, G or H, C, K or V]
    read = after.earlier() if before else after  # of what a position reads
    end = after.last()
    left = end.since(after)  # [B, n, H, C, 1 or K]: what is left of a write at the chunk's end
    scores = _scores(q, k, read, after, before)  # [B, n, H, C, C]
    q, k = (_per_head(x, heads, 2) for x in (q, k))  # [B, n, H, C, K]
    written = (k * left).transpose(-1, -2) @ v  # [B, n, H, K, V]
    first = (q * read.since_start()).contiguous()  # [B, n, H, C, K]: reads the start's state
    y = scores @ v  # [B, n, H, C, V]
    if a is None or b is None:
        kept = end.since_start().transpose(-1, -2)  # [B, n, H, 1 or K, 1]
        states = _states(kept, written, start, operator.mul)  # [B, n, H, K, V]
        y = y + first @ _starts(states, start)  # [B, n, H, C, V]
    else:
        a, b = (_chunked(x, size) for x in (a, b))  # [B, n, H, C, K]
        earlier = after.earlier()
        # What b reads at each position is `own` + `old` times the state at the chunk's start.
        inverse = _inverse(_scores(b, a, earlier, after, True))  # [B, n, H, C, C]
        own = (inverse @ (_scores(b, k, earlier, after, True) @ v)).contiguous()
        old = (inverse @ (b * earlier.since_start())).contiguous()  # [B, n, H, C, K]
        back = (a * left).transpose(-1, -2).contiguous()  # [B, n, H, K, C]
        kept = _diagonal(end.since_start(), shape(k)[-1]) + back @ old  # [B, n, H, K, K]
        states = _states(kept, written + back @ own, start, operator.matmul)
        corrections = _scores(q, a, read, after, before)  # [B, n, H, C, C]
        starts = _starts(states, start)  # [B, n, H, K, V]
        y = y + first @ starts + corrections @ (own + old @ starts).contiguous()
    y = y.permute(0, 1, 3, 2, 4).reshape(batch, -1, heads, values)  # [B, n C, H, V]
    return y[:, :T].contiguous(), states[:, -1]


def _chunk_size(T: int, features: bool, delta: bool) -> int:
    size = _FEATURE_CHUNK if features else _DELTA_CHUNK if delta else _CHUNK
    return min(size, 1 << (T - 1).bit_length())


def _chunked(x: Tensor, size: int, fill: float = 0.0) -> Tensor:
    """x [B, T, H, K] in chunks: [B, n, H, C, K]; the last one is filled up."""
    batch, T, heads, width = shape(x)
    x = x.pad((None, (0, -T % size), None, None), value=fill)  # [B, n C, H, K]
    return x.reshape(batch, -1, size, heads, width).permute(0, 1, 3, 2, 4).contiguous()


def _per_head(x: Tensor, heads: int, axis: int) -> Tensor:
    """x with the heads that share one of its groups: H on this axis instead of G."""
    sizes = list(shape(x))
    shared = heads // sizes[axis]
    if shared == 1:
        return x
    wide = x.unsqueeze(axis + 1).expand(*sizes[: axis + 1], shared, *sizes[axis + 1 :])
    return wide.reshape(*sizes[:axis], heads, *sizes[axis + 1 :])


def _scores(x: Tensor, y: Tensor, read: _Decays, wrote: _Decays, strictly: bool) -> Tensor:
    """x_t y_j, times what is left at t of a write at j: [B, n, H, C, C]. It is 0 for later j,
    and with `strictly` for j = t."""
    size, heads = shape(x)[3], shape(read.exact)[2]
    rows, columns = Tensor.arange(size).reshape(-1, 1), Tensor.arange(size).reshape(1, -1)
    seen = columns < rows if strictly else columns <= rows  # [C, C]
    if shape(read.exact)[-1] == 1:
        products = (x @ y.transpose(-1, -2)).contiguous()  # [B, n, G or H, C, C]
        there = _Decays(*(z.transpose(-1, -2) for z in (wrote.exact, wrote.rest, wrote.signs)))
        return (_per_head(products, heads, 2) * read.since(there, seen)).contiguous()
    x, y = (_per_head(z, heads, 2) for z in (x, y))  # [B, n, H, C, K]
    ratios = read.at(4).since(wrote.at(3), seen.unsqueeze(-1))  # [B, n, H, C, C, K]
    found: Tensor = (x.unsqueeze(4) * y.unsqueeze(3) * ratios).sum(-1).contiguous()
    return found


def _starts(states: Tensor, start: Tensor) -> Tensor:
    """The state at the start of each chunk, from those at the ends: [B, n, H, K, V]."""
    start = start.cast(dtypes.float32).unsqueeze(1)
    return start.cat(states[:, :-1], dim=1).contiguous() if shape(states)[1] > 1 else start


def _diagonal(x: Tensor, size: int) -> Tensor:
    """[…, size, size]: the matrices with x […, 1, 1 or size] on the diagonal."""
    found: Tensor = _eye(size) * x
    return found


def _eye(size: int) -> Tensor:
    place = Tensor.arange(size)
    found: Tensor = (place.reshape(-1, 1) == place.reshape(1, -1)).cast(dtypes.float32)
    return found


def _inverse(lower: Tensor) -> Tensor:
    """The inverse of I - M for M [..., C, C], which is 0 on the diagonal and above it.

    The inverses of the blocks on the diagonal give those of blocks of twice their size. This is
    as stable as substitution, row by row; powers of M are not.
    """
    size = shape(lower)[-1]
    place = Tensor.arange(size)
    rows, columns = place.reshape(-1, 1), place.reshape(1, -1)
    inverse, block = _eye(size), 1
    while block < size:
        apart = (rows // block != columns // block) & (
            rows // 2 // block == columns // 2 // block
        )
        below = apart.where(lower, 0)
        more = below if block == 1 else inverse @ below.contiguous() @ inverse
        inverse, block = (inverse + more).contiguous(), 2 * block
    return inverse
