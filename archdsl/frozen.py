"""Frozen dataclasses whose classes are made quickly.

`dataclass(frozen=True)` compiles the methods of each class anew, and so many classes stand
between a text and its graph that this takes longer than to check the text. The methods say the
same of every class but the names of its fields, so here they are once, for what is in sight of
`archdsl check`; elsewhere a plain dataclass does.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, dataclass_transform

_set = object.__setattr__


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Frozen:
    """Makes a frozen dataclass of each class below it.

    >>> class Point(Frozen):
    ...     x: int
    ...     y: int = 0
    >>> Point(1), Point(1) == Point(1, y=0)
    (Point(x=1, y=0), True)
    """

    __match_args__: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[dict[str, object]]
    _shown: ClassVar[tuple[str, ...]]
    _said: ClassVar[attrgetter[Any]]  # what instances are compared by

    def __init_subclass__(cls) -> None:
        cls.__doc__ = cls.__doc__ or cls.__name__  # lest `dataclass` write its signature there
        dataclass(init=False, repr=False, eq=False)(cls)
        every = fields(cls)  # type: ignore[arg-type]  # which it is by now
        assert all(f.default_factory is MISSING for f in every), "a default is frozen too"
        cls._defaults = {f.name: f.default for f in every if f.default is not MISSING}
        cls._shown = tuple(f.name for f in every if f.repr)
        cls._said = attrgetter("__class__", *[f.name for f in every if f.compare])

    def __init__(self, *values: object, **named: object) -> None:
        names = self.__match_args__
        if named or len(values) != len(names):
            values = self._completed(values, named)
        for name, value in zip(names, values, strict=True):
            _set(self, name, value)
        self.__post_init__()

    def _completed(
        self, values: tuple[object, ...], named: dict[str, object]
    ) -> tuple[object, ...]:
        """The values of all fields, in their order."""
        names = self.__match_args__
        given = dict(zip(names, values, strict=False), **named)
        if len(given) == len(values) + len(named):  # each once
            given = {**self._defaults, **given}
            if given.keys() == set(names):
                return tuple([given[name] for name in names])
        raise TypeError(f"{type(self).__name__} takes {', '.join(names)}, each once")

    def __post_init__(self) -> None:
        """Refuses what cannot be; a class that has something to refuse overrides it."""

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        same = type(other) is type(self)
        return self._said(self) == self._said(other) if same else NotImplemented

    def __hash__(self) -> int:
        return hash(self._said(self))

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"{type(self).__name__}({said})"
