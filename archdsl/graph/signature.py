"""What an operator is: its parameters, and its rules for types, weights and cost.

A rule sees one use of the operator as a `Site` and nothing else. It refuses by raising
`Mismatch`, which names the parameter at fault; whoever called it knows the places in the
text and makes the diagnostic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from enum import Enum
from typing import Any

from archdsl.frozen import Frozen
from archdsl.graph.types import Axis, Size, Type, Varying


class Kind(Enum):
    """What may be given for a parameter; the value is how a message says it."""

    TENSOR = "a tensor"
    INT = "a whole number"
    NUMBER = "a number"
    BOOL = "`true` or `false`"
    CHOICE = "one of its choices"
    SIZES = "whole numbers"
    NAMED_SIZES = "named whole numbers"
    TEXT = "a string"
    AXIS = "the name of an axis"
    MARK = "a name"
    LABEL = "the label of an `embed`"
    BLOCK = "a block"
    ANY = "a value"


class Required:
    """The default of a parameter that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = Required()


class Param(Frozen):
    name: str
    kind: Kind
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


class Weight(Frozen):
    """A trainable tensor of an operator. `init` says what it starts as: a `matrix` or an
    `embedding` drawn by the model's rule, `zeros`, `ones`, or a number everywhere."""

    name: str
    shape: tuple[int, ...]
    init: str | float


class Site(Frozen):
    """One use of an operator: the types of its tensors and the values of its parameters.

    A parameter of kind `AXIS` has been turned into the index of the axis. `named` says how
    whole numbers were called where they were given, for the names of new axes. The methods
    raise `Mismatch` where a tensor is not what they ask for.
    """

    tensors: Mapping[str, Type]
    attr: Mapping[str, Any]
    varying: Mapping[str, Varying]
    named: Mapping[str, Axis]

    @property
    def x(self) -> Type:
        """The first tensor, the one that flows in along the arrow."""
        return next(iter(self.tensors.values()))

    @property
    def width(self) -> int:
        """The size of the last axis of `x`, which must be a number."""
        if not self.x.axes:
            raise Mismatch("axis", "a single number has no axes", "x", found=str(self.x))
        size = self.x.axes[-1].size.value
        if size is None:
            raise Mismatch(
                "axis", "the last axis must have a fixed size", "x", found=str(self.x)
            )
        return size

    def floats(self, param: str = "x") -> Type:
        """The type of a tensor that must have float values."""
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
        """The sequence axis and the number of features of a tensor that must be [T, D]."""
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

    def ragged(self, size: Size) -> bool:
        """Whether a size differs from example to example."""
        return any(self.varying[name].ragged is not None for name in size.vars)

    def index(self, default: int) -> int:
        """Which axis of `x` is meant by `axis`, from 0; `default` where none is named."""
        count = len(self.x.axes)
        if not count:
            raise Mismatch("axis", "a single number has no axes", "x", found=str(self.x))
        index: int = default if self.attr["axis"] is None else self.attr["axis"]
        if not -count <= index < count:
            raise Mismatch("axis", f"there is no axis {index}", "axis", found=str(self.x))
        return index % count

    def axis(self, param: str) -> Axis:
        """The axis that a whole number makes, with its name where it was given by one."""
        value = self.attr[param]
        size = value[-1] if isinstance(value, tuple) else value
        return self.named.get(param) or Axis(None, Size.of(size))

    def bound(self, size: Size) -> int:
        """The largest value that a size can take."""
        return size.at({name: self.varying[name].bound for name in size.vars})


class Mismatch(Exception):
    """A rule's refusal: what is wrong, the parameter at fault, and who else takes part."""

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
        self.bound = bound  # parameters and axes whose binding the message should show
        self.broken = broken  # the varying axis whose causality was demanded


def no_defaults(site: Site) -> Mapping[str, Any]:
    return {}


def no_weights(site: Site) -> tuple[Weight, ...]:
    return ()


def no_cost(site: Site) -> Size:
    return Size.of(0)


def no_window(site: Site) -> int | None:
    return None


class Op(Frozen):
    """A row of the table of operators.

    `settle` fills in what a parameter means where it was left out and depends on others.
    `flops` counts two for each multiply-add of a matrix product, for one example; `scratch`
    the elements that are alive inside the operator beside its inputs and its result;
    `cache` the elements that incremental decoding keeps and that are no tensor given to the
    operator. `loss` marks what may stand only behind `loss`, `random` what differs from use
    to use.

    How an operator is computed for new positions alone follows from three fields. `positions`
    are the inputs by which a step tells it where they stand, and that no spec writes: `at`
    int[T] the position of each in its row, `past` int the number of columns before, `starts`
    int the column that a row begins in, `columns` int[C] all columns. `keeps` are the tensors
    whose past positions it needs; a step gives it those of all columns. `kept` is how many
    positions of them, and `reach` how many of the last ones where that is not all. `trims`
    marks what leaves out positions in front. All others work on each position by itself, or
    their type rule says that they mix positions, and they are refused.
    """

    name: str
    params: tuple[Param, ...]
    infer: Callable[[Site], Type]
    doc: str
    resolve_defaults: Callable[[Site], Mapping[str, Any]] = no_defaults
    weights: Callable[[Site], tuple[Weight, ...]] = no_weights
    flops: Callable[[Site], Size] = no_cost
    scratch: Callable[[Site], Size] = no_cost
    cache: Callable[[Site], Size] = no_cost
    loss: bool = False
    random: bool = False
    positions: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    cache_length: Callable[[Site], Size] = no_cost
    cache_window: Callable[[Site], int | None] = no_window
    drops_prefix: bool = False
    example: str = field(default="", compare=False)

    def param(self, name: str) -> Param:
        return next(p for p in self.params if p.name == name)
