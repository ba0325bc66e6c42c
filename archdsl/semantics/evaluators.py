"""The functions by which the parts of the elaborator evaluate expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from archdsl.semantics.values import Env, Extent, Flow, Poison, Scalar, Tensor, Value
from archdsl.syntax import ast

Expression: TypeAlias = "ast.Expr | ast.Typed"


class Evaluators(NamedTuple):
    """`evaluate` gives a `Symbol` for an unbound name; the others report an unbound name."""

    evaluate: Callable[[Expression, Env], Value]
    resolve: Callable[[Expression, Env], Value]
    number: Callable[[ast.Expr, Env], Scalar | Poison]
    tensor: Callable[[Expression, Env], Tensor | Poison]
    size: Callable[[ast.Expr, Env], Extent | Poison]
    flow: Callable[[Expression, Env], Flow]
