"""Frozen dataclasses that are fast to define.

`dataclass(frozen=True)` compiles the methods of each class, about a millisecond each. For the
many classes that a command imports, this would take longer than `archdsl check` itself.
`Frozen` has the methods once, for all classes. Only a class with many instances gets an
`__init__` of its own, which is several times faster.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, dataclass_transform

MANY = 50  # instances, after which a class gets its own `__init__`


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
    _made: ClassVar[int]  # how many instances `Frozen.__init__` has made

    def __init_subclass__(cls) -> None:
        cls.__doc__ = cls.__doc__ or cls.__name__  # else `dataclass` writes a signature
        dataclass(init=False, repr=False, eq=False)(cls)
        every = fields(cls)  # type: ignore[arg-type]  # a dataclass by now
        assert all(f.default_factory is MISSING for f in every), "a default must be immutable"
        cls._defaults = {f.name: f.default for f in every if f.default is not MISSING}
        cls._shown = tuple(f.name for f in every if f.repr)
        cls._compared = attrgetter("__class__", *[f.name for f in every if f.compare])
        cls._made = 0
        if "__init__" not in vars(cls):  # that of a base class has other fields
            cls.__init__ = Frozen.__init__  # type: ignore[method-assign]

    def __init__(self, *values: object, **named: object) -> None:
        cls = type(self)
        names = cls.__match_args__
        if named or len(values) != len(names):
            values = self._complete(values, named)
        self.__dict__.update(zip(names, values, strict=True))
        self.__post_init__()
        cls._made += 1
        if cls._made == MANY and cls.__init__ is Frozen.__init__:
            cls.__init__ = _compile_init(cls)  # type: ignore[method-assign]

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


def _compile_init(cls: type[Frozen]) -> Any:
    """An `__init__` with the fields as parameters, as `dataclass` compiles it."""
    names = cls.__match_args__
    params = [
        f"{name}=_defaults[{name!r}]" if name in cls._defaults else name for name in names
    ]
    lines = [f"def __init__(self, {', '.join(params)}):", " _fields = self.__dict__"]
    lines += [f" _fields[{name!r}] = {name}" for name in names]
    if cls.__post_init__ is not Frozen.__post_init__:
        lines.append(" self.__post_init__()")
    found: dict[str, Any] = {}
    exec("\n".join(lines), {"_defaults": cls._defaults}, found)
    return found["__init__"]
