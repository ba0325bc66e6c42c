"""Parameters of operators, one function for each kind: short forms for the rows of ops.py."""

from __future__ import annotations

from typing import Any

from archdsl.graph.rules import ACTIVATIONS
from archdsl.graph.signature import REQUIRED, Kind, Param

X = Param("x", Kind.TENSOR)


def tensor(name: str, default: Any = REQUIRED) -> Param:
    return Param(name, Kind.TENSOR, default)


def integer(name: str, default: Any = REQUIRED) -> Param:
    return Param(name, Kind.INT, default)


def token(name: str, default: Any = REQUIRED) -> Param:
    return Param(name, Kind.TOKEN, default)


def offset(name: str, default: Any = REQUIRED) -> Param:
    return Param(name, Kind.OFFSET, default)


def number(name: str, default: Any = REQUIRED) -> Param:
    return Param(name, Kind.NUMBER, default)


def flag(name: str, default: bool | None) -> Param:
    return Param(name, Kind.BOOL, default)


def mask() -> tuple[Param, ...]:
    """A mask, and its short form `causal`."""
    return Param("causal", Kind.BOOL, False, short=True), Param("mask", Kind.MASK, None)


def axis(default: Any = REQUIRED) -> Param:
    return Param("axis", Kind.AXIS, default)


def activation(default: str) -> Param:
    return Param("act", Kind.CHOICE, default, tuple(ACTIVATIONS))
