"""Checks of a `config` block that need no config."""

from __future__ import annotations

from contextlib import suppress

from archdsl.diagnostics import Note, listing
from archdsl.published.config_values import (
    NoPublishedName,
    alternatives,
    default_of,
    is_named,
    names_call,
    quote,
    value_of,
    value_when_absent,
)
from archdsl.published.configs import decided_by_tensors
from archdsl.published.recognise import model_type_field, own_field
from archdsl.published.weight_maps import active_lines
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.unknown import unknown_choice
from archdsl.semantics.values import Env
from archdsl.syntax import ast


def check_config(node: ast.Config, model: ast.Model, work: Elaborator, env: Env) -> None:
    """Reports lines of a `config` block that are invalid or contradict each other."""
    if model_type_field(node) is None and own_field(node) is None:
        work.report_error(
            "config",
            "the first line of a config must identify the model type",
            node.span,
            expected='a field with a string, such as `model_type = "gpt2"`, or a nested field '
            "that no other config has",
        )
    fields: dict[str, ast.Setting] = {}
    for line in active_lines(node.rules, work, env):
        if isinstance(line, ast.Rename):
            check_rename(line, work)
        if not isinstance(line, ast.Setting):
            continue
        if not is_named(line.value, "any"):
            _check_names(line.value, model, work, env)
            with suppress(NoPublishedName):  # a model without a published form still compiles
                value_of(line.value, work, env)
                if line.default is not None and not decided_by_tensors(line):
                    default_of(line, work, env)
                if line.null is not None:
                    value_when_absent(line, line.null, work, env)
        name = line.fields[0].id
        for other in fields:
            if (
                name == other
                or f"{name}.".startswith(f"{other}.")
                or f"{other}.".startswith(f"{name}.")
            ):
                notes = (Note("the other is here", fields[other].span),)
                work.report_error(
                    "config",
                    f"`{name}` and `{other}` overlap: a config cannot have both",
                    line.span,
                    notes=notes,
                )
        fields[name] = line


def check_rename(line: ast.Rename, work: Elaborator) -> None:
    for path in (line.theirs, line.new):
        if not path.text.removesuffix(".*").isidentifier() or not path.text.endswith(".*"):
            work.report_error(
                "config",
                "`rename` in a config takes parts of the config",
                path.span,
                expected="rename text_config_dict.* = text_config.*",
            )


def _check_names(value: ast.Expr, model: ast.Model, work: Elaborator, env: Env) -> None:
    """Reports unknown choices, and published names that two choices share."""
    value = names_call(value) or value
    if not isinstance(value, ast.Call) or value.callee.id != "names":
        return
    chosen = value.args[0].value if value.args else None
    types = {p.name.id: p.type for p in model.params.params}
    type = types.get(chosen.id) if isinstance(chosen, ast.Name) else None
    choices = [name.id for name in type.names] if isinstance(type, ast.Choices) else None
    taken: dict[str, str] = {}
    for arg in value.args[1:]:
        published = [each for each in alternatives(arg.value) if isinstance(each, ast.String)]
        if arg.name is None or len(published) < max(1, len(alternatives(arg.value))):
            work.report_error(
                "config",
                "`names` takes choices with their published names",
                arg.span,
                expected='gelu = "gelu_new"',
            )
            continue
        if choices is not None:
            if arg.name.id not in choices:
                work.report_error(
                    "config",
                    f"`{arg.name.id}` is not a choice of the parameter",
                    arg.name.span,
                    expected=listing(choices),
                )
        elif arg.name.id not in env.scope.blocks and (wrong := unknown_choice(arg.name)):
            work.builder.report_diagnostic(wrong)
        for each in published:
            before = taken.setdefault(each.value, arg.name.id)
            if before != arg.name.id:
                work.report_error(
                    "config",
                    f"{quote(each.value)} is the name of both `{before}` and `{arg.name.id}`",
                    each.span,
                )
