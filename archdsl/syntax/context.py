"""What the grammar knows about a place in an unfinished text: what is open and may follow.

The parser reads up to the place; its stack then holds the words and the parts that it has not
put together yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import lark

from archdsl.frozen import Frozen
from archdsl.syntax.parser import grammar

# Parts whose first name is a definition; of `edges`, all names but the value.
_DEFINING = {"param", "input", "weight", "edge", "edges", "state", "output", "typed", "axis"}
_KEYWORD = re.compile(r"[a-z_]{2,}")


class Context(Frozen):
    """A place in the text of an item.

    - `item`: the keyword that begins the item, "" before it.
    - `words`: the keywords that may follow; `name`: a name or a call may.
    - `defined`: the names that the item defines before, with the rules that define them;
      `choice` is a parameter that can be a block.
    - `choices`: the parameters that list their choices.
    - `last`: the words and rules before, the last one first, up to the bracket around them.
    - `call`: the name of the innermost call around the place, if it is among its arguments.
    - `given`: the names of arguments that the call has already.
    - `argument`: the name of the argument whose value follows.
    """

    item: str
    words: tuple[str, ...]
    name: bool
    defined: tuple[tuple[str, str], ...]
    choices: tuple[tuple[str, tuple[str, ...]], ...]
    last: tuple[str, ...]
    call: str | None
    given: tuple[str, ...]
    argument: str | None

    @property
    def is_step(self) -> bool:
        """Whether a block is needed here: behind an arrow, or as the first of a group."""
        last = self.last[2:] if self.last[:1] == (":",) else self.last
        group = last[:1] == ("{",) and not last[1][0].isalpha()
        return group or last[:1] == ("->",)


def context(text: str) -> Context | None:
    """The context at the end of a text, the beginning of an item; None behind a mistake.

    >>> here = context("block f(x: float[T]) { y = x -> norm(rms, eps = ")
    >>> here.call, here.argument, [name for name, _ in here.defined]
    ('norm', 'eps', ['x', 'T'])
    """
    try:
        reading = grammar().parse_interactive(text)
        list(reading.iter_parse())
    except lark.exceptions.UnexpectedInput:
        return None
    stack = reading.parser_state.value_stack
    closed = _closed(reading) if text.rstrip(" ").endswith("\n") else stack
    accepted: set[str] = reading.accepts()  # type: ignore[no-untyped-call]
    patterns = {
        name: str(grammar().get_terminal(name).pattern.value) for name in accepted - {"$END"}
    }
    words = {found[0] for each in patterns.values() if (found := _KEYWORD.match(each))}
    call, given, argument = _call(stack)
    return Context(
        item=_text(stack[0]) if stack else "",
        words=tuple(sorted(words)),
        name=not accepted.isdisjoint(("NAME", "CALLEE")),
        defined=tuple(dict.fromkeys(d for part in closed for d in _definitions(part))),
        choices=tuple(_choices(stack)),
        last=tuple(map(_text, reversed(stack[-4:]))),
        call=call,
        given=given,
        argument=argument,
    )


def _text(part: Any) -> str:
    """The text of a word, or the name of a rule."""
    return str(part.data) if isinstance(part, lark.Tree) else str(part)


def _closed(reading: Any) -> Sequence[Any]:
    """The stack with the statement before the place put together, if it may end there."""
    if "INIT" not in reading.accepts():
        return reading.parser_state.value_stack  # type: ignore[no-any-return]
    after = reading.copy()
    after.feed_token(lark.Token("INIT", "init"))
    return after.parser_state.value_stack  # type: ignore[no-any-return]


def _is(part: Any, type: str) -> bool:
    return isinstance(part, lark.Token) and part.type == type


def _call(stack: Sequence[Any]) -> tuple[str | None, tuple[str, ...], str | None]:
    """The call whose argument is at the end: its name, its named arguments, this one's name."""
    parts = list(stack)
    argument = None
    if len(parts) > 1 and _text(parts[-1]) == "=" and _is(parts[-2], "NAME"):
        argument = str(parts[-2])
        parts = parts[:-2]
    given = []
    while parts and (_text(parts[-1]) in (",", "arg") or _text(parts[-1]).startswith("__")):
        part = parts.pop()
        if isinstance(part, lark.Tree):
            names = (each.children[0] for each in part.find_data("arg"))
            given += [str(name) for name in names if isinstance(name, lark.Token)]
    if len(parts) < 2 or _text(parts[-1]) != "(" or not _is(parts[-2], "CALLEE"):
        return None, (), None
    declares = len(parts) > 2 and _text(parts[-3]) in ("block", "model")
    return (None, (), None) if declares else (str(parts[-2]), tuple(given), argument)


def _definitions(part: Any) -> Iterator[tuple[str, str]]:
    """The names that a part of the text defines, with the rules that do."""
    if not isinstance(part, lark.Tree):
        return
    rule = str(part.data)
    if rule in _DEFINING:
        children = part.children if rule == "axis" else part.children[:-1] or part.children
        if rule == "param" and _can_be_block(part):
            rule = "choice"
        names = (c for c in children if _is(c, "NAME"))
        for name in names:
            yield str(name), rule
            if rule not in ("edges", "axis"):
                break
    for child in part.children:
        yield from _definitions(child)


def _can_be_block(param: lark.Tree[Any]) -> bool:
    """Whether a parameter is one that takes a block, or has a name as its default."""
    _, type, default = param.children
    takes = isinstance(type, lark.Tree) and type.data == "block_type"
    return takes or _is(default, "NAME")


def _choices(stack: Sequence[Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The parameters that list their choices."""
    for part in stack:
        for param in part.find_data("param") if isinstance(part, lark.Tree) else ():
            name, type, _ = param.children
            if isinstance(type, lark.Tree) and type.data == "choices":
                yield str(name), tuple(map(str, type.children))
