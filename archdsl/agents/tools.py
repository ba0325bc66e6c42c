"""What a program asks about a spec: plain functions from text to data.

A spec is the text of a file, or the name of a spec of the standard library, such as
`gpt2.arch:xl`. No other file is named, because a message would show its text. A spec with
mistakes is refused: each function raises `ArchError` with all of its diagnostics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archdsl.analysis import Analysis, analyse, analyse_models, split
from archdsl.describe.differences import differences
from archdsl.describe.facts import facts
from archdsl.diagnostics import did_you_mean, fail
from archdsl.figure.fold import fold
from archdsl.figure.layout import layout
from archdsl.figure.structure import Level
from archdsl.figure.svg import svg
from archdsl.graph.ops import OPS
from archdsl.semantics.library import first_comment, library_specs, read_text_file
from archdsl.semantics.model_parameters import Setting
from archdsl.syntax import ast
from archdsl.syntax.parser import parse
from archdsl.syntax.printer import format

_MOST_FOUND = 10
_TITLE = "proposal.arch"


def check(spec: str, settings: dict[str, Setting] | None = None) -> dict[str, Any]:
    """Check a spec: names, shapes, masks, causality, losses, and the facts that it states.

    Returns types, parameters, flops and bytes of each model, and the text as `archdsl fmt`
    writes it. A spec with mistakes is refused with a diagnostic for each.
    """
    given = _spec(spec)
    found = list(analyse_models(given, settings))
    text = format(given) if isinstance(given, ast.File) else read(spec)
    return {"models": [facts(each.graph) for each in found], "formatted": text}


def cost(
    spec: str,
    model: str | None = None,
    sizes: dict[str, int] | None = None,
    settings: dict[str, Setting] | None = None,
) -> dict[str, Any]:
    """Count parameters, flops, and bytes of weights, activations and cache, for one example.

    `model` names a model or a variant of a spec with several. `sizes` are lengths of axes,
    such as {"T": 1024}; the others are at their bounds. `settings` are parameters of the
    model, such as {"depth": 24}.
    """
    return facts(_analysis(spec, model, settings).graph, sizes)


def diff(
    left: str, right: str, left_model: str | None = None, right_model: str | None = None
) -> dict[str, dict[str, str]]:
    """Compare two models: the features in which they differ, with the value in each."""
    graphs = (_analysis(left, left_model).graph, _analysis(right, right_model).graph)
    found = differences(*graphs)
    return {name: {"left": ours, "right": theirs} for name, (ours, theirs) in found.items()}


def draw(
    spec: str,
    model: str | None = None,
    level: Level = "block",
    settings: dict[str, Setting] | None = None,
) -> str:
    """Draw a model as its paper would print it; returns an SVG.

    `level` is `model` (a box for each stack), `block` (one for each sublayer) or `operator`.
    """
    return svg(layout(fold(_analysis(spec, model, settings).graph, level)))


def search(words: str) -> list[dict[str, Any]]:
    """Find specs of the standard library by words, such as "sliding window" or "Mixtral".

    Returns for each its name, what its first comment says, and its models and variants; those
    with the most of the words first.
    """
    asked = {word.lower() for word in re.findall(r"\w+", words)}
    if not asked:
        fail("argument-value", "there is no word to search for", expected="`sliding window`")
    ranked = []
    for path in library_specs():
        text = read_text_file(path)
        about = " ".join(first_comment(text))
        first, all = (_count(asked, each) for each in (f"{path.stem} {about}", text))
        if all:
            # A word in the title or the first comment counts more than one in the text.
            ranked.append((-2 * first - all, path.name, about))
    return [
        {"spec": name, "about": about, "models": _names(name)}
        for _, name, about in sorted(ranked)[:_MOST_FOUND]
    ]


def read(spec: str) -> str:
    """Read the text of a spec of the standard library, such as `gpt2.arch`."""
    return read_text_file(_in_library(split(spec)[0]))


def operators(names: list[str] | None = None) -> dict[str, dict[str, str]]:
    """List the operators of the language, with an example and what each computes.

    Without `names`, all of them.
    """
    for name in names or ():
        if name not in OPS:
            what = f"there is no operator `{name}`"
            fail("unknown-name", what, help=did_you_mean(name, OPS))
    chosen = {name: op for name, op in OPS.items() if not names or name in names}
    return {name: {"example": op.example, "doc": op.doc} for name, op in chosen.items()}


TOOLS = (check, cost, diff, draw, search, read, operators)


def _analysis(
    spec: str, model: str | None, settings: Mapping[str, Setting] | None = None
) -> Analysis:
    return analyse(_spec(spec), model, settings)


def _spec(spec: str) -> ast.File | str:
    """A parsed text, or the path of a spec of the library with its variant."""
    if re.search(r"[{}\s]", spec):
        return parse(spec, _TITLE)
    name, variant = split(spec)
    path = _in_library(name)
    return f"{path}:{variant}" if variant else str(path)


def _in_library(name: str) -> Path:
    specs = {path.name: path for path in library_specs()}
    if name not in specs:
        fail(
            "file",
            f"the standard library has no spec `{name}`",
            expected="the name of a spec, such as `gpt2.arch`, or the text of one",
            help=did_you_mean(name, specs),
        )
    return specs[name]


def _count(asked: set[str], text: str) -> int:
    """How many of the words begin a word of the text."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return sum(any(word.startswith(each) for word in words) for each in asked)


def _names(spec: str) -> list[str]:
    file = parse(read(spec))
    return [each.name.id for each in file.items if isinstance(each, ast.Model | ast.Variant)]
