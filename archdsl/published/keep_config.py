"""The config of an export: that of the imported folder, with the fields that have changed."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.published.config_values import is_named
from archdsl.published.configs import read_alternatives, write_config
from archdsl.published.tensor_fields import is_tensor_field
from archdsl.published.weight_maps import active_lines
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.model_parameters import Setting
from archdsl.semantics.models import ModelBuilder
from archdsl.semantics.report import Report
from archdsl.semantics.values import Env, Scalar, Value, value_text
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk

if TYPE_CHECKING:  # imports tinygrad
    from archdsl.formats.host import LazyTensor

Config = dict[str, Any]


def bind(model: ast.Model, env: Env, settings: Mapping[str, Setting]) -> Env:
    """The parameters of a model with these settings; `env` gives the file's names."""
    return ModelBuilder(env.scope, model, Report()).bind_parameters(settings)


def changed_parameters(model: ast.Model, one: Env, other: Env) -> list[str]:
    """The parameters of a model with different values."""
    names = [param.name.id for param in model.params.params]
    return [n for n in names if format_value(one.names[n]) != format_value(other.names[n])]


def format_value(value: Value) -> str:
    return value.text if isinstance(value, Scalar) else value_text(value)


def keep_fields(
    path: str,
    node: ast.Config,
    model: ast.Model,
    work: Elaborator,
    env: Env,
    original: Mapping[str, object],
    tensors: Mapping[str, LazyTensor],
    ignore: Collection[str],
) -> Config:
    """Returns the original config, with other values where a parameter of `env` is another.

    So all fields stay that do not say which model it is, and those of an equal model keep their
    spelling. `path` is the original's, for messages, `ignore` as for `read_config`.

    Raises `ArchError` (code `config`) if the original is not a config of this block.
    """
    readings = read_alternatives(path, node, env.scope, model, original, tensors, ignore)
    before = min(
        (bind(model, env, settings) for settings in readings),
        key=lambda each: len(changed_parameters(model, each, env)),
    )
    changed = set(changed_parameters(model, before, env))
    config: Config = copy.deepcopy(dict(original))
    if not changed:
        return config
    written = write_config(node, work, env)
    old, new = _fields(node, work, before), _fields(node, work, env)
    for line in old:
        if line not in new:
            _remove(config, line)
    for line in new:
        if line not in old or _names(line) & changed:
            _replace(config, line, written)
    return config


def _fields(node: ast.Config, work: Elaborator, env: Env) -> list[ast.Setting]:
    """The fields that have a value for these parameters."""
    return [
        line
        for line in active_lines(node.rules, work, env)
        if isinstance(line, ast.Setting)
        and not is_named(line.value, "any")
        and not is_tensor_field(line.fields[0].id)
    ]


def _names(line: ast.Setting) -> set[str]:
    """The names on which the value of a field depends, given or absent."""
    parts = [part for part in (line.value, line.default, line.null) if part]
    return {each.id for part in parts for each in walk(part) if isinstance(each, ast.Name)}


def _replace(config: Config, line: ast.Setting, written: Config) -> None:
    """Gives a field its written value, if it has one, under the name that the config uses."""
    names = [name.id for name in line.fields]
    name = next((each for each in names if _place(config, each)), names[0])
    _remove(config, line)
    place = _place(written, names[0])
    if place is None:
        return
    value = place[names[0].split(".")[-1]]
    *within, last = name.split(".")
    for part in within:
        if not isinstance(config.get(part), dict):
            config[part] = {}
        config = config[part]
    config[last] = value


def _place(config: Config, name: str) -> Config | None:
    """The dict that has a field, which may be nested; None if there is no such field."""
    *within, last = name.split(".")
    place: Any = config
    for part in within:
        place = place.get(part) if isinstance(place, dict) else None
    return place if isinstance(place, dict) and last in place else None


def _remove(config: Config, line: ast.Setting) -> None:
    """Removes a field under each of its names."""
    for name in line.fields:
        place = _place(config, name.id)
        if place is not None:
            del place[name.id.split(".")[-1]]
    if isinstance(line.value, ast.Call) and line.value.callee.id == "labels":
        config.pop("label2id", None)  # the same names the other way round
