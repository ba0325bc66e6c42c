"""Reads quantized GGUF blocks as integers with one scale per group of numbers.

A block has 32 numbers of a row, or 256 in the K formats and IQ4_XS. In those, the scales of the
8 or 16 groups are integers too. The layouts are those of ggml's `ggml-common.h` and
`ggml-quants.c`. Only the product of two scales is rounded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from archdsl.formats.host import Bytes, Groups

_Floats = NDArray[np.float32]
_Halves = NDArray[np.float16]


def groups(kind: str, rows: Bytes) -> Groups:
    """Decodes the rows [..., bytes] of a quantized matrix; `kind` is a key of `KINDS`.

    A part that needs no arithmetic is a view of the rows.
    """
    _, _, size, read = KINDS[kind]
    values, scales, offsets = read(np.ascontiguousarray(rows).reshape(-1, size))
    blocks = (*rows.shape[:-1], rows.shape[-1] // size, -1)
    return Groups(
        values.reshape(blocks),
        scales.reshape(blocks),
        None if offsets is None else offsets.reshape(blocks),
    )


def _half(blocks: Bytes, at: int) -> _Halves:
    """The float16 number at byte `at` of each block: [blocks, 1]."""
    # In every format the size of a block is even.
    return blocks.view(np.float16)[:, at // 2 : at // 2 + 1]


def _float(blocks: Bytes, at: int) -> _Floats:
    """The same, as float32."""
    return _half(blocks, at).astype(np.float32)


def _nibbles(blocks: Bytes) -> Bytes:
    """The lower 4 bits of bytes [blocks, n], then the upper 4 bits: [blocks, 2 n]."""
    return np.concatenate([blocks & 15, blocks >> 4], axis=1)


def _packed(values: Bytes) -> Bytes:
    """Packs 4-bit numbers, two per byte, in the order of `Groups`."""
    halves = values.reshape(-1, 2, 16)
    low, high = halves[:, 0], halves[:, 1]
    packed: Bytes = low | high << np.uint8(4)
    return packed


def _q4_0(blocks: Bytes) -> Groups:
    scales = _float(blocks, 0)
    return Groups(blocks[:, 2:], scales, -8 * scales)


def _q4_1(blocks: Bytes) -> Groups:
    return Groups(blocks[:, 4:], _half(blocks, 0), _half(blocks, 2))


def _five(blocks: Bytes, at: int) -> NDArray[np.int8]:
    """32 numbers of 5 bits: their highest bits in 4 bytes, the others in the next 16 bytes."""
    high = np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little")
    return (_nibbles(blocks[:, at + 4 :]) | high << 4).view(np.int8)


def _q5_0(blocks: Bytes) -> Groups:
    return Groups(_five(blocks, 2) - np.int8(16), _half(blocks, 0))


def _q5_1(blocks: Bytes) -> Groups:
    return Groups(_five(blocks, 4), _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Bytes) -> Groups:
    return Groups(blocks[:, 2:].view(np.int8), _half(blocks, 0))


def _eight_scales(blocks: Bytes) -> tuple[_Floats, _Floats]:
    """The scales and offsets [blocks, 8] of Q4_K and Q5_K.

    Two float16, then 8 pairs of 6-bit numbers in 12 bytes; the bits of the last 4 pairs are
    spread over the bytes.
    """
    first, second, third = (blocks[:, i : i + 4] for i in (4, 8, 12))
    scale = np.concatenate([first & 63, (third & 15) | first >> 6 << 4], axis=1)
    least = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return _float(blocks, 0) * scale, -_float(blocks, 2) * least


def _q4_k(blocks: Bytes) -> Groups:
    # 32 bytes hold two groups: one in the lower 4 bits, one in the upper 4 bits.
    return Groups(_packed(_nibbles(blocks[:, 16:].reshape(-1, 32))), *_eight_scales(blocks))


def _q5_k(blocks: Bytes) -> Groups:
    low = _nibbles(blocks[:, 48:].reshape(-1, 32)).reshape(-1, 8, 32)
    # Each of 32 bytes holds the highest bit of one number of each of the 8 groups.
    high = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return Groups((low | high << 4).view(np.int8), *_eight_scales(blocks))


def _q6_k(blocks: Bytes) -> Groups:
    # In each half of a block, 32 bytes hold the upper 2 bits of 4 x 32 numbers.
    low = _nibbles(blocks[:, :128].reshape(-1, 64)).reshape(-1, 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    scales = _float(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return Groups((low | high << 4).view(np.int8) - np.int8(32), scales)


_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)[:, None]


def _pairs(blocks: Bytes) -> Bytes:
    """2-bit numbers [blocks, 2, 4, 32]: each of 32 bytes has one of each of 4 groups of 32."""
    numbers: Bytes = (blocks.reshape(-1, 2, 1, 32) >> _SHIFTS) & np.uint8(3)
    return numbers


def _q2_k(blocks: Bytes) -> Groups:
    scales = _float(blocks, 80) * (blocks[:, :16] & 15)
    return Groups(
        _pairs(blocks[:, 16:80]).view(np.int8),
        scales,
        -_float(blocks, 82) * (blocks[:, :16] >> 4),
    )


def _q3_k(blocks: Bytes) -> Groups:
    high = blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    values = _pairs(blocks[:, 32:96]) | high.reshape(-1, 2, 4, 32) << 2
    # 16 scales of 6 bits: the upper 2 bits of 4 scales are in one byte.
    top = (blocks[:, None, 104:108] >> _SHIFTS & 3).reshape(-1, 16)
    scales = (_nibbles(blocks[:, 96:104]) | top << 4).view(np.int8) - np.int8(32)
    return Groups(values.view(np.int8) - np.int8(4), _float(blocks, 108) * scales)


# The numbers that 4 bits stand for in the IQ4 formats.
_NONLINEAR = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8
)


def _iq4_nl(blocks: Bytes) -> Groups:
    return Groups(_NONLINEAR[_nibbles(blocks[:, 2:])], _half(blocks, 0))


def _iq4_xs(blocks: Bytes) -> Groups:
    # 8 scales of 6 bits: the lower 4 bits in turn in 4 bytes, the upper 2 bits in one uint16.
    low = (blocks[:, 4:8, None] >> np.array([0, 4], np.uint8) & 15).reshape(-1, 8)
    top = blocks.view(np.uint16)[:, 1:2] >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    scales = (low | top.astype(np.uint8) << 4).view(np.int8) - np.int8(32)
    values = _NONLINEAR[_nibbles(blocks[:, 8:].reshape(-1, 16))]
    return Groups(values, _float(blocks, 0) * scales)


# The number of a type, the numbers and bytes of a block, and its decoder.
KINDS: dict[str, tuple[int, int, int, Callable[[Bytes], Groups]]] = {
    "Q4_0": (2, 32, 18, _q4_0),
    "Q4_1": (3, 32, 20, _q4_1),
    "Q5_0": (6, 32, 22, _q5_0),
    "Q5_1": (7, 32, 24, _q5_1),
    "Q8_0": (8, 32, 34, _q8_0),
    "Q2_K": (10, 256, 84, _q2_k),
    "Q3_K": (11, 256, 110, _q3_k),
    "Q4_K": (12, 256, 144, _q4_k),
    "Q5_K": (13, 256, 176, _q5_k),
    "Q6_K": (14, 256, 210, _q6_k),
    "IQ4_NL": (20, 32, 18, _iq4_nl),
    "IQ4_XS": (23, 256, 136, _iq4_xs),
}

# Types that only the package `gguf` converts: number, and the numbers and bytes of a block.
CONVERTED: dict[str, tuple[int, int, int]] = {
    "IQ2_XXS": (16, 256, 66),
    "IQ2_XS": (17, 256, 74),
    "IQ3_XXS": (18, 256, 98),
    "IQ1_S": (19, 256, 50),
    "IQ3_S": (21, 256, 110),
    "IQ2_S": (22, 256, 82),
    "IQ1_M": (29, 256, 56),
    "TQ1_0": (34, 256, 54),
    "TQ2_0": (35, 256, 66),
    "MXFP4": (39, 32, 17),
    "NVFP4": (40, 64, 36),
}
