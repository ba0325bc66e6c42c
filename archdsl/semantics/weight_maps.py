"""`weights` blocks: a checkpoint's names for a model's weights, one to one.

A rule pairs two paths. `{i}` stands for one part of a path, `*` for all that is left; both
sides have the same ones. Each weight of the model takes its name from the one rule that
fits its path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from archdsl.diagnostics import Note, did_you_mean
from archdsl.graph.nodes import Graph
from archdsl.graph.sites import parameters
from archdsl.semantics.report import Report
from archdsl.syntax import ast

_HOLE = re.compile(r"\{(\w+)\}|\*")
_SHOWN = 5
_MOST = 100_000  # what a stack of 10**12 copies would take for ever to name


@dataclass(frozen=True)
class WeightMap:
    """`names` maps our paths to the checkpoint's, in our order; `ignored` are patterns of
    tensors that a checkpoint may have beside them."""

    title: str
    names: Mapping[str, str]
    ignored: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


def weight_maps(file: ast.File, model: ast.Model, graph: Graph) -> dict[str, WeightMap]:
    """The maps that a file has for a model; raises `ArchError` where one is not one to one."""
    report = Report()
    maps: dict[str, WeightMap] = {}
    for item in file.items:
        if isinstance(item, ast.Weights) and item.model.id == model.name.id:
            if item.title.value in maps:
                report.add(
                    "duplicate-name",
                    f"there are two maps {item.title.value!r}",
                    item.title.span,
                )
            maps[item.title.value] = weight_map(item, graph, report)
    report.raise_any()
    return maps


def check_owners(file: ast.File, report: Report) -> None:
    """Reports `weights` blocks for a model that the file has not."""
    models = [item.name.id for item in file.items if isinstance(item, ast.Model)]
    for item in file.items:
        if isinstance(item, ast.Weights) and item.model.id not in models:
            report.add(
                "unknown-name",
                f"there is no model `{item.model.id}` in this file",
                item.model.span,
                help=did_you_mean(item.model.id, models),
            )


def weight_map(node: ast.Weights, graph: Graph, report: Report) -> WeightMap:
    """The names that a block gives to the weights of a graph."""
    rules = [r for r in node.rules if isinstance(r, ast.Rule) and _sound(r, report)]
    patterns = [(rule, re.compile(_pattern(rule.ours.text))) for rule in rules]
    names: dict[str, str] = {}
    by: dict[str, ast.Rule] = {}
    used: set[int] = set()
    unnamed: list[str] = []
    paths = [p.path for p in islice(parameters(graph), _MOST + 1)]
    if len(paths) > _MOST:
        report.add(
            "weights-map", f"the model has more than {_MOST:,} weights to name", node.title.span
        )
        return WeightMap(node.title.value, names)
    for path in paths:
        fitting = [(r, m) for r, ours in patterns if (m := ours.fullmatch(path))]
        if not fitting:
            unnamed.append(path)
            continue
        used |= {id(r) for r, _ in fitting}
        (rule, match), *others = fitting
        if others:
            report.add(
                "weights-map",
                f"two rules name `{path}`",
                others[0][0].ours.span,
                notes=(Note("the other is here", rule.ours.span),),
            )
        theirs = _filled(rule.theirs.text, match)
        if theirs in by:
            report.add(
                "weights-map",
                f"`{theirs}` would be two weights of the model",
                rule.theirs.span,
                notes=(Note("this rule names it too", by[theirs].theirs.span),),
                help="a place that differs between copies stands in braces: `{i}`",
            )
        names[path], by[theirs] = theirs, rule
    if unnamed and len(rules) == sum(isinstance(r, ast.Rule) for r in node.rules):
        more = f" and {len(unnamed) - _SHOWN} more" if len(unnamed) > _SHOWN else ""
        report.add(
            "weights-map",
            f"{len(unnamed)} of the model's {len(paths)} weights have no name in this map",
            node.title.span,
            found=", ".join(unnamed[:_SHOWN]) + more,
            help=f"add a rule such as `{unnamed[0]} = …`",
        )
    for rule in rules:
        if id(rule) not in used:
            near = did_you_mean(rule.ours.text, _templates(paths))
            report.add(
                "weights-map", f"no weight is at `{rule.ours.text}`", rule.ours.span, help=near
            )
    ignored = (_pattern(r.theirs.text) for r in node.rules if isinstance(r, ast.Ignore))
    return WeightMap(node.title.value, names, tuple(ignored))


def _sound(rule: ast.Rule, report: Report) -> bool:
    """Whether both sides of a rule have the same holes."""
    ours, theirs = (
        sorted(m[0] for m in _HOLE.finditer(p.text)) for p in (rule.ours, rule.theirs)
    )
    if ours == theirs and len(set(ours)) == len(ours):
        return True
    report.add(
        "weights-map",
        "both sides of a rule have the same braces and stars, each once",
        rule.span,
        expected=", ".join(ours) or "none",
        found=", ".join(theirs) or "none",
    )
    return False


def _pattern(text: str) -> str:
    """A path as a regular expression."""
    parts: list[str] = []
    end = 0
    for hole in _HOLE.finditer(text):
        parts.append(re.escape(text[end : hole.start()]))
        parts.append(f"(?P<{hole[1]}>[^.]+)" if hole[1] else "(?P<_rest>.+)")
        end = hole.end()
    return "".join(parts) + re.escape(text[end:])


def _filled(text: str, match: re.Match[str]) -> str:
    return _HOLE.sub(lambda hole: match[hole[1] or "_rest"], text)


def _templates(paths: Iterable[str]) -> list[str]:
    """Paths with the numbers of copies in braces, for suggestions."""
    return sorted({re.sub(r"\.\d+\.", ".{i}.", path) for path in paths})
