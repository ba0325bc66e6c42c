"""Reads and writes published configs: the fields of a `config.json` for a model's parameters.

A `config` block has an expression for each field. A field whose expression is a parameter sets
that parameter. Every other field must have the value that its expression computes, so a config
is accepted only if all its fields are understood.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, listing
from archdsl.published.config_values import (
    NoPublishedName,
    alternatives,
    default_of,
    flatten,
    has_no_effect,
    is_list,
    is_named,
    list_text,
    names_call,
    outer_fields,
    parameter_name,
    published_words,
    quote,
    quote_name,
    repeated_parameter,
    value_of,
    value_when_absent,
    values_equal,
)
from archdsl.published.renames import rename_fields
from archdsl.published.tensor_fields import is_tensor_field, tensor_field
from archdsl.published.weight_maps import active_lines
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.library import Scope
from archdsl.semantics.model_parameters import Setting
from archdsl.semantics.models import ModelBuilder
from archdsl.semantics.report import Report
from archdsl.semantics.values import Env, Scalar, Symbol, Value, fits, kind_text
from archdsl.syntax import ast

if TYPE_CHECKING:  # imports tinygrad
    from archdsl.formats.host import LazyTensor


def read_config(
    path: str,
    node: ast.Config,
    scope: Scope,
    model: ast.Model,
    config: Mapping[str, object],
    tensors: Mapping[str, LazyTensor] | None = None,
    ignore: Collection[str] = (),
) -> dict[str, Setting]:
    """Reads the parameters of a model from a published config.

    Facts that are missing in configs come from the checkpoint's `tensors`; without `tensors`,
    such a parameter keeps its default. `path` is the config's path, for messages. Fields of
    `ignore` may be unknown to the spec.

    Raises `ArchError` (code `config`) with all fields that are missing, unknown to the spec,
    or have a value that it does not support, and for an ignored field that the config does not
    have or that the spec reads.
    """
    fields = flatten(rename_fields(node, config))
    return _ConfigReader(path, scope, model, fields, tensors, ignore).read(node)


def read_alternatives(
    path: str,
    node: ast.Config,
    scope: Scope,
    model: ast.Model,
    config: Mapping[str, object],
    tensors: Mapping[str, LazyTensor] | None = None,
    ignore: Collection[str] = (),
) -> list[dict[str, Setting]]:
    """Reads the parameters, once for each choice that the config leaves to the tensors.

    A field with `default tensors` that the config does not have makes such a choice; see
    `read_config` for the rest.
    """

    def reader(**assumed: str) -> _ConfigReader:
        fields = flatten(rename_fields(node, config))
        return _ConfigReader(path, scope, model, fields, tensors, ignore, assumed)

    first = reader()
    found: list[dict[str, Setting]] = []
    try:
        found.append(first.read(node))
    except ArchError as error:
        failed = error
    for name, choices in first.open.items():
        for choice in choices[1:]:
            with suppress(ArchError):
                found.append(reader(**{name: choice}).read(node))
    if not found:
        raise failed
    return found


def write_config(node: ast.Config, work: Elaborator, env: Env) -> dict[str, object]:
    """Builds the nested config of a model with the parameters of `env`.

    Raises `ArchError` (code `config`) for a choice without a published name.
    """
    written: dict[str, object] = {}
    for line in active_lines(node.rules, work, env):
        if not isinstance(line, ast.Setting):
            continue
        if is_named(line.value, "any") or is_tensor_field(line.fields[0].id):
            continue
        try:
            value = value_of(line.value, work, env)
        except NoPublishedName as none:
            work.report_error("config", str(none), none.span, expected=none.known)
            continue
        fixed = line.default is not None and not decided_by_tensors(line)
        fixed = fixed and parameter_name(line.value, env.names) is None
        # A field that is fixed to its value when absent is not written.
        if fixed and values_equal(value, default_of(line, work, env)):
            continue
        *within, name = line.fields[0].id.split(".")
        place: dict[str, object] = written
        for part in within:
            place = place.setdefault(part, {})  # type: ignore[assignment]
        place[name] = value
    work.report.raise_any()
    return written


def decided_by_tensors(line: ast.Setting) -> bool:
    """Whether the tensors of a checkpoint decide the value of a field that is absent."""
    return line.default is not None and is_named(line.default, "tensors")


@dataclass
class _ConfigReader:
    """Reads one config: `used` are the fields read, `settings` the parameters set so far.

    `open` are the parameters that only the tensors decide, with their choices; `assumed` gives
    the choice of one of them.
    """

    path: str
    scope: Scope
    model: ast.Model
    fields: dict[str, object]
    tensors: Mapping[str, LazyTensor] | None
    ignore: Collection[str] = ()
    assumed: Mapping[str, str] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    problems: list[Diagnostic] = field(default_factory=list)
    open: dict[str, list[str]] = field(default_factory=dict)
    first: ast.Line | None = None

    @property
    def known(self) -> list[str]:
        return [param.name.id for param in self.model.params.params]

    def read(self, node: ast.Config) -> dict[str, Setting]:
        self.first = next(iter(node.rules), None)
        computed = list(self.lines(node.rules))
        work, env = self.environment()
        work.report.raise_any()
        for line, found in computed:
            self.check_value(line, found, work, env)
        self.report_unknown()
        self.report_ignored()
        if self.problems:
            raise ArchError(self.problems)
        return self.settings

    def environment(self) -> tuple[Elaborator, Env]:
        """An environment with the parameters that are set so far."""
        builder = ModelBuilder(self.scope, self.model, Report())
        return builder.elaborator, builder.bind_parameters(self.settings)

    def report_error(self, line: ast.Setting | None, message: str, **more: str | None) -> None:
        span = line.span if line else None
        text = f"{self.path}: {message}"
        self.problems.append(Diagnostic("config", text, span, **more))  # type: ignore[arg-type]

    def lines(self, rules: Iterable[ast.Line]) -> Iterator[tuple[ast.Setting, object]]:
        """Sets parameters, and yields the other lines with the values of their fields."""
        absent: list[tuple[ast.Setting, ast.Expr]] = []
        groups: list[ast.Only] = []
        for line in rules:
            match line:
                case ast.Only():
                    groups.append(line)
                case ast.Setting():
                    found = self.field_value(line)
                    unknown = self.tensors is None and line.fields[0].id.startswith("tensors.")
                    # An old config does not name its model type; recognise.py tells it.
                    unnamed = line is self.first and isinstance(line.value, ast.String)
                    if unknown or is_named(line.value, "any") or (unnamed and found is None):
                        continue
                    if found is None and decided_by_tensors(line):
                        self.assume(line)
                    elif found is None and line.null is not None and self.is_null(line):
                        absent.append((line, line.null))
                    elif found is None and line.default is not None:
                        absent.append((line, line.default))
                    elif found is None and not any(n.id in self.fields for n in line.fields):
                        names = [name.id for name in line.fields]
                        near = did_you_mean(names[0], self.fields)
                        self.report_error(
                            line, f"the config has no field {listing(names)}", help=near
                        )
                    elif not self.set_parameter(line, found):
                        yield line, found
        # The value of an absent field may depend on parameters that other fields set.
        for line, given in absent:
            work, env = self.environment()
            value = value_when_absent(line, given, work, env)
            name = parameter_name(line.value, self.known)
            if name is None:
                yield line, value
            elif name not in self.settings:
                if is_list(line.value) and not isinstance(value, str):
                    value = list_text(line.value, value)
                elif value is None and (wanted := self.wanted_kind(name, None)):
                    self.report_error(
                        line,
                        f"{line.fields[0].id} is null, but `{name}` must be {wanted}",
                        help="write it in the config",
                    )
                    continue
                self.settings[name] = "none" if value is None else value  # type: ignore[assignment]
        # A condition depends on parameters too.
        for group in groups:
            work, env = self.environment()
            if work.conditions.holds(group.condition, env) is True:
                yield from self.lines(group.rules)

    def is_null(self, line: ast.Setting) -> bool:
        """Whether the config has the field, with the value null."""
        return any(name.id in self.fields for name in line.fields)

    def assume(self, line: ast.Setting) -> None:
        """Sets a parameter to one of the choices among which the tensors decide."""
        name = parameter_name(line.value, self.known)
        call = names_call(line.value)
        if name is None or call is None:
            return
        choices = dict.fromkeys(arg.name.id for arg in call.args if arg.name)
        self.open[name] = list(choices)
        self.settings[name] = self.assumed.get(name, self.open[name][0])

    def field_value(self, line: ast.Setting) -> object:
        """The value of a line's field, from the first of its names with a value."""
        first = line.fields[0].id
        if is_named(line.value, "any"):
            self.used |= {n for n in self.fields if first in outer_fields(n)}
        if is_tensor_field(first):
            facts = [tensor_field(each.id, self.tensors or {}) for each in line.fields]
            return next((fact for fact in facts if fact), facts[0])
        names = [name.id for name in line.fields if name.id in self.fields]
        if decided_by_tensors(line):
            # An empty list says as little as a missing field.
            names = [n for n in names if n not in self.ignore and self.fields[n] != []]
        values = [(name, self.fields[name]) for name in names]
        self.used |= {name for name, _ in values}
        if isinstance(line.value, ast.Call) and line.value.callee.id == "labels":
            # A table of labels, or their number.
            values = [(n, len(v) if isinstance(v, Mapping | list) else v) for n, v in values]
        given = [(name, value) for name, value in values if value is not None]
        for name, value in given[1:]:
            if not values_equal(value, given[0][1]):
                self.report_error(
                    line,
                    f"{given[0][0]} and {name} must have the same value",
                    found=f"{quote(given[0][1])} and {quote(value)}",
                )
        return given[0][1] if given else None

    def set_parameter(self, line: ast.Setting, found: object) -> bool:
        """Sets the parameter of a line; returns whether the line is done."""
        if repeated := repeated_parameter(line.value, self.known):
            return not self.set_repeated(line, repeated, found)
        name = parameter_name(line.value, self.known)
        if name is None:
            return False
        if isinstance(line.value, ast.Not):
            found = not found if isinstance(found, bool) else found
        elif is_list(line.value):
            text = list_text(line.value, found)
            if text is None:
                self.report_list(line, found)
                return True
            found = text
        elif call := names_call(line.value):
            if call is not line.value and isinstance(found, list) and len(found) == 1:
                (found,) = found
            texts = published_words(call)
            if not isinstance(found, str) or found not in texts:
                message = (
                    f"{line.fields[0].id} is {quote(found)}, which this spec does not support"
                )
                near = did_you_mean(found, texts) if isinstance(found, str) else None
                if not near and decided_by_tensors(line):
                    near = (
                        "if its tensors are those of a supported one, pass "
                        f"`--ignore {line.fields[0].id}`"
                    )
                self.report_error(line, message, expected=listing(texts), help=near)
                return True
            found = texts[found]
        self.set_value(line, name, found)
        return True

    def set_repeated(self, line: ast.Setting, name: str, found: object) -> bool:
        """Sets a parameter to the value that all entries of a list have; returns whether they
        have one. The length is checked like other values."""
        if isinstance(found, list) and found and all(values_equal(found[0], e) for e in found):
            self.set_value(line, name, found[0])
            return True
        message = f"{line.fields[0].id} is {quote(found)}, but this spec needs the same value"
        self.report_error(line, f"{message} for each", expected="a list of equal values")
        return False

    def set_value(self, line: ast.Setting, name: str, found: object) -> None:
        """Sets a parameter to a value of the config."""
        value: Setting = "none" if found is None else found  # type: ignore[assignment]
        wanted = self.wanted_kind(name, found)
        if wanted:
            message = f"{line.fields[0].id} is {quote(found)}, but `{name}` must be {wanted}"
            self.report_error(line, message)
            return
        # What the tensors say is a fact, which a field before it may get wrong.
        if line.fields[0].id.startswith("tensors."):
            self.settings[name] = value
        before = self.settings.setdefault(name, value)
        if not values_equal(before, value):
            message = (
                f"{line.fields[0].id} sets `{name}` to another value than an earlier field"
            )
            self.report_error(line, message, expected=quote(before), found=quote(value))

    def report_list(self, line: ast.Setting, found: object) -> None:
        """Reports a field that is no list of numbers, or has a name that no choice has."""
        assert isinstance(line.value, ast.Call)
        what = f"{line.fields[0].id} is {quote(found)}"
        if line.value.callee.id == "numbers":
            self.report_error(line, f"{what}, but a list of numbers is needed")
        else:
            known = listing(map(quote, published_words(line.value)), "and")
            self.report_error(
                line, f"{what}, which this spec does not support", expected=f"a list of {known}"
            )

    def wanted_kind(self, name: str, found: object) -> str | None:
        """The kind that a parameter needs, if the value of a field does not fit; else None."""
        param = next(p for p in self.model.params.params if p.name.id == name)
        if param.default is None:
            return None
        work, env = self.environment()
        default = work.evaluate(param.default, env)
        given: Value | None = None
        match found:
            case None:
                given = Symbol("none", param.span)
            case bool() | int() | float():
                given = Scalar(found)
            case str() if isinstance(default, Scalar):
                given = Scalar(found)
            case str() if found.isidentifier():
                given = Symbol(found, param.span)
        return kind_text(default) if given is None or not fits(given, default) else None

    def check_value(self, line: ast.Setting, found: object, work: Elaborator, env: Env) -> None:
        """Checks a field against the value that the spec computes."""
        wanted = [value_of(each, work, env) for each in alternatives(line.value)]
        if not work.report.mistakes and not any(values_equal(found, each) for each in wanted):
            self.report_error(
                line,
                f"{line.fields[0].id} is {quote(found)}, but this spec needs another value",
                expected=" or ".join(map(quote, wanted)),
            )
        self.problems += work.report.diagnostics

    def report_unknown(self) -> None:
        known = [name for name in self.fields if name in self.used]
        for name, value in self.fields.items():
            if value is None or name in self.used or value in ([], {}) or self.ignores(name):
                continue
            if not has_no_effect(name, value):
                field = quote_name(name)
                way_out = (
                    f"if the model does not depend on it, pass `--ignore {field}`, or "
                    f'`ignore=["{field}"]` in Python'
                )
                near = did_you_mean(name, known)
                self.report_error(
                    None,
                    f"{field} is {quote(value)}, but this spec does not know the field",
                    help=f"{near}; {way_out}" if near else way_out,
                )

    def ignores(self, name: str) -> bool:
        return any(each in self.ignore for each in outer_fields(name))

    def report_ignored(self) -> None:
        """Reports fields to ignore that the config does not have, or that the spec reads."""
        for each in self.ignore:
            there = [name for name in self.fields if each in outer_fields(name)]
            read = [name for name in there if name in self.used]
            field = quote_name(each)
            if not there:
                near = did_you_mean(each, self.fields)
                self.report_error(
                    None, f"there is no field {field} in the config to ignore", help=near
                )
            elif read:
                self.report_error(
                    None,
                    f"{quote_name(read[0])} cannot be ignored, because this spec reads it",
                    expected="a field that the spec does not know",
                )
