"""Writes docs/zoo.md: the sizes of every spec, and its differences from the reference.

    python -m tests.reference.zoo [WORD …]

compares each family with the library that published it, over three seeds, or only those with a
word in their names, and records the differences in measured.txt. The rest of the page is
computed from the specs; a test checks that the page is up to date.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from archdsl.analysis import analyse
from archdsl.graph.cost import parameter_count
from archdsl.syntax import ast
from archdsl.syntax.parser import parse
from tests.published.real_configs import parameters, real_configs
from tests.reference.variants import results

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "zoo.md"
MEASURED = Path(__file__).with_name("measured.txt")
SEEDS = 3

INTRODUCTION = """\
# Architectures

The architectures of the standard library ([specs/](../specs)). Each file cites its source.
Commands find them from any folder: `archdsl check gpt2.arch:xl`.

"""
TABLE = f"""\
Lines: of the model and its blocks / of the whole file with variants and weight maps.
Parameters are counted from the spec. Each family is compared with its reference on small models
with random weights: the reference saves a checkpoint, `archdsl.from_pretrained` loads it, and
every output is compared in float32 on the CPU. A difference is max |archdsl - reference| /
max |reference|, the largest over {SEEDS} seeds; `in steps` compares the logits of a few tokens
at a time with those of all at once. `python -m tests.reference.zoo` writes this table.

| spec | lines | model: parameters | source | compared with: differences |
| --- | --- | --- | --- | --- |
"""

VARIANTS = """
## Variants

Small models with changed configs. Each field of the config classes of transformers takes other
values, alone and with others. Fields are left out of config.json, or written as older releases
wrote them. Transformers saves each model, archdsl loads it, and all outputs are compared as
above; equal means a difference of at most 1e-4. Refused means that archdsl raises an error: the
last column counts the fields that the errors name. Some variants transformers cannot compute.
`python -m tests.reference.variants` writes this table.

| family | equal | largest difference | different | not computed by transformers | refused |
| --- | --- | --- | --- | --- | --- |
"""
PUBLISHED = """
## Published configs

Configs of published checkpoints, read without their weights. Each name links to the file.

| family | loaded: parameters | refused: message |
| --- | --- | --- |
"""


class Row(NamedTuple):
    """One row of the table of differences."""

    spec: str
    against: str
    found: str


def page(rows: list[Row]) -> str:
    """Returns the page for these measured rows."""
    text = INTRODUCTION + TABLE
    for path in sorted((ROOT / "specs").glob("*.arch")):
        text += _row(path, [row for row in rows if row.spec == path.name])
    return text + VARIANTS + results.table(results.read()) + PUBLISHED + _published()


def measured() -> list[Row]:
    """The recorded differences."""
    lines = MEASURED.read_text(encoding="utf-8").splitlines()
    return [Row(*line.split(" | ")) for line in lines]


def _published() -> str:
    """One row for each family."""
    loaded: dict[str, list[str]] = {}
    refused: dict[str, list[str]] = {}
    for real in real_configs():
        found = parameters(real.config)
        cells = refused if isinstance(found, str) else loaded
        text = found if isinstance(found, str) else f"{found:,}"
        cells.setdefault(real.family, []).append(f"{real.link}: {text}")
    families = dict.fromkeys(real.family for real in real_configs())
    return "".join(
        f"| {family} | {'; '.join(loaded.get(family, []))} "
        f"| {'; '.join(refused.get(family, []))} |\n"
        for family in families
    )


def _row(path: Path, rows: list[Row]) -> str:
    text = path.read_text(encoding="utf-8")
    file = parse(text, str(path))
    own = [i for i in file.items if isinstance(i, ast.Block | ast.Model)]
    lines = sum(item.span.text.count("\n") + 1 for item in own)
    models = [i.name.id for i in file.items if isinstance(i, ast.Variant)]
    varied = {i.call.callee.id for i in file.items if isinstance(i, ast.Variant)}
    models += [m.name.id for m in own if isinstance(m, ast.Model) and m.name.id not in varied]
    counts = {m: parameter_count(analyse(f"{path}:{m}").graph) for m in models}
    header = " ".join(line.lstrip("# ") for line in _header(text))
    sources = [s for s in re.findall(r"\(([^()]*)\)", header) if re.search(r"\b(19|20)\d\d", s)]
    cells = [
        f"[{path.name}](../specs/{path.name})",
        f"{lines} / {text.count(chr(10))}",
        "; ".join(f"{m}: {counts[m]:,}" for m in sorted(counts, key=counts.__getitem__)),
        "; ".join(sources),
        "<br>".join(f"{row.against}: {row.found}" for row in rows),
    ]
    return f"| {' | '.join(cells)} |\n"


def _header(text: str) -> list[str]:
    """Returns the lines of the comment at the start of a file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    return lines


def _compared(words: list[str]) -> list[Row]:
    """The rows of all families; those without a word are the recorded ones."""
    from tests.reference.families import differences, library

    unknown = [w for w in words if not any(w in family.name for family in library())]
    if unknown:
        names = ", ".join(family.name for family in library())
        sys.exit(f"error: no family has `{unknown[0]}` in its name; they are {names}")
    recorded = {(row.spec, row.against): row for row in measured()}
    rows = []
    for family in library():
        how = family.name.partition(", ")[2]
        against = f"{family.against} ({how})" if how else family.against
        before = recorded.get((family.spec, against))
        if before and words and not any(word in family.name for word in words):
            rows.append(before)
            continue
        worst: dict[str, float] = {}
        for seed in range(SEEDS):
            with tempfile.TemporaryDirectory() as folder:
                found = differences(family, Path(folder), seed)
            worst |= {name: max(d, worst.get(name, 0.0)) for name, d in found.items()}
        text = ", ".join(f"{name} {d:.1e}" for name, d in worst.items())
        print(family.name, text, file=sys.stderr, flush=True)
        rows.append(Row(family.spec, against, text))
    return rows


def write(rows: list[Row] | None = None) -> None:
    """Writes the page, with the recorded differences or with new ones."""
    if rows is not None:
        lines = "".join(f"{' | '.join(row)}\n" for row in rows)
        MEASURED.write_text(lines, encoding="utf-8", newline="\n")
    PAGE.write_text(page(measured()), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(_compared(sys.argv[1:]))
