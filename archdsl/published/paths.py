"""The paths of a `weights` block: `{i}` and `*` match parts, `{q,k}` is a list of names.

`{2 * i + 1}` is the number of a part, computed from that of the other side.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from archdsl.published.conversions import LISTED
from archdsl.syntax import ast

# `{i}`, `{q,k}`, an expression such as `{2 * i + 1}`, or `*`.
_HOLE = re.compile(r"\{(\w+)\}|\{([\w.]+(?:,[\w.]+)+)\}|\{(\w[^{}]*)\}|\*")
_NAME = re.compile(r"[A-Za-z_]\w*")
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}


def holes(path: ast.Path) -> list[str]:
    """The holes of a path: `{i}` and `*`, but not `{a,b}`. That of `{2 * i}` is `{i}`."""
    found: list[str] = []
    for m in _HOLE.finditer(path.text):
        if m[3]:
            found += [f"{{{name}}}" for name in _NAME.findall(m[3])]
        elif not m[2]:
            found.append(m[0])
    return found


def expressions(path: ast.Path) -> list[str]:
    """The expressions of a path, such as `2 * i + 1`."""
    return [m[3] for m in _HOLE.finditer(path.text) if m[3]]


def _with_numbers(path: ast.Path, numbers: Mapping[str, int]) -> ast.Path:
    """The path with numbers for names in its expressions."""
    if not expressions(path):
        return path

    def number(found: re.Match[str]) -> str:
        return str(numbers.get(found[0], found[0]))

    text = _HOLE.sub(lambda m: f"{{{_NAME.sub(number, m[3])}}}" if m[3] else m[0], path.text)
    return replace(path, text=text)


def evaluate(expression: str, values: Mapping[str, str]) -> int:
    """The value of an expression; `*`, `//` and `%` come before `+` and `-`.

    Raises ZeroDivisionError, and ValueError for a name whose value is no number.
    """
    words = expression.split()
    numbers = [int(values.get(word, word)) for word in words[::2]]
    total, sign, product = 0, 1, numbers[0]
    for word, number in zip(words[1::2], numbers[1:], strict=True):
        if word in "+-":
            total, sign, product = total + sign * product, 1 if word == "+" else -1, number
        else:
            product = _OPERATORS[word](product, number)
    return total + sign * product


def matcher(text: str) -> Callable[[str], dict[str, str] | None]:
    """A function that returns the values of a path's holes for a name that the path matches.

    An expression must be a number times its hole plus a number; the hole is solved for.
    """
    fullmatch = re.compile(pattern(text)).fullmatch
    solved = [m[3] for m in _HOLE.finditer(text) if m[3]]

    def match(name: str) -> dict[str, str] | None:
        found = fullmatch(name)
        if found is None:
            return None
        values = {k: v for k, v in found.groupdict().items() if not k.startswith("_x")}
        for i, expression in enumerate(solved):
            (hole,) = _NAME.findall(expression)
            start, next = (evaluate(expression, {hole: str(n)}) for n in (0, 1))
            solution, rest = divmod(int(found[f"_x{i}"]) - start, next - start)
            if rest or solution < 0 or values.setdefault(hole, str(solution)) != str(solution):
                return None
        return values

    return match


def paths_of(rule: ast.Rule) -> tuple[ast.Path, ...]:
    return (rule.ours, *rule.theirs)


def rule_with_numbers(rule: ast.Rule, numbers: Mapping[str, int]) -> ast.Rule:
    """A rule with the model's numbers in the expressions of its paths."""
    ours, *theirs = (_with_numbers(path, numbers) for path in paths_of(rule))
    return replace(rule, ours=ours, theirs=tuple(theirs))


def is_computed(expression: str) -> bool:
    """Whether the value of an expression depends on a name, and is never negative."""
    names = _NAME.findall(expression)
    return bool(names) and evaluate(expression, dict.fromkeys(names, "0")) >= 0


def is_linear(expression: str) -> bool:
    """Whether an expression is a number times one name plus a number."""
    names = _NAME.findall(expression)
    if len(names) != 1:
        return False
    first, second, *others = (evaluate(expression, {names[0]: str(n)}) for n in range(12))
    step = second - first
    return bool(step) and others == [first + n * step for n in range(2, 12)]


def stacked_hole(rule: ast.Rule) -> str | None:
    """The name of the `{j}` on the left whose weights are stacked in one tensor, if any."""
    if all(each.name.id != "stacked" for each in rule.conversions):
        return None
    theirs = {hole for path in rule.theirs for hole in holes(path)}
    alone = [hole for hole in holes(rule.ours) if hole not in theirs and hole != "*"]
    return alone[0].strip("{}") if len(alone) == 1 else None


def pairs(rule: ast.Rule) -> tuple[ast.Rule, ...]:
    """The rules that a rule with lists of equal length on both sides stands for.

    Any other rule stands for itself.
    """
    paths = (rule.ours, *rule.theirs)
    lengths = {len(parts(path.text)) for path in paths}
    if lengths == {0} or len(lengths) > 1 or _takes_parts(rule):
        return (rule,)

    def member(path: ast.Path, number: int) -> ast.Path:
        name = parts(path.text)[number]
        text = _HOLE.sub(lambda found: name if found[2] else found[0], path.text)
        return replace(path, text=text)

    return tuple(
        replace(
            rule,
            ours=member(rule.ours, number),
            theirs=tuple(member(path, number) for path in rule.theirs),
        )
        for number in range(lengths.pop())
    )


def _takes_parts(rule: ast.Rule) -> bool:
    """Whether a list names the parts of one tensor."""
    return any(each.name.id in LISTED for each in rule.conversions)


@functools.cache
def parts(text: str) -> tuple[str, ...]:
    """The names in a path's `{q,k,v}`."""
    found = [m[2] for m in _HOLE.finditer(text) if m[2]]
    return tuple(found[0].split(",")) if found else ()


def pattern(text: str) -> str:
    """A regular expression for a path."""
    parts: list[str] = []
    end = 0
    expressions = 0
    for hole in _HOLE.finditer(text):
        parts.append(re.escape(text[end : hole.start()]))
        if hole[3]:
            parts.append(f"(?P<_x{expressions}>[0-9]{{1,9}})")
            expressions += 1
        elif hole[2]:
            parts.append(f"(?P<_part>{'|'.join(map(re.escape, hole[2].split(',')))})")
        else:
            parts.append(f"(?P<{hole[1]}>[^.]+)" if hole[1] else "(?P<_rest>.+)")
        end = hole.end()
    return "".join(parts) + re.escape(text[end:])


def fill(text: str, holes: dict[str, str]) -> tuple[str, ...]:
    """The names of a path with filled holes: one, or one for each part.

    >>> fill("h.{2 * i + 1}.*", {"i": "3", "_rest": "q.{j}"})
    ('h.7.q.{j}',)
    """
    if _has_expression(text):
        # Before the others, whose values may have holes of their own.
        text = _HOLE.sub(lambda m: str(evaluate(m[3], holes)) if m[3] else m[0], text)
    return tuple([form.format_map(holes) for form in _forms(text)])


@functools.cache
def _has_expression(text: str) -> bool:
    return any(hole[3] for hole in _HOLE.finditer(text))


@functools.cache
def _forms(text: str) -> tuple[str, ...]:
    """Format strings for the names of a path."""

    def form(part: str) -> str:
        def hole(m: re.Match[str]) -> str:
            return part if m[2] else f"{{{m[1] or '_rest'}}}"

        return _HOLE.sub(hole, text)

    return tuple(form(part) for part in parts(text) or ("",))


def templates(paths: Iterable[str]) -> list[str]:
    """Paths with `{i}` for layer numbers, for suggestions."""
    return sorted({re.sub(r"\.\d+\.", ".{i}.", path) for path in paths})
