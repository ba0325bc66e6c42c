"""What attention may see: an expression over atoms, each a set of pairs of query and key.

The text of a mask is the setting `mask` of an operator:

    causal & within(64) | prefix(4)

- `causal`: keys up to the query.
- `within(n)`: keys at distances below n, on both sides.
- `chunk(n)`: keys in the chunk of n positions that the query is in.
- `prefix(n)`: the first n keys.
- `same(a, b)`: keys whose number in b is that of the query in a.
- `queries(a)`, `keys(b)`: pairs whose query, or whose key, is marked by a truth value.
- `given(c)`: pairs that a table of truth values marks.

a, b and c are inputs of the operator: `row_1`, … have a value for each query, `column_1`, … one
for each key, and `pair_1`, … one for each pair.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from archdsl.frozen import Frozen

# The atoms, each with its number of arguments, and where it says less than a whole axis.
NUMBERED = ("within", "chunk", "prefix")
DATA = {"same": ("row", "column"), "queries": ("row",), "keys": ("column",), "given": ("pair",)}
ATOMS = ("causal", *NUMBERED, *DATA)
OWN_AXES = {"row": 1, "column": 1, "pair": 2}  # of a tensor, by its role
RELATIVE = frozenset({"causal", "within", "chunk"})  # they compare positions of one axis

_INPUT = re.compile(r"(row|column|pair)_[1-9][0-9]*")
_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z_0-9]*|[0-9]+|[&|(),])")


class Mask(Frozen):
    """An atom with its arguments, or `&`, `|` or `not` of parts."""

    op: str
    args: tuple[int | str, ...] = ()
    parts: tuple[Mask, ...] = ()

    def __str__(self) -> str:
        match self.op:
            case "not":
                (part,) = self.parts
                inner = f"({part})" if part.op in "&|" else str(part)
                return f"not {inner}"
            case "&" | "|":
                parts = (
                    f"({p})" if self.op == "&" and p.op == "|" else f"{p}" for p in self.parts
                )
                return f" {self.op} ".join(parts)
            case _ if self.args:
                return f"{self.op}({', '.join(map(str, self.args))})"
            case _:
                return self.op


CAUSAL = Mask("causal")
EVERYTHING = Mask("&")  # of no parts
NOTHING = Mask("|")


def both(*parts: Mask) -> Mask:
    """The pairs that are in all parts."""
    return _joined("&", "|", parts)


def either(*parts: Mask) -> Mask:
    """The pairs that are in any of the parts."""
    return _joined("|", "&", parts)


def _joined(op: str, other: str, parts: tuple[Mask, ...]) -> Mask:
    flat = [q for p in parts for q in (p.parts if p.op == op else (p,))]
    if Mask(other) in flat:  # nothing in `&`, everything in `|`
        return Mask(other)
    found = tuple(dict.fromkeys(flat))
    return found[0] if len(found) == 1 else Mask(op, (), found)


def without(mask: Mask) -> Mask:
    """The pairs that are not in a mask; `not` stands only before atoms."""
    match mask.op:
        case "not":
            return mask.parts[0]
        case "&":
            return either(*map(without, mask.parts))
        case "|":
            return both(*map(without, mask.parts))
        case _:
            return Mask("not", (), (mask,))


def text(mask: Mask) -> str | None:
    """The setting `mask`: None if all is visible."""
    return None if mask == EVERYTHING else str(mask)


def shown(mask: Mask) -> str:
    """A mask for a message, without the names of its inputs."""
    bare = re.sub(r"(same|queries|keys|given)\([^)]*\)", r"\1(…)", str(mask))
    return f"`{bare}`" if mask != EVERYTHING else "that sees everything"


def atoms(mask: Mask) -> Iterator[Mask]:
    """The atoms of a mask, in order."""
    if mask.op in ("&", "|", "not"):
        for part in mask.parts:
            yield from atoms(part)
    else:
        yield mask


def inputs(mask: Mask) -> tuple[str, ...]:
    """The inputs that a mask reads, in order."""
    found = (arg for atom in atoms(mask) for arg in atom.args if isinstance(arg, str))
    return tuple(dict.fromkeys(found))


def renamed(mask: Mask, names: Mapping[tuple[str, str], str]) -> Mask:
    """A mask whose atoms read other inputs: by role and old name."""
    if mask.op in ("&", "|", "not"):
        return replace(mask, parts=tuple(renamed(part, names) for part in mask.parts))
    roles = DATA.get(mask.op, ())
    args = (names[role, str(arg)] for role, arg in zip(roles, mask.args, strict=bool(roles)))
    return replace(mask, args=tuple(args)) if roles else mask


def is_input(name: str) -> bool:
    """Whether a name is that of an input which a mask reads."""
    return _INPUT.fullmatch(name) is not None


# -- reading --


@functools.lru_cache(1000)
def parse(setting: str | None) -> Mask:
    """The mask of a setting. Raises `ValueError` if it is none.

    >>> mask = parse("causal & within(4) | prefix(2)")
    >>> mask.op, str(mask)
    ('|', 'causal & within(4) | prefix(2)')
    """
    if setting is None:
        return EVERYTHING
    tokens = [m[1] for m in _TOKEN.finditer(setting)]
    if "".join(tokens) != re.sub(r"\s", "", setting):
        raise ValueError(setting)
    reader = _Reader(tokens)
    mask = reader.either()
    if reader.tokens or str(mask) != setting:
        raise ValueError(setting)
    return mask


class _Reader:
    def __init__(self, tokens: list[str]):
        self.tokens = tokens

    def take(self, wanted: str | None = None) -> str:
        if not self.tokens or (wanted is not None and self.tokens[0] != wanted):
            raise ValueError(self.tokens)
        return self.tokens.pop(0)

    def series(self, sign: str, one: Callable[[], Mask]) -> list[Mask]:
        found = [one()]
        while self.tokens and self.tokens[0] == sign:
            self.take()
            found.append(one())
        return found

    def either(self) -> Mask:
        return either(*self.series("|", self.both))

    def both(self) -> Mask:
        return both(*self.series("&", self.one))

    def one(self) -> Mask:
        word = self.take()
        if word == "not":
            return without(self.one())
        if word == "(":
            found = self.either()
            self.take(")")
            return found
        if word in NUMBERED:
            self.take("(")
            number = int(self.take())
            self.take(")")
            if number < 1:
                raise ValueError(word)
            return Mask(word, (number,))
        if word in DATA:
            self.take("(")
            names: list[int | str] = []
            for i, role in enumerate(DATA[word]):
                self.take(",") if i else None
                names.append(self.take())
                if not str(names[-1]).startswith(f"{role}_") or not is_input(str(names[-1])):
                    raise ValueError(word)
            self.take(")")
            return Mask(word, tuple(names))
        if word != "causal":
            raise ValueError(word)
        return CAUSAL


# -- what follows from a mask --

# A function of a query's position i: the first or last key that a mask can see. None: no bound.
_Bound = tuple[str, Any] | None


def ahead(mask: Mask, front: int = 0) -> int | None:
    """How many positions after its own a query may see at most; None for any.

    The first `front` positions depend on no other, so that a key among them is not ahead.
    """
    match mask.op:
        case "&":
            known = [n for part in mask.parts if (n := ahead(part, front)) is not None]
            return min(known, default=None)
        case "|":
            found = [ahead(part, front) for part in mask.parts]
            return (
                None if None in found else max((n for n in found if n is not None), default=0)
            )
        case "causal":
            return 0
        case "within" | "chunk":
            return int(mask.args[0]) - 1
        case "prefix":
            size = int(mask.args[0])
            return 0 if size <= max(front, 1) else size - 1
        case _:
            return None


def behind(mask: Mask) -> int | None:
    """How many positions before its own a query may see at most; None for any."""
    match mask.op:
        case "&":
            known = [n for part in mask.parts if (n := behind(part)) is not None]
            return min(known, default=None)
        case "|":
            found = [behind(part) for part in mask.parts]
            return (
                None if None in found else max((n for n in found if n is not None), default=0)
            )
        case "within" | "chunk":
            return int(mask.args[0]) - 1
        case _:
            return None


def span(mask: Mask) -> int | None:
    """How many keys a query sees at most; None for any number."""
    match mask.op:
        case "&" if mask.parts:
            before, after = behind(mask), ahead(mask)
            both_sides = None if before is None or after is None else before + after + 1
            known = [n for n in (*map(span, mask.parts), both_sides) if n is not None]
            return min(known, default=None)
        case "|":
            found = [span(part) for part in mask.parts]
            return None if None in found else sum(n for n in found if n is not None)
        case "within":
            return 2 * int(mask.args[0]) - 1
        case "chunk" | "prefix":
            return int(mask.args[0])
        case _:
            return None


def sees_itself(mask: Mask) -> bool:
    """Whether each query surely sees the key at its own position."""
    match mask.op:
        case "&":
            return all(map(sees_itself, mask.parts))
        case "|":
            return any(map(sees_itself, mask.parts))
        case op:
            return op in RELATIVE


def visible(
    mask: Mask, i: Any, j: Any, data: Mapping[str, Any], true: Callable[[], Any]
) -> Any:
    """Whether query i sees key j, computed by the operators of `i`, `j` and `data`: numbers or
    tensors that spread to pairs. `true` makes the value where all is visible."""

    def of(part: Mask) -> Any:
        match part.op:
            case "&":
                return (
                    functools.reduce(operator.and_, map(of, part.parts))
                    if part.parts
                    else true()
                )
            case "|":
                return (
                    functools.reduce(operator.or_, map(of, part.parts))
                    if part.parts
                    else ~true()
                )
            case "not":
                return ~of(part.parts[0])
            case "causal":
                return j <= i
            case "within":
                (n,) = part.args
                return (i - j < n) & (j - i < n)
            case "chunk":
                (n,) = part.args
                return i // n == j // n
            case "prefix":
                return j < part.args[0]
            case "same":
                first, second = (data[str(arg)] for arg in part.args)
                return first == second
            case _:
                return data[str(part.args[0])]

    return of(mask)
