"""Compares written types with the types of values, and binds the names of axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from archdsl.diagnostics import Note, Span
from archdsl.graph.types import Axis, Size, Type, Varying
from archdsl.semantics.report import Report
from archdsl.semantics.values import POISON, Env, Extent, Poison, Rest, Scalar, Value
from archdsl.syntax import ast
from archdsl.syntax.printer import type_text

Number = Callable[[ast.Expr, Env], Scalar | Poison]


class Shapes:
    """Reads types; `number` evaluates the expression of a size."""

    def __init__(self, report: Report, varying: dict[str, Varying], number: Number):
        self.report = report
        self.varying = varying
        self.number = number
        self.failed_axes: set[str] = set()  # of inputs, by name

    # -- declared types of inputs --

    def input_type(self, node: ast.Type, env: Env) -> Type | None:
        """The declared type of an input. Adds its varying axes to `varying` and `env`."""
        axes = [self._declared_axis(axis, env) for axis in node.axes]
        below = self.positive(node.below, env, "a bound") if node.below else None
        if node.below and node.dtype != "int":
            self.report.add(
                "type-mismatch",
                "only `int` can have a bound",
                node.below.span,
                found=node.dtype,
            )
            return None
        known = tuple(a for a in axes if a is not None)
        if len(known) < len(axes):
            names = (a.size.id for a in node.axes if isinstance(a.size, ast.Name))
            self.failed_axes.update(name for name in names if name not in env.names)
            self._poison_axes(node, env)
            return None
        if node.below and below is None:
            return None
        return Type(node.dtype, known, below)

    def state_type(self, node: ast.Type, env: Env) -> Type | None:
        """The declared type of a state, or None after a report."""
        axes = [self._size(axis, env) for axis in node.axes]
        if node.dtype != "float":
            self.report.add(
                "type-mismatch",
                "a state must be float",
                node.span,
                expected="float[…]",
                found=node.dtype,
            )
            return None
        known = tuple(axis for axis in axes if axis is not None)
        return Type("float", known) if len(known) == len(axes) else None

    def _declared_axis(self, axis: ast.Axis, env: Env) -> Axis | None:
        if axis.bound is None:
            return self._size(axis, env)
        bound = self.positive(axis.bound, env, "a bound")
        if not isinstance(axis.size, ast.Name):
            self.report.add(
                "axis",
                "a varying axis must be a name with a bound",
                axis.span,
                expected="T <= context",
            )
            return None
        name = axis.size.id
        before = self.varying.get(name)
        if name in self.failed_axes:
            return None
        if before is None and name in env.names:
            self.report.add(
                "duplicate-name",
                f"`{name}` is already bound and cannot be the name of an axis",
                axis.size.span,
                help="choose another name for the axis",
            )
            return None
        least = self.positive(axis.least, env, "a least length") if axis.least else 1
        if bound is None or least is None:
            return None
        if least > bound:
            self.report.add(
                "shape-mismatch",
                f"the least length of `{name}` is larger than its bound",
                axis.span,
                expected=f"{bound} or less",
                found=str(least),
            )
            return None
        if before and (before.least, before.bound) != (least, bound):
            notes = (Note("the other bound is here", before.origin),) if before.origin else ()
            both = least != before.least
            self.report.add(
                "shape-mismatch",
                f"`{name}` has two different bounds",
                axis.span,
                expected=f"{before.least} to {before.bound}" if both else str(before.bound),
                found=f"{least} to {bound}" if both else str(bound),
                notes=notes,
            )
            return None
        if before is None:
            self.varying[name] = Varying(name, bound, None, axis.span, least)
            env.names[name] = Extent(Axis(name, Size.of(name), (), axis.span))
        return Axis(name, Size.of(name), (), axis.span)

    def positive(self, expr: ast.Expr, env: Env, what: str) -> int | None:
        """A whole number above 0, or None after a report."""
        value = self.number(expr, env)
        if isinstance(value, Poison):
            return None
        if isinstance(value.value, bool) or not isinstance(value.value, int) or value.value < 1:
            notes: tuple[Note, ...] = ()
            if value.origin and value.origin != expr.span:
                notes = (Note("the value is bound here", value.origin),)
            self.report.add(
                "arithmetic",
                f"{what} must be a whole number above 0",
                expr.span,
                found=value.text,
                notes=notes,
                help="`/` returns a fraction; write `//` for a whole number"
                if isinstance(value.value, float)
                else None,
            )
            return None
        return value.value

    def extent(self, expr: ast.Expr, env: Env) -> Extent | Poison:
        """The axis of a size among the arguments of an operator."""
        axis = self._size(ast.Axis(expr.span, expr, None), env)
        return POISON if axis is None else Extent(replace(axis, marks=()))

    def _size(self, axis: ast.Axis, env: Env) -> Axis | None:
        """The axis of a written size: a number, or the name of a varying axis."""
        if axis.is_rest:
            self.report.add(
                "axis",
                "only the type of a block can have `...`, if that of a parameter has it",
                axis.span,
            )
            return None
        if isinstance(axis.size, ast.Name):
            known = env.names.get(axis.size.id)
            if isinstance(known, Extent):
                return replace(known.axis, name=axis.size.id)
            if known is None and axis.size.id in self.varying:
                return Axis(axis.size.id, Size.of(axis.size.id), (), axis.span)
            if known is None:
                self.report.add(
                    "unknown-name",
                    f"`{axis.size.id}` is not defined here",
                    axis.span,
                    help=f"give a varying axis a bound: `{axis.size.id} <= context`",
                )
                return None
        if isinstance(axis.size, ast.Binary):
            varied = self._varied(axis.size, env)
            if varied is not None:
                least = varied.at({name: self.varying[name].least for name in varied.vars})
                if least >= 1:
                    return Axis(None, varied, (), axis.span)
                self.report.add(
                    "arithmetic",
                    f"an axis of size `{varied}` can be empty",
                    axis.span,
                    found=f"{least} for the shortest input",
                )
                return None
        size = self.positive(axis.size, env, "a size")
        if size is None:
            return None
        name = axis.size.id if isinstance(axis.size, ast.Name) else None
        origin = axis.span
        if name and isinstance(known := env.names.get(name), Scalar) and known.origin:
            origin = known.origin
        return Axis(name, Size.of(size), (), origin)

    def _varied(self, expr: ast.Expr, env: Env) -> Size | None:
        """`T + 1`, `(T - 10) // 5 + 1`: a size that varies, of varying axes and numbers."""
        if isinstance(expr, ast.Name):
            known = env.names.get(expr.id)
            return known.axis.size if isinstance(known, Extent) else None
        if not isinstance(expr, ast.Binary):
            return None
        left, right = self._varied(expr.left, env), self._varied(expr.right, env)
        if left is not None and right is not None:
            return left + right if expr.op == "+" else None
        if left is None or expr.op not in ("+", "-", "//"):
            return None
        by = self.number(expr.right, env)
        if isinstance(by, Poison) or type(by.value) is not int:
            return None
        if expr.op == "//":
            return left // by.value if by.value > 0 else None
        return left + by.value if expr.op == "+" else left - by.value

    # -- types of block parameters --

    def bind(
        self, type: Type, param: ast.Param, span: Span, env: Env, outer: dict[str, str | None]
    ) -> Type | None:
        """An argument's type with the block's names for its axes, or None after a report.

        Binds the names of axes that are new to the block; `outer` gets the caller's names.
        """
        node = param.type
        assert isinstance(node, ast.Type)
        patterns = list(node.axes)
        rest = next((i for i, axis in enumerate(patterns) if axis.is_rest), None)
        spread = 0 if rest is None else len(type.axes) - len(patterns) + 1
        if rest is not None:
            patterns[rest : rest + 1] = [patterns[rest]] * max(spread, 0)
        fits = type.dtype == node.dtype and len(type.axes) == len(patterns)
        if not fits:
            self.report.add(
                "type-mismatch",
                f"`{param.name.id}` does not have the type that the block takes",
                span,
                expected=type_text(node),
                found=str(type),
                notes=(Note("the type is declared here", node.span),),
            )
            return None
        axes: list[Axis] = []
        if rest is not None:
            given = self._rest(type.axes[rest : rest + spread], param, span, env)
            if given is None:
                return None
            type = replace(type, axes=(*type.axes[:rest], *given, *type.axes[rest + spread :]))
        for axis, pattern in zip(type.axes, patterns, strict=True):
            if pattern.is_rest:
                axes.append(axis)
                continue
            bound = self._bind_axis(axis, pattern, param, span, env, outer)
            if bound is None:
                return None
            axes.append(bound)
        return replace(type, axes=tuple(axes))

    def _rest(
        self, axes: tuple[Axis, ...], param: ast.Param, span: Span, env: Env
    ) -> tuple[Axis, ...] | None:
        """The axes that `...` stands for, which are the same for all parameters."""
        known = env.names.get(ast.REST)
        if isinstance(known, Rest):
            if [axis.size for axis in known.axes] == [axis.size for axis in axes]:
                return known.axes
            self.report.add(
                "shape-mismatch",
                f"`...` of `{param.name.id}` stands for other axes than before",
                span,
                expected=", ".join(map(str, known.axes)) or "no axis",
                found=", ".join(map(str, axes)) or "no axis",
                notes=(Note("the type is declared here", param.span),),
            )
            return None
        env.names[ast.REST] = Rest(axes)
        return axes

    def _bind_axis(
        self,
        axis: Axis,
        pattern: ast.Axis,
        param: ast.Param,
        span: Span,
        env: Env,
        outer: dict[str, str | None],
    ) -> Axis | None:
        if isinstance(pattern.size, ast.Name) and pattern.size.id not in env.names:
            name = pattern.size.id
            value = axis.size.value
            origin = axis.origin or span
            bound: Value = (
                Scalar(value, axis.name or name, origin) if value is not None else Extent(axis)
            )
            env.names[name] = bound
            outer[name] = axis.name
            return replace(axis, name=name, origin=origin)
        wanted = self._size(pattern, env)
        if wanted is None:
            return None
        if wanted.size != axis.size:
            self.report.add(
                "shape-mismatch",
                f"`{param.name.id}` does not have the size that the block takes",
                span,
                expected=str(wanted),
                found=str(axis),
                notes=(
                    Note("the type is declared here", pattern.span),
                    *where_bound(wanted, pattern.span, span),
                    *where_bound(axis, span),
                ),
            )
            return None
        return replace(axis, name=wanted.name)

    def poison(self, param: ast.Param, env: Env) -> Poison:
        """POISON for a parameter, and for the axes that only its type names."""
        if isinstance(param.type, ast.Type):
            self._poison_axes(param.type, env)
        return POISON

    def _poison_axes(self, node: ast.Type, env: Env) -> None:
        for axis in node.axes:
            if isinstance(axis.size, ast.Name):
                env.names.setdefault(axis.size.id, POISON)

    def with_caller_names(
        self, type: Type, outer: dict[str, str | None], declared: ast.Type | None, env: Env
    ) -> Type:
        """A result's type with the caller's names for its axes.

        The `declared` type of the block names them, not its body.
        """

        def named(name: str | None) -> str | None:
            return outer.get(name or "", name)

        if declared is None:
            axes = (replace(axis, name=named(axis.name)) for axis in type.axes)
            return replace(type, axes=tuple(axes))
        names: list[str | None] = []
        for pattern in declared.axes:
            rest = env.names.get(ast.REST) if pattern.is_rest else None
            given = [axis.name for axis in rest.axes] if isinstance(rest, Rest) else None
            names += [named(_name_of(pattern.size))] if given is None else given
        axes = (replace(a, name=name) for a, name in zip(type.axes, names, strict=True))
        return replace(type, axes=tuple(axes))

    # -- declared types of weights, outputs and results --

    def written(self, node: ast.Type, env: Env) -> Type | None:
        """The type that is written, or None after a report."""
        axes = [self._size(axis, env) for axis in node.axes]
        known = tuple(axis for axis in axes if axis is not None)
        return Type(node.dtype, known) if len(known) == len(axes) else None

    def check(self, type: Type, node: ast.Type, env: Env, what: str) -> bool:
        """Whether a value has its declared type; reports a difference."""
        wanted: list[Axis | None] = []
        for pattern in node.axes:
            known = env.names.get(ast.REST) if pattern.is_rest else None
            wanted += known.axes if isinstance(known, Rest) else [self._size(pattern, env)]
        if None in wanted:
            return False
        sizes = [axis.size for axis in wanted if axis is not None]
        if type.dtype == node.dtype and [a.size for a in type.axes] == sizes:
            return True
        notes: tuple[Note, ...] = ()
        alike = type.dtype == node.dtype and len(sizes) == len(type.axes)
        for axis, want in zip(type.axes, wanted, strict=alike) if alike else ():
            if want and axis.size != want.size and not notes:
                notes = (*where_bound(want, node.span), *where_bound(axis, node.span))
        self.report.add(
            "shape-mismatch" if alike else "type-mismatch",
            f"{what} does not have its declared type",
            node.span,
            expected=f"{node.dtype}[{', '.join(map(str, wanted))}]" if wanted else node.dtype,
            found=str(type),
            notes=notes,
        )
        return False


def _name_of(size: ast.Expr) -> str | None:
    """The name of an axis with a written size: that of `T` and `T + 1` is T."""
    if isinstance(size, ast.Binary) and size.op in "+-":
        return _name_of(size.left)
    return size.id if isinstance(size, ast.Name) else None


def where_bound(axis: Axis, *shown: Span) -> tuple[Note, ...]:
    """A note where the size of an axis is bound, unless `shown` covers that place."""
    if axis.origin is None or any(span.covers(axis.origin) for span in shown):
        return ()
    size = str(axis.size)
    match axis.name:
        case None:
            return (Note(f"the size {size} comes from here", axis.origin),)
        case name if name == size:
            return (Note(f"`{name}` is bound here", axis.origin),)
        case name:
            return (Note(f"`{name}` is {size}, bound here", axis.origin),)
