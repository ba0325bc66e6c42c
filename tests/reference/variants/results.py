"""The recorded results of all variants, and their sums in docs/zoo.md. Needs no reference."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_suffix(".txt")


class Row(NamedTuple):
    """A variant and its result, as texts."""

    family: str
    variant: str
    kind: str
    found: str


def read() -> list[Row]:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return [Row(*line.split(" | ")) for line in lines]


def write(rows: list[Row]) -> None:
    text = "".join(f"{' | '.join(row)}\n" for row in rows)
    FILE.write_text(text, encoding="utf-8", newline="\n")


def table(rows: list[Row]) -> str:
    """One row for each family: how many are equal and how far, and why others are refused."""
    text = ""
    for family in dict.fromkeys(row.family for row in rows):
        own = [row for row in rows if row.family == family]
        equal = [float(row.found) for row in own if row.kind == "equal"]
        refused = Counter(reason(row.found) for row in own if row.kind == "refused")
        reasons = ", ".join(f"{name} {count}" for name, count in refused.most_common())
        counts = Counter(row.kind for row in own)
        worst = f"{max(equal):.0e}" if equal else ""
        cells = [family, len(equal), worst, counts["different"], counts["not theirs"]]
        text += f"| {' | '.join(map(str, cells))} | {refused.total()}: {reasons} |\n"
    return text.replace("| 0:  |", "| 0 |")


def reason(message: str) -> str:
    """What a refusal is about: a field, or the start of the message."""
    if "model type" in message:
        return "model type"
    if field := re.match(r"([\w.]+) (?:is|sets|and) ", message):
        return f"`{field[1]}`"
    if field := re.match(r"the config has no field `(\S+)`", message):
        return f"without `{field[1]}`"
    return re.split("[,;:]", message)[0]
