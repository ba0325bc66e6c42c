"""Changes of a file's content: of bytes, of lines, and of values in JSON."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from typing import Any

NUMBERS = (0, 1, 2, 7, 8, 31, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS += (2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (None, True, False, "", "a", "é", "\0", "\ud800", "../a", "a" * 300)
VALUES += (0, 1, -1, 7, 10**6, 10**9, 10**18, 2**63, 10**30, -(10**30), 0.5, 1e308, 1e-320)
VALUES += (float("nan"), float("inf"), [], {}, [[]], [0], ["a"], {"a": 1}, [1, "a", None])
TEXTS = ("\0", "\n", '"', "\\", "{{", "}}", "{%", "(", ")", "[", "]", "999999999999", "-1", " ")
TEXTS += ("é", "\u2028", "\ufeff", "1e400", "*", "->", "%", "<", ">", ":", ",", "|", "~", "nan")


def mutate(rng: random.Random, content: bytes, seeds: Sequence[bytes], kind: str) -> bytes:
    """A changed copy; `seeds` are files from which parts are taken."""
    changes = [_bytes]
    if kind == "json":
        changes = [_json, _json, _json, _bytes]
    elif kind == "text":
        changes = [_text, _text, _bytes]
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        content = rng.choice(changes)(rng, content, rng.choice(seeds))
    return content


def _bytes(rng: random.Random, content: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    length = rng.choice([1, 1, 2, 4, 8, 32])
    head, tail = content[:at], content[at:]
    match rng.randrange(8):
        case 0:
            return head
        case 1:
            return head + tail[length:]
        case 2:
            return head + tail[:length] * rng.choice([2, 3, 100]) + tail[length:]
        case 3:
            start = rng.randrange(len(other) + 1)
            return head + other[start : start + 4 * length] + tail
        case 4:
            return head + rng.randbytes(length) + tail[length:]
        case 5 if tail:
            return head + bytes([tail[0] ^ 1 << rng.randrange(8)]) + tail[1:]
    form = rng.choice(["<B", "<H", "<I", "<Q", ">H", ">I"])
    size = struct.calcsize(form)
    number = rng.choice(NUMBERS) % (1 << 8 * size)
    return head + struct.pack(form, number) + tail[size:]


def _text(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """Moves, repeats, removes or replaces words."""
    words, others = content.split(b" "), other.split(b" ")
    at, to = rng.randrange(len(words) + 1), rng.randrange(len(words) + 1)
    word = rng.choice([*words, *others, rng.choice(TEXTS).encode()])
    match rng.randrange(4):
        case 0:
            words[at:to] = []
        case 1:
            words[at:at] = [word] * rng.choice([1, 1, 1, 300])
        case 2:
            words[at : at + 1] = [word]
        case 3:
            words[at:at] = words[to : to + 10]
    return b" ".join(words)


def _json(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """Replaces, removes, doubles or adds one value of a JSON text."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(rng, content, other)
    holders = [([value], 0), *_places(value)]
    holder, key = rng.choice(holders)
    root = holders[0][0]
    donor, name = rng.choice(holders)
    match rng.randrange(6):
        case 0 if holder is not root:
            del holder[key]
        case 1:
            holder[key] = json.loads(json.dumps(donor[name]))
        case 2 if isinstance(holder, dict):
            holder[rng.choice([*map(str, VALUES[3:10]), name])] = holder.pop(key)
        case 3 if isinstance(holder[key], int | float):
            holder[key] = rng.choice(NUMBERS) * rng.choice([1, 1, -1, 0.5])
        case 4 if isinstance(holder[key], list):
            holder[key] = holder[key] * rng.choice([2, 50])
        case _:
            holder[key] = rng.choice(VALUES)
    return json.dumps(root[0]).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each value inside a value, as its list or dict and its place there."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        each = waiting.pop()
        keys = (
            each
            if isinstance(each, dict)
            else range(len(each))
            if isinstance(each, list)
            else ()
        )
        for key in keys:
            found.append((each, key))
            waiting.append(each[key])
    return found
