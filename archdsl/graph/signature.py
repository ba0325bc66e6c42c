"""What an operator is: its parameters, and its rules for types, weights and cost.

A rule gets one use of the operator as a `Site`. It rejects the use by raising `Mismatch`, which
names the parameter at fault. The caller knows the source locations and makes the diagnostic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from enum import Enum
from typing import Any

from archdsl.frozen import Frozen
from archdsl.graph.types import Axis, Size, Type, Varying


class Kind(Enum):
    """The kind of value that a parameter takes; the enum's value is its name in messages."""

    TENSOR = "a tensor"
    INT = "a whole number"
    TOKEN = "the number of a token"
    OFFSET = "any whole number"
    NUMBER = "a number"
    BOOL = "`true` or `false`"
    CHOICE = "one of its choices"
    SIZES = "whole numbers"
    NAMED_SIZES = "named whole numbers"
    TEXT = "a string"
    AXIS = "the name of an axis"
    SIZE = "the size of an axis"
    AXES = "the indices of axes"  # that only a graph has
    MARK = "a name"
    MASK = "a mask"
    LABEL = "the label of an `embed`"
    BLOCK = "a block"
    ANY = "a value"


class Required:
    """The default of a required parameter."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = Required()


class Param(Frozen):
    """A parameter; `short` is one that only a spec has: a graph says it by other parameters."""

    name: str
    kind: Kind
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()
    short: bool = False

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


class Weight(Frozen):
    """A trainable tensor of an operator.

    `init` is its initial value: "matrix" or "embedding" (drawn by the model's `init` rule),
    "zeros", "ones", or a number for all elements. With `std`, it is drawn from N(0, std). The
    tensor of the operator `weight` has no name: its path is that of the operator.
    """

    name: str
    shape: tuple[int, ...]
    init: str | float
    std: float | None = None

    def path(self, of: str) -> str:
        """The full path of the tensor, for the path of its operator.

        >>> Weight("bias", (4,), "zeros").path("h.0.up"), Weight("", (4,), "zeros").path("cls")
        ('h.0.up.bias', 'cls')
        """
        return ".".join(part for part in (of, self.name) if part)


class Site(Frozen):
    """One use of an operator: the types of its tensors and the values of its parameters.

    The value of an `AXIS` parameter is the index of the axis, that of a `SIZE` parameter the
    text of the size. `named` has the name of each
    size that the spec gave by name; new axes get these names. The methods raise `Mismatch` if
    a tensor does not fit.
    """

    tensors: Mapping[str, Type]
    attr: Mapping[str, Any]
    varying: Mapping[str, Varying]
    named: Mapping[str, Axis]

    @property
    def x(self) -> Type:
        """The type of the first tensor, the one before the arrow."""
        return next(iter(self.tensors.values()))

    @property
    def width(self) -> int:
        """The size of the last axis of `x`, which must be fixed."""
        if not self.x.axes:
            raise Mismatch("axis", "a single number has no axes", "x", found=str(self.x))
        size = self.x.axes[-1].size.value
        if size is None:
            raise Mismatch(
                "axis", "the last axis must have a fixed size", "x", found=str(self.x)
            )
        return size

    def whole(self, param: str = "x") -> Type:
        """The type of a tensor, which must be int."""
        type = self.tensors[param]
        if type.dtype != "int":
            raise Mismatch(
                "type-mismatch",
                f"whole numbers are needed here, not {type.dtype} values",
                param,
                expected="int values",
                found=str(type),
            )
        return type

    def floats(self, param: str = "x") -> Type:
        """The type of a tensor, which must be float."""
        type = self.tensors[param]
        if type.dtype != "float":
            raise Mismatch(
                "type-mismatch",
                f"float values are needed here, not {type.dtype}",
                param,
                expected="float values",
                found=str(type),
                help="`embed(vocab, D)` turns tokens into vectors"
                if type.dtype == "int"
                else None,
            )
        return type

    def sequence(self, param: str = "x") -> tuple[Axis, int]:
        """The sequence axis and the number of features of a tensor, which must be [T, D]."""
        type = self.tensors[param]
        features = type.axes[-1].size.value if len(type.axes) == 2 else None
        if type.dtype != "float" or features is None:
            raise Mismatch(
                "type-mismatch",
                "a sequence of vectors is needed here",
                param,
                expected="float[T, D]: any sequence axis, then a feature axis of fixed size",
                found=str(type),
            )
        return type.axes[0], features

    def check_axes(self, param: str, message: str, wanted: tuple[Axis, ...]) -> None:
        """Raises `Mismatch` if a tensor does not have axes of these sizes."""
        type = self.tensors[param]
        if [axis.size for axis in wanted] != [axis.size for axis in type.axes]:
            pairs = zip(wanted, type.axes, strict=False)
            raise Mismatch(
                "shape-mismatch",
                message,
                param,
                expected=str(Type("float", wanted)),
                found=str(type),
                bound=next(((a, b) for a, b in pairs if a.size != b.size), ()),
            )

    def ragged(self, size: Size) -> bool:
        """Whether a size differs between examples."""
        return any(self.varying[name].ragged is not None for name in size.vars)

    def index(self, default: int) -> int:
        """The index, from 0, of the axis that the parameter `axis` names; else `default`."""
        count = len(self.x.axes)
        if not count:
            raise Mismatch("axis", "a single number has no axes", "x", found=str(self.x))
        index: int = default if self.attr["axis"] is None else self.attr["axis"]
        if not -count <= index < count:
            raise Mismatch("axis", f"there is no axis {index}", "axis", found=str(self.x))
        return index % count

    def axis(self, param: str) -> Axis:
        """A new axis with the size that a parameter gives, and with its name if it has one."""
        value = self.attr[param]
        if isinstance(value, str):
            name = value if value in self.varying else None
            return self.named.get(param) or Axis(name, Size.read(value))
        size = value[-1] if isinstance(value, tuple) else value
        return self.named.get(param) or Axis(None, Size.of(size))

    def least(self, size: Size) -> int:
        """The smallest value of a size."""
        return size.at({name: self.varying[name].least for name in size.vars})

    def bound(self, size: Size) -> int:
        """The largest value of a size."""
        return size.at({name: self.varying[name].bound for name in size.vars})


class Mismatch(Exception):
    """Raised by a rule that rejects a use: the message and the parameter at fault, `at`."""

    def __init__(
        self,
        code: str,
        message: str,
        at: str | None = None,
        *,
        expected: str | None = None,
        found: str | None = None,
        help: str | None = None,
        bound: tuple[str | Axis, ...] = (),
        broken: str | None = None,
    ):
        super().__init__(message)
        self.code, self.message, self.at = code, message, at
        self.expected, self.found, self.help = expected, found, help
        self.bound = bound  # parameters and axes whose definitions the message shows
        self.broken = broken  # the varying axis that must be causal and is not


def no_defaults(site: Site) -> Mapping[str, Any]:
    return {}


def no_weights(site: Site) -> tuple[Weight, ...]:
    return ()


def nothing_short(attr: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


def no_check(site: Site) -> None:
    pass


def no_cost(site: Site) -> Size:
    return Size.of(0)


def no_window(site: Site) -> int | None:
    return None


def no_tail(site: Site) -> int:
    return 0


def no_limit(site: Site) -> int | None:
    return None


class Op(Frozen):
    """A row of the table of operators.

    - `infer`: the type rule.
    - `resolve_defaults`: values of omitted parameters that depend on other parameters.
    - `write_out`: the parameters of a graph that short ones of a spec set.
    - `check_names`: rejects a use in a spec by the names of axes, which passes do not keep.
    - `flops`: for one example; a multiply-add of a matrix product counts as two.
    - `scratch`: elements alive inside the operator, besides its inputs and its result.
    - `cache`: elements that decoding caches inside the operator.
    - `loss`: whether the operator may be used only after `loss`.
    - `random`: whether two uses with the same inputs give different results.

    - `same_up_to`: the longest sequence up to which the value at a position does not depend on
      how long the sequence is; None if it never does. A longer axis is not padded.

    Decoding feeds only the new positions to a step. These fields say what the operator needs:

    - `positions`: inputs that a step adds, unless the spec gives them. `at` int[T] are the
      positions of the new tokens in their rows, `past` int is the number of used cache
      positions, `left_pad` int is the left padding of a row, `cache_positions` int[C] are all
      positions of the cache.
    - `cached`: tensors whose past positions the operator needs; a step passes their caches.
    - `cache_length`: how many positions of these are cached.
    - `cache_window`: how many of the last positions suffice; None for all.
    - `drops_prefix`, `adds_prefix`: whether it drops or adds positions at the start.
    - `tail`: how many positions before its own each position needs of the first tensor. A step
      keeps them, and puts them before the new ones; the flags `without_tail` are then off.

    Without these fields each position is computed independently. Decoding rejects an operator
    whose type rule says that it mixes positions.
    """

    name: str
    params: tuple[Param, ...]
    infer: Callable[[Site], Type]
    doc: str
    resolve_defaults: Callable[[Site], Mapping[str, Any]] = no_defaults
    write_out: Callable[[Mapping[str, Any]], Mapping[str, Any]] = nothing_short
    check_names: Callable[[Site], None] = no_check
    weights: Callable[[Site], tuple[Weight, ...]] = no_weights
    flops: Callable[[Site], Size] = no_cost
    scratch: Callable[[Site], Size] = no_cost
    cache: Callable[[Site], Size] = no_cost
    same_up_to: Callable[[Site], int | None] = no_limit
    loss: bool = False
    random: bool = False
    positions: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    cache_length: Callable[[Site], Size] = no_cost
    cache_window: Callable[[Site], int | None] = no_window
    drops_prefix: bool = False
    tail: Callable[[Site], int] = no_tail
    without_tail: tuple[str, ...] = ()
    adds_prefix: bool = False
    example: str = field(default="", compare=False)

    def param(self, name: str) -> Param:
        return next(p for p in self.params if p.name == name)

    @property
    def settings(self) -> tuple[Param, ...]:
        """The parameters that are settings of a graph: no tensors, and no short forms."""
        return tuple(p for p in self.params if p.kind is not Kind.TENSOR and not p.short)

    @property
    def masked(self) -> bool:
        """Whether a mask can add tensors to the inputs."""
        return any(p.kind is Kind.MASK for p in self.params)

    def cached_among(self, given: Iterable[str]) -> list[str]:
        """The tensors, among those of a use, whose past positions it needs."""
        return [name for name in given if self.caches(name)]

    def caches(self, name: str) -> bool:
        """Whether the past positions of a tensor are needed: also those of a mask's keys."""
        return name in self.cached or (self.masked and name.startswith("column_"))

    def settings_of(self, given: Mapping[str, Any]) -> list[Param]:
        """The settings of a node with these attributes: `AXES` and `MARK` only if given."""
        optional = (Kind.AXES, Kind.MARK)
        return [
            p for p in self.settings if p.kind not in optional or given.get(p.name) is not None
        ]
