"""Writes which kind of layer a stack has at each number, as conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from archdsl.describe.build_syntax import SPAN, integer, name
from archdsl.syntax import ast


def choose_by_number(
    kinds: Mapping[int, int], blocks: Sequence[ast.Expr], number: str
) -> ast.Expr:
    """The block of a layer; `kinds` has the index of the block for each number of a layer.

    >>> from archdsl.syntax.printer import expression
    >>> blocks = [name("a"), name("b")]
    >>> def shown(kinds):
    ...     return expression(choose_by_number(dict(enumerate(kinds)), blocks, "i"))
    >>> shown([0, 0, 1, 0, 0, 1])
    'b if i % 3 == 2 else a'
    >>> shown([0, 1, 1, 1])
    'a if i < 1 else b'
    """
    if len(set(kinds.values())) == 1:
        return blocks[next(iter(kinds.values()))]
    for period in range(2, len(kinds) // 2 + 1):
        if all(kinds.get(i + period, kind) == kind for i, kind in kinds.items()):
            return _periodic(kinds, period, blocks, number)
    first, *others = kinds
    end = next(i for i in others if kinds[i] != kinds[first])
    rest = choose_by_number({i: k for i, k in kinds.items() if i >= end}, blocks, number)
    condition = ast.Compare(SPAN, name(number), "<", integer(end))
    return ast.When(SPAN, blocks[kinds[first]], condition, rest)


def _periodic(
    kinds: Mapping[int, int], period: int, blocks: Sequence[ast.Expr], number: str
) -> ast.Expr:
    by_rest = {i % period: kind for i, kind in kinds.items()}
    (usual, _), *_ = Counter(by_rest.values()).most_common()
    found = blocks[usual]
    for rest, kind in sorted(by_rest.items(), reverse=True):
        if kind != usual:
            remainder = ast.Binary(SPAN, name(number), "%", integer(period))
            condition = ast.Compare(SPAN, remainder, "==", integer(rest))
            found = ast.When(SPAN, blocks[kind], condition, found)
    return found
