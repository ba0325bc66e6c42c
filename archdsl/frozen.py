"""Frozen dataclasses that are fast to define.

`dataclass(frozen=True)` compiles the methods of each class, about a millisecond each. For the
many classes that a command imports, this would take longer than `archdsl check` itself.
`Frozen` has the methods once, for all classes.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, dataclass_transform

_set = object.__setattr__


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Frozen:
    """A base class that turns each subclass into a frozen dataclass.

    >>> class Point(Frozen):
    ...     x: int
    ...     y: int = 0
    >>> Point(1), Point(1) == Point(1, y=0)
    (Point(x=1, y=0), True)
    """

    __match_args__: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[dict[str, object]]
    _shown: ClassVar[tuple[str, ...]]
    _compared: ClassVar[attrgetter[Any]]  # the fields for == and hash

    def __init_subclass__(cls) -> None:
        cls.__doc__ = cls.__doc__ or cls.__name__  # else `dataclass` writes a signature
        dataclass(init=False, repr=False, eq=False)(cls)
        every = fields(cls)  # type: ignore[arg-type]  # a dataclass by now
        assert all(f.default_factory is MISSING for f in every), "a default must be immutable"
        cls._defaults = {f.name: f.default for f in every if f.default is not MISSING}
        cls._shown = tuple(f.name for f in every if f.repr)
        cls._compared = attrgetter("__class__", *[f.name for f in every if f.compare])

    def __init__(self, *values: object, **named: object) -> None:
        names = self.__match_args__
        if named or len(values) != len(names):
            values = self._complete(values, named)
        for name, value in zip(names, values, strict=True):
            _set(self, name, value)
        self.__post_init__()

    def _complete(
        self, values: tuple[object, ...], named: dict[str, object]
    ) -> tuple[object, ...]:
        """Returns the values of all fields in order."""
        names = self.__match_args__
        given = dict(zip(names, values, strict=False), **named)
        if len(given) == len(values) + len(named):  # no field is given twice
            given = {**self._defaults, **given}
            if given.keys() == set(names):
                return tuple([given[name] for name in names])
        raise TypeError(f"{type(self).__name__} takes {', '.join(names)}, each once")

    def __post_init__(self) -> None:
        """Checks the values; a subclass may override it."""

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        same = type(other) is type(self)
        return self._compared(self) == self._compared(other) if same else NotImplemented

    def __hash__(self) -> int:
        return hash(self._compared(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"{type(self).__name__}({shown})"
