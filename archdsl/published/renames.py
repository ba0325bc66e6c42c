"""`rename` lines: other names of tensors in a `weights` block, and of fields in its config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from archdsl.diagnostics import listing
from archdsl.published.paths import expressions, fill, holes, pattern
from archdsl.semantics.report import Report
from archdsl.syntax import ast


def apply_renames(lines: Sequence[ast.Line], report: Report) -> Iterator[ast.Line]:
    """The lines with the names that tensors get by the `rename` lines among them."""
    renames = [line for line in lines if isinstance(line, ast.Rename)]
    valid = [_is_valid(each, report) for each in renames]
    if not all(valid):
        renames = []
    paths = [path for line in lines for path in _tensors(line)]
    for each in renames:
        if all(_renamed(path.text, [each]) == path.text for path in paths):
            message = f"no rule has a tensor `{each.theirs.text}`"
            report.add("weights-map", message, each.theirs.span)

    def new(path: ast.Path) -> ast.Path:
        return replace(path, text=_renamed(path.text, renames))

    for line in lines:
        match line:
            case ast.Rule():
                yield replace(line, theirs=tuple(map(new, line.theirs)))
            case ast.Ignore():
                yield replace(line, theirs=new(line.theirs))
            case _:
                yield line


def _is_valid(line: ast.Rename, report: Report) -> bool:
    for path in (line.theirs, line.new):
        if expressions(path):
            report.add("weights-map", "a `rename` cannot compute numbers", path.span)
            return False
    old, new = sorted(holes(line.theirs)), sorted(holes(line.new))
    if old != new:
        report.add(
            "weights-map",
            "both names of a `rename` must have the same `{…}` and `*`",
            line.span,
            expected=listing(old, "and") or "none",
            found=listing(new, "and") or "none",
        )
    return old == new


def _tensors(line: ast.Line) -> tuple[ast.Path, ...]:
    match line:
        case ast.Rule():
            return line.theirs
        case ast.Ignore():
            return (line.theirs,)
        case _:
            return ()


def _renamed(text: str, renames: Iterable[ast.Rename]) -> str:
    """The path of a tensor after the first rename that matches it."""
    for each in renames:
        if match := re.fullmatch(pattern(each.theirs.text), text):
            return fill(each.new.text, match.groupdict())[0]
    return text


def rename_fields(node: ast.Config, config: Mapping[str, object]) -> dict[str, object]:
    """The config with the parts that `rename` lines put in the place of others.

    >>> from archdsl.syntax.parser import parse
    >>> text = 'weights "w" for M { config { rename old.* = new.* } }'
    >>> (block,) = parse(text).items
    >>> rename_fields(block.rules[0], {"old": {"a": 1}, "new": {"a": 2, "b": 3}})
    {'new': {'a': 1}}
    """
    found = dict(config)
    for line in node.rules:
        if isinstance(line, ast.Rename):
            part = found.pop(line.theirs.text.removesuffix(".*"), None)
            if part is not None:
                found[line.new.text.removesuffix(".*")] = part
    return found
