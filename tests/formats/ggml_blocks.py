"""The block formats of ggml, each as a plain formula that gives one block's numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

f32 = np.float32
Floats = list[np.float32]

# The formulas of ggml's block formats, one block at a time, in the order of its additions
# and products. A half-precision scale comes first, but last in Q2_K, Q3_K and Q6_K.


def half(block: bytes, at: int) -> np.float32:
    return f32(np.frombuffer(block, np.float16, 1, at)[0])


def nibbles(data: bytes) -> list[int]:
    """The lower 4 bits of all bytes, then the upper 4 bits."""
    return [byte & 15 for byte in data] + [byte >> 4 for byte in data]


def q4_0(block: bytes) -> Floats:
    return [f32(q - 8) * half(block, 0) for q in nibbles(block[2:])]


def q4_1(block: bytes) -> Floats:
    return [f32(q) * half(block, 0) + half(block, 2) for q in nibbles(block[4:])]


def q5_0(block: bytes) -> Floats:
    high = int.from_bytes(block[2:6], "little")
    fives = [q | (high >> i & 1) << 4 for i, q in enumerate(nibbles(block[6:]))]
    return [f32(q - 16) * half(block, 0) for q in fives]


def q5_1(block: bytes) -> Floats:
    high = int.from_bytes(block[4:8], "little")
    fives = [q | (high >> i & 1) << 4 for i, q in enumerate(nibbles(block[8:]))]
    return [f32(q) * half(block, 0) + half(block, 2) for q in fives]


def q8_0(block: bytes) -> Floats:
    return [f32(q) * half(block, 0) for q in np.frombuffer(block, np.int8, 32, 2)]


def scale_and_minimum(packed: bytes, i: int) -> tuple[np.float32, np.float32]:
    """The i-th of eight pairs of six-bit numbers in twelve bytes."""
    if i < 4:
        return f32(packed[i] & 63), f32(packed[i + 4] & 63)
    low, high = packed[i + 4], (packed[i - 4] >> 6, packed[i] >> 6)
    return f32(low & 15 | high[0] << 4), f32(low >> 4 | high[1] << 4)


def q4_k(block: bytes) -> Floats:
    out: Floats = []
    for group in range(8):  # of 32 numbers
        scale, minimum = scale_and_minimum(block[4:16], group)
        bytes_ = block[16 + group // 2 * 32 :][:32]
        d, m = half(block, 0) * scale, half(block, 2) * minimum
        out += [d * f32(b >> 4 * (group % 2) & 15) - m for b in bytes_]
    return out


def q5_k(block: bytes) -> Floats:
    out: Floats = []
    for group in range(8):
        scale, minimum = scale_and_minimum(block[4:16], group)
        bytes_ = block[48 + group // 2 * 32 :][:32]
        d, m = half(block, 0) * scale, half(block, 2) * minimum
        for low, high in zip(bytes_, block[16:48], strict=True):
            q = low >> 4 * (group % 2) & 15 | (high >> group & 1) << 4
            out.append(d * f32(q) - m)
    return out


def q2_k(block: bytes) -> Floats:
    out: Floats = []
    for group in range(16):  # of 16 numbers
        d = half(block, 80) * f32(block[group] & 15)
        m = half(block, 82) * f32(block[group] >> 4)
        bytes_ = block[16 + group // 8 * 32 + group % 2 * 16 :][:16]
        out += [d * f32(b >> group % 8 // 2 * 2 & 3) - m for b in bytes_]
    return out


def q3_k(block: bytes) -> Floats:
    out: Floats = []
    packed = block[96:108]
    for group in range(16):  # of 16 numbers
        low = packed[group % 8] >> group // 8 * 4 & 15
        scale = low | (packed[8 + group % 4] >> group // 4 * 2 & 3) << 4
        d = half(block, 108) * f32(scale - 32)
        at = group % 2 * 16
        bytes_ = block[32 + group // 8 * 32 + at :][:16]
        for b, high in zip(bytes_, block[at : at + 16], strict=True):
            two = b >> group % 8 // 2 * 2 & 3
            out.append(d * f32(two - (0 if high >> group // 2 & 1 else 4)))
    return out


NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def iq4_nl(block: bytes) -> Floats:
    return [half(block, 0) * f32(NONLINEAR[q]) for q in nibbles(block[2:])]


def iq4_xs(block: bytes) -> Floats:
    out: Floats = []
    high = int.from_bytes(block[2:4], "little")
    for group in range(8):  # of 32 numbers
        scale = block[4 + group // 2] >> group % 2 * 4 & 15 | (high >> 2 * group & 3) << 4
        d = half(block, 0) * f32(scale - 32)
        out += [d * f32(NONLINEAR[q]) for q in nibbles(block[8 + 16 * group :][:16])]
    return out


def q6_k(block: bytes) -> Floats:
    scales = np.frombuffer(block, np.int8, 16, 192)
    out: Floats = []
    for i in range(256):
        part, within = divmod(i, 128)
        quarter, column = divmod(within, 32)
        low = block[part * 64 + quarter % 2 * 32 + column] >> 4 * (quarter // 2) & 15
        high = block[128 + part * 32 + column] >> 2 * quarter & 3
        q = f32((low | high << 4) - 32)
        out.append(half(block, 208) * f32(scales[i // 16]) * q)
    return out


# Name: number of the type, numbers and bytes of a block, the bytes that are halves, formula.
FORMULAS: dict[str, tuple[int, int, int, list[int], Callable[[bytes], Floats]]] = {
    "Q4_0": (2, 32, 18, [0], q4_0),
    "Q4_1": (3, 32, 20, [0, 2], q4_1),
    "Q5_0": (6, 32, 22, [0], q5_0),
    "Q5_1": (7, 32, 24, [0, 2], q5_1),
    "Q8_0": (8, 32, 34, [0], q8_0),
    "Q2_K": (10, 256, 84, [80, 82], q2_k),
    "Q3_K": (11, 256, 110, [108], q3_k),
    "Q4_K": (12, 256, 144, [0, 2], q4_k),
    "Q5_K": (13, 256, 176, [0, 2], q5_k),
    "Q6_K": (14, 256, 210, [208], q6_k),
    "IQ4_NL": (20, 32, 18, [0], iq4_nl),
    "IQ4_XS": (23, 256, 136, [0], iq4_xs),
}
