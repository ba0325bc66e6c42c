"""Sizes as polynomials; printing and comparing types."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archdsl.graph.types import Axis, Size, Type, format_integer

S, T = Size.of("S"), Size.of("T")

sizes = st.recursive(
    st.integers(-3, 3).map(Size.of) | st.sampled_from("STU").map(Size.of),
    lambda inner: (
        st.builds(Size.__add__, inner, inner)
        | st.builds(Size.__mul__, inner, inner)
        | st.builds(Size.__floordiv__, inner, st.integers(1, 4))
    ),
    max_leaves=6,
)
linear = st.builds(lambda s, t, rest: S * s + T * t + rest, *[st.integers(-9, 9)] * 3)
values = st.fixed_dictionaries({name: st.integers(1, 9) for name in "STU"})


@given(sizes, sizes, values)
def test_arithmetic_agrees_with_numbers(a: Size, b: Size, at: dict[str, int]) -> None:
    assert (a + b).at(at) == a.at(at) + b.at(at)
    assert (a - b).at(at) == a.at(at) - b.at(at)
    assert (a * b).at(at) == a.at(at) * b.at(at)
    assert (a // 3).at(at) == a.at(at) // 3
    assert Size.read(str(a)) == a


@given(sizes, sizes, sizes)
def test_equal_sizes_print_equally(a: Size, b: Size, c: Size) -> None:
    assert a * (b + c) == a * b + a * c
    assert a - a == Size.of(0)
    assert str(a + b) == str(b + a)


@given(linear, linear, st.integers(1, 5), st.integers(1, 5))
def test_quotients_of_quotients_are_quotients(a: Size, b: Size, by: int, again: int) -> None:
    assert (a * (by * again) + b) // by // again == a + b // (by * again)
    assert (b // by + a) // again == (b + a * by) // (by * again)


def test_arithmetic_with_numbers() -> None:
    assert T + T + Size.of(1) == 2 * T + 1
    assert sum([T, S, T], start=Size.of(0)) == 2 * T + S


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (Size.of(0), "0"),
        (Size.of(-7), "-7"),
        (T, "T"),
        (T + 1, "T + 1"),
        (T - 2, "T - 2"),
        (Size.of(5) - T, "-T + 5"),
        (-3 * T * T - T, "-3 T^2 - T"),
        (T * S * 2 + T * T + S + 4, "2 S T + T^2 + S + 4"),
        ((T - 10) // 5 + 1, "(T - 5) // 5"),
        ((T * 2 + 3) // 4, "(T + 1) // 2"),
        ((T // 2 + 1) // 3 * T + T // 2 * S * 3, "3 S (T // 2) + T ((T + 2) // 6)"),
        (T * 247064064 + T * T * 36864, "36864 T^2 + 247_064_064 T"),
    ],
)
def test_size_as_text(size: Size, text: str) -> None:
    assert str(size) == text


@pytest.mark.parametrize(
    ("size", "value"),
    [
        (Size.of(0), 0),
        (Size.of(768), 768),
        (T - T, 0),
        (T - T + 3, 3),
        (T, None),
        (T * 2 + 1, None),
    ],
)
def test_only_a_fixed_size_has_a_value(size: Size, value: int | None) -> None:
    assert size.value == value


def test_the_varying_axes_of_a_size() -> None:
    assert (T * S + 3).vars == {"S", "T"}
    assert Size.of(4).vars == frozenset()


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (99999, "99999"), (100000, "100_000"), (-1234567, "-1_234_567")],
)
def test_format_integer(number: int, text: str) -> None:
    assert format_integer(number) == text
    assert int(text) == number


@pytest.mark.parametrize(
    ("axis", "text"),
    [
        (Axis("T", T), "T"),
        (Axis("D", Size.of(768)), "D = 768"),
        (Axis(None, Size.of(768)), "768"),
        (Axis("T", S), "T = S"),
        (Axis("T", T + 1, ("cls",)), "cls:T = T + 1"),
        (Axis(None, T + 1, ("cls", "dist")), "cls:dist:T + 1"),
        (Axis(None, T), "(T)"),
    ],
)
def test_axis_as_text(axis: Axis, text: str) -> None:
    assert str(axis) == text


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (Type("float"), "float"),
        (Type("int", (), 1000), "int < 1000"),
        (Type("int", (Axis("T", T),), 250112), "int[T] < 250_112"),
        (Type("bool", (Axis(None, Size.of(3)),)), "bool[3]"),
        (Type("float", (Axis("T", T), Axis("D", Size.of(8)))), "float[T, D = 8]"),
        (Type("float", (Axis("T", T),), None, frozenset("TS")), "float[T] noncausal S T"),
    ],
)
def test_type_as_text(type: Type, text: str) -> None:
    assert str(type) == text


VECTORS = Type("float", (Axis("T", T, ("cls",)), Axis("D", Size.of(8))), None, frozenset("S"))


def test_names_and_origins_of_axes_do_not_matter() -> None:
    other = replace(VECTORS, axes=tuple(replace(a, name="X") for a in VECTORS.axes))
    assert VECTORS.is_same(other)
    assert other != VECTORS


@pytest.mark.parametrize(
    "other",
    [
        replace(VECTORS, dtype="int"),
        replace(VECTORS, below=3),
        replace(VECTORS, noncausal=frozenset()),
        replace(VECTORS, axes=VECTORS.axes[:1]),
        replace(VECTORS, axes=(replace(VECTORS.axes[0], marks=()), VECTORS.axes[1])),
        replace(VECTORS, axes=(replace(VECTORS.axes[0], size=T + 1), VECTORS.axes[1])),
    ],
)
def test_other_differences_matter(other: Type) -> None:
    assert not VECTORS.is_same(other)


def test_properties_of_a_type() -> None:
    elements = VECTORS.elements
    assert elements == 8 * T
    assert Type("float").elements == Size.of(1)
    assert VECTORS.vars == {"T"}
    assert VECTORS.with_noncausal("T").noncausal == {"S", "T"}
    assert VECTORS.with_noncausal(()) == VECTORS


def test_with_axes_keeps_noncausal_axes() -> None:
    tokens = Type("int", (Axis("T", T),), 11, frozenset("T"))
    assert tokens.with_axes(VECTORS.axes) == replace(VECTORS, noncausal=frozenset("T"))
