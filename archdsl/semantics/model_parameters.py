"""Binds the parameters of a model: settings, arguments of a variant, defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from archdsl.diagnostics import Note, Span, did_you_mean, listing
from archdsl.graph.signature import Param
from archdsl.semantics.binding import Arguments, Bound, Callee, bind, signature
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.numbers import LARGEST
from archdsl.semantics.report import Report
from archdsl.semantics.values import (
    POISON,
    Env,
    Poison,
    Scalar,
    Symbol,
    Value,
    fits,
    fraction_help,
    kind_text,
    value_text,
)
from archdsl.syntax import ast

Setting = int | float | bool | str


_FEW = 3  # settings that a message about a size can show


class ParameterBinder:
    """Binds the parameters of one model in a scope. `failed` if one has no valid value."""

    def __init__(self, model: ast.Model, elaborator: Elaborator, env: Env, report: Report):
        self.model = model
        self.elaborator = elaborator
        self.env = env
        self.report = report
        self.failed = False

    def bind(self, variant: ast.Variant | None, settings: Mapping[str, Setting]) -> None:
        """Gives each parameter its setting, else its argument, else its default."""
        given = self._arguments(variant) if variant else Arguments({})
        self._parameters(variant, given, settings)

    def _arguments(self, variant: ast.Variant) -> Arguments:
        """The arguments of a variant."""
        params = (replace(p, default=None) for p in signature(self.model.params))
        called = Callee(self.model.name.id, tuple(params), variant.call.span, flows=False)

        def evaluate(expr: ast.Expr | ast.Typed, param: Param | None) -> Value:
            return self.elaborator.evaluate(expr, self.env)

        return bind(called, variant.call.args, None, evaluate, self.report)

    def _parameters(
        self,
        variant: ast.Variant | None,
        given: Arguments,
        settings: Mapping[str, Setting],
    ) -> None:
        params = self.model.params.params
        names = [p.name.id for p in params]
        # A misspelt name may be that of any parameter without a value.
        certain = given.sound and settings.keys() <= set(names)
        for name in settings:
            if name not in names:
                self.report.add(
                    "unknown-argument",
                    f"`{self.model.name.id}` has no parameter `{name}`",
                    expected=listing(names) or None,
                    found=f"`{name}`",
                    notes=(Note("the model is declared here", self.model.name.span),),
                    help=did_you_mean(name, names),
                )
        for param in params:
            name, default = param.name.id, self._default(param)
            origin: Span | None = param.name.span
            if name in settings:
                origin = None
                value = self._setting_value(param, settings[name], default)
            elif bound := given.first(name):
                origin = bound.span
                value = self._variant_value(param, bound, default)
            elif not certain:
                value = POISON
            else:
                value = self._report_missing(param, variant) if default is None else default
            if isinstance(value, Scalar):
                value = Scalar(value.value, name, origin)
            if name in settings and isinstance(value, Scalar) and len(settings) <= _FEW:
                note = Note(f"`{name}` is {value.text}, set from outside")
                self.report.outside = (*self.report.outside, note)
            self.failed |= isinstance(value, Poison)
            self.env.names[name] = POISON if name in self.env.names else value
            self.elaborator.builder.note(param.name.span, value)

    def _default(self, param: ast.Param) -> Value | None:
        if isinstance(param.type, ast.Type | ast.BlockType):
            self.report.add(
                "argument-value",
                "a parameter of a model must be a number or a choice",
                param.type.span,
                help="declare tensors with `input`",
            )
            return POISON
        return self.elaborator.evaluate(param.default, self.env) if param.default else None

    def _report_missing(self, param: ast.Param, variant: ast.Variant | None) -> Poison:
        """Reports a parameter that has no value."""
        self.report.add(
            "missing-argument",
            f"`{self.model.name.id}` needs `{param.name.id}`, which has no default",
            variant.call.span if variant else param.span,
            notes=(Note("the parameter is declared here", param.span),) if variant else (),
            help=None if variant else f"set it in a variant, or by `--set {param.name.id}=…`",
        )
        return POISON

    def _setting_value(
        self, param: ast.Param, setting: Setting, default: Value | None
    ) -> Value:
        """A value from outside; a text is a choice, unless the default is a string."""
        setting = _plain(setting, default)
        text = isinstance(setting, str) and not isinstance(default, Scalar | Poison)
        value = Symbol(str(setting), param.name.span) if text else Scalar(setting)
        if isinstance(param.type, ast.Choices):
            return self._choice(param, value, None)
        number = isinstance(setting, bool | int | float) and abs(setting) <= LARGEST
        known = number or isinstance(setting, str)
        if isinstance(default, Poison) or (known and fits(value, default)):
            return value
        if isinstance(setting, int) and abs(setting) > LARGEST:
            found = "a number beyond 10^30"  # it may have thousands of digits
        else:
            found = f"{setting!s:.80}".lower()
        help = fraction_help(param, value, default)
        return self._report_value(param, found, None, kind_text(default), help)

    def _variant_value(self, param: ast.Param, bound: Bound, default: Value | None) -> Value:
        """The argument of a variant."""
        value = bound.value
        if isinstance(value, Scalar):
            value = Scalar(_plain(value.value, default))
        if isinstance(param.type, ast.Choices):
            return self._choice(param, value, bound.span)
        if isinstance(value, Poison) or isinstance(default, Poison) or fits(value, default):
            return value
        if isinstance(value, Symbol):
            return self.elaborator.builder.report_unknown(value.name, bound.span, self.env)
        help = fraction_help(param, value, default)
        return self._report_value(
            param, value_text(value), bound.span, kind_text(default), help
        )

    def _choice(self, param: ast.Param, value: Value, span: Span | None) -> Value:
        """The value of a parameter that lists its choices."""
        assert isinstance(param.type, ast.Choices)
        names = [name.id for name in param.type.names]
        if isinstance(value, Poison) or (isinstance(value, Symbol) and value.name in names):
            return value
        near = did_you_mean(value.name, names) if isinstance(value, Symbol) else None
        return self._report_value(param, value_text(value), span, listing(names), near)

    def _report_value(
        self,
        param: ast.Param,
        found: str,
        span: Span | None,
        expected: str | None,
        help: str | None = None,
    ) -> Poison:
        self.report.add(
            "argument-value",
            f"`{param.name.id}` of `{self.model.name.id}` cannot be {found}",
            span,
            expected=expected,
            notes=(Note("the parameter is declared here", param.span),),
            help=help,
        )
        return POISON


def _plain(setting: Any, default: Value | None) -> Any:
    """A setting as a number of Python, whole where it must be: NumPy's 8, or 1e6."""
    if getattr(setting, "shape", None) == () and callable(getattr(setting, "item", None)):
        setting = setting.item()
    whole = isinstance(default, Scalar) and type(default.value) is int
    if whole and isinstance(setting, float) and setting.is_integer():
        return int(setting)
    return setting
