"""The types of values: dtype, named axes with fixed or varying sizes, and causality.

A size is a polynomial in the varying axes (`T`, `T + 1`, `768`) and their quotients (`T // 2`),
so sizes compare exactly and a cost is a formula. `noncausal` are the varying axes along which
the value at one position may depend on any other. Along all others a value is causal: on an
axis of size T + c, position i depends only on positions up to i - c of the input along T. A
value on an axis with a quotient of T is noncausal, unless it depends on no position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from math import gcd, prod
from typing import TypeAlias

from archdsl.diagnostics import Span
from archdsl.frozen import Frozen


class Size(Frozen):
    """A polynomial with integer coefficients; `terms` maps a product of axes to its factor.

    >>> T = Size.of("T")
    >>> str((T + 1) * T * 2), ((T + 1) * T).at({"T": 4}), Size.of(3).value
    ('2 T^2 + 2 T', 20, 3)
    >>> str((T - 9) // 4 * 2 + 1), ((T - 9) // 4).at({"T": 12}), (T - 8) // 4 == T // 4 - 2
    ('2 ((T + 3) // 4) - 5', 0, True)
    >>> str((T - 10) // 5 + 1)
    '(T - 5) // 5'
    """

    terms: tuple[tuple[tuple[Factor, ...], int], ...]

    @staticmethod
    def of(value: int | str | Size) -> Size:
        match value:
            case Size():
                return value
            case int():
                return _size({(): value})
            case str():
                return _size({(value,): 1})

    @staticmethod
    def read(text: str) -> Size:
        """The size that `str` wrote.

        >>> Size.read("2 T^2 - T + 50_000") == (Size.of("T") * 2 - 1) * Size.of("T") + 50_000
        True
        """
        return _Reader(text).size()

    def __add__(self, other: Size | int) -> Size:
        other = Size.of(other)
        if not self.terms or not other.terms:
            return self if self.terms else other
        sums = dict(self.terms)
        for axes, factor in other.terms:
            sums[axes] = sums.get(axes, 0) + factor
        return _size(sums)

    def __mul__(self, other: Size | int) -> Size:
        products: dict[tuple[Factor, ...], int] = {}
        for axes, factor in self.terms:
            for others, by in Size.of(other).terms:
                key = tuple(sorted(axes + others, key=_order))
                products[key] = products.get(key, 0) + factor * by
        return _size(products)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Size | int) -> Size:
        return self + Size.of(other) * -1

    def __floordiv__(self, by: int) -> Size:
        """The quotient, rounded down: equal quotients of sizes are equal sizes."""
        whole = _size({axes: factor // by for axes, factor in self.terms})
        rest = _size({axes: factor % by for axes, factor in self.terms})
        if rest.value is not None:  # less than `by`
            return whole
        # floor((d n + r) / (d b)) = floor((n + floor(r / d)) / b)
        common = gcd(by, *(factor for axes, factor in rest.terms if axes))
        if common > 1:
            fewer = _size({axes: factor // common for axes, factor in rest.terms})
            return whole + fewer // (by // common)
        inner = [axes for axes, _ in rest.terms if any(isinstance(a, Quotient) for a in axes)]
        match inner:
            case [(Quotient(of, other),) as alone] if (alone, 1) in rest.terms:
                # floor((floor(n / a) + m) / b) = floor((n + a m) / (a b))
                return whole + (of + (rest - _size({alone: 1})) * other) // (other * by)
        return whole + _size({(Quotient(rest, by),): 1})

    @property
    def value(self) -> int | None:
        """The number, or None if the size varies."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and self.terms[0][0] == () else None

    @property
    def vars(self) -> frozenset[str]:
        """The varying axes."""
        found: frozenset[str] = frozenset()
        for each in (each for axes, _ in self.terms for each in axes):
            found |= each.of.vars if isinstance(each, Quotient) else {each}
        return found

    def at(self, sizes: Mapping[str, int]) -> int:
        """The size for given sizes of the varying axes."""
        total = 0
        for axes, factor in self.terms:
            for each in axes:
                if isinstance(each, Quotient):
                    factor *= each.of.at(sizes) // each.by
                else:
                    factor *= sizes[each]
            total += factor
        return total

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        match self.terms:
            case (((), more), ((Quotient(of, by),), 1)):  # as one quotient
                return str(Quotient(of + more * by, by))
        parts = []
        for axes, factor in sorted(
            self.terms, key=lambda t: (-len(t[0]), list(map(str, t[0])))
        ):
            counts = {axis: axes.count(axis) for axis in axes}
            alone = len(axes) == 1 and abs(factor) == 1
            names = {a: str(a) if alone or isinstance(a, str) else f"({a})" for a in axes}
            powers = [f"{names[a]}^{n}" if n > 1 else names[a] for a, n in counts.items()]
            number = [format_integer(abs(factor))] if abs(factor) != 1 or not axes else []
            parts += ["-" if factor < 0 else "+", " ".join(number + powers)]
        sign = "-" if parts[0] == "-" else ""
        return sign + " ".join(parts[1:])


class Quotient(Frozen):
    """`of // by`, rounded down, as a factor of a product of axes; `Size` makes it."""

    of: Size
    by: int

    def __str__(self) -> str:
        of = str(self.of)
        return f"{of if of.isidentifier() else f'({of})'} // {self.by}"


Factor: TypeAlias = str | Quotient


def _order(factor: Factor) -> tuple[bool, str]:
    """Axes before quotients."""
    return isinstance(factor, Quotient), str(factor)


class _Reader:
    """Reads the text of a size."""

    def __init__(self, text: str):
        self.words = re.findall(r"//|[-+^()]|\w+", text)[::-1]

    def accept(self, word: str) -> bool:
        found = self.words[-1:] == [word]
        if found:
            self.words.pop()
        return found

    def size(self) -> Size:
        total, sign = Size.of(0), -1 if self.accept("-") else 1
        while True:
            total += self.term() * sign
            if self.words[-1:] not in (["+"], ["-"]):
                return total
            sign = -1 if self.words.pop() == "-" else 1

    def term(self) -> Size:
        product = Size.of(1)
        while self.words and self.words[-1] not in ("+", "-", ")"):
            factor = self.factor()
            for _ in range(int(self.words.pop()) if self.accept("^") else 1):
                product *= factor
        return product

    def factor(self) -> Size:
        word = self.words.pop()
        if word == "(":
            found = self.size()
            self.words.pop()
        else:
            found = Size.of(int(word) if word[0].isdecimal() else word)
        return found // int(self.words.pop()) if self.accept("//") else found


def format_integer(number: int) -> str:
    """Formats an integer as the language writes it, with `_` between groups of three digits.

    >>> format_integer(50257), format_integer(124439808)
    ('50257', '124_439_808')
    """
    return f"{number:_}" if abs(number) >= 100_000 else str(number)


def _size(terms: Mapping[tuple[Factor, ...], int]) -> Size:
    kept = [(axes, factor) for axes, factor in terms.items() if factor]
    if len(kept) > 1:
        kept.sort(key=lambda term: list(map(_order, term[0])))
    return Size(tuple(kept))


class Axis(Frozen):
    """One axis: its name or None, its size, and the positions named by `prepend`.

    `marks` are the names of the first positions, in order; `origin` is where the size is
    defined, for messages.
    """

    name: str | None
    size: Size
    marks: tuple[str, ...] = ()
    origin: Span | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        size = str(self.size)
        if self.name is None:
            # In brackets, so that it does not read as the name of an axis.
            size = f"({size})" if size in self.size.vars else size
        elif self.name != size:
            size = f"{self.name} = {size}"
        return "".join(f"{mark}:" for mark in self.marks) + size


class Type(Frozen):
    """The type of a tensor without its batch axis; `dtype` is `float`, `int` or `bool`.

    Integers are at least 0, and less than `below` if it is given.

    >>> print(Type("float", (Axis("T", Size.of("T")), Axis("D", Size.of(768)))))
    float[T, D = 768]
    """

    dtype: str
    axes: tuple[Axis, ...] = ()
    below: int | None = None
    noncausal: frozenset[str] = frozenset()

    @property
    def elements(self) -> Size:
        """The number of elements of one example."""
        return prod((axis.size for axis in self.axes), start=Size.of(1))

    @property
    def vars(self) -> frozenset[str]:
        return frozenset().union(*(axis.size.vars for axis in self.axes))

    def allows(self, value: int | float | bool) -> bool:
        """Whether an element can have a value."""
        match self.dtype:
            case "bool":
                return isinstance(value, bool)
            case "int" if type(value) is int:
                return abs(value) < 2**31 if self.below is None else 0 <= value < self.below
            case "float":
                return not isinstance(value, bool)
            case _:
                return False

    def is_same(self, other: Type) -> bool:
        """Whether two types are equal, ignoring the names of axes."""
        return self._facts == other._facts

    @property
    def _facts(self) -> tuple[object, ...]:
        sizes = tuple((axis.size, axis.marks) for axis in self.axes)
        return self.dtype, sizes, self.below, self.noncausal

    def with_axes(self, axes: Iterable[Axis]) -> Type:
        """A float type with other axes and the same `noncausal` axes."""
        return Type("float", tuple(axes), None, self.noncausal)

    def with_noncausal(self, names: Iterable[str]) -> Type:
        """The same type, also noncausal along the named axes."""
        return Type(self.dtype, self.axes, self.below, self.noncausal | frozenset(names))

    def __str__(self) -> str:
        axes = f"[{', '.join(map(str, self.axes))}]" if self.axes else ""
        below = f" < {format_integer(self.below)}" if self.below is not None else ""
        noncausal = f" noncausal {' '.join(sorted(self.noncausal))}" if self.noncausal else ""
        return f"{self.dtype}{axes}{below}{noncausal}"


class Varying(Frozen):
    """An axis whose size is known only when the model runs: `least` to `bound`.

    `ragged` names the input whose `pad` value marks padding.
    """

    name: str
    bound: int
    ragged: str | None = None
    origin: Span | None = field(default=None, compare=False, repr=False)
    least: int = 1

    def near(self, length: int) -> int:
        """The length that the axis can have which is nearest to this one."""
        return max(min(length, self.bound), self.least)
