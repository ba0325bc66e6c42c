"""`Frozen` compared with `dataclass(frozen=True)`."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any

import pytest

from archdsl.frozen import Frozen


class Ours(Frozen):
    name: str
    size: int = 2
    origin: int | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Theirs:
    name: str
    size: int = 2
    origin: int | None = field(default=None, compare=False, repr=False)


class Nothing(Frozen):
    """A class without fields."""


BOTH: tuple[Any, ...] = (Ours, Theirs)


def test_values_by_position_by_name_and_by_default() -> None:
    for kind in BOTH:
        made = [kind("a"), kind("a", 2), kind(size=2, name="a"), kind("a", origin=None)]
        assert [(m.name, m.size, m.origin) for m in made] == [("a", 2, None)] * 4
        assert repr(made[0]) == f"{kind.__name__}(name='a', size=2)"
        assert kind.__match_args__ == ("name", "size", "origin")


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        ((), {"size": 1}),
        (("a", 1, 2, 3), {}),
        (("a",), {"name": "b"}),
        (("a", 1, 2), {"size": 1}),
        (("a",), {"sizes": 1}),
        ((), {"names": "a", "size": 1, "origin": 2}),
    ],
)
def test_missing_and_extra_values_are_refused(
    kind: Any, values: tuple[object, ...], named: dict[str, object]
) -> None:
    with pytest.raises(TypeError):
        kind(*values, **named)


def test_instances_cannot_be_changed() -> None:
    for kind in BOTH:
        made = kind("a")
        with pytest.raises(FrozenInstanceError):
            made.size = 3
        with pytest.raises(FrozenInstanceError):
            made.other = 3
        with pytest.raises(FrozenInstanceError):
            del made.size
        assert made == kind("a")
        assert replace(made, size=3) == kind("a", 3)


def test_equality_needs_the_same_class_and_equal_compared_fields() -> None:
    for kind in BOTH:
        one, same, other = kind("a", 1, 5), kind("a", 1, 6), kind("a", 2, 5)
        assert one == same
        assert hash(one) == hash(same)
        assert one != other
        assert len({one, same, other}) == 2
    assert Ours("a") != Theirs("a")
    assert Nothing() == Nothing() != Ours("a")


def test_copies_are_equal() -> None:
    made = Ours("a", 1, 5)
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (again, again.origin) == (made, 5)


def test_a_mutable_default_is_refused() -> None:
    with pytest.raises(AssertionError, match="immutable"):

        class Listed(Frozen):
            items: list[int] = field(default_factory=list)
