"""Finds the spec for a published config: the one whose `weights` block matches it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.frozen import Frozen
from archdsl.published.config_values import (
    alternatives,
    flatten,
    is_bookkeeping,
    is_named,
    names_call,
    outer_fields,
)
from archdsl.published.configs import read_alternatives
from archdsl.published.includes import has_includes, inline_block, inline_includes
from archdsl.published.tensor_fields import is_tensor_field
from archdsl.published.weight_maps import check_owners
from archdsl.semantics.library import find, library_specs, load, read, tree
from archdsl.semantics.model_parameters import Setting
from archdsl.semantics.report import Report
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk

if TYPE_CHECKING:  # imports tinygrad
    from archdsl.formats.host import LazyTensor

_Candidate: TypeAlias = tuple[Path, ast.Weights, ast.Config]

# The fields that identify the metadata of .gguf files and of CTranslate2's.
_FILES = (("general.architecture",), ("spec",))


class Recognised(Frozen):
    """The spec, the model and the weight map for a config, and the parameters that it sets.

    `block` is the map, without an `include`. `alternatives` are other parameters that fit the
    config: the tensors decide between them. `ignored` are the fields of the config that the
    caller ignores.
    """

    path: Path
    file: ast.File
    model: ast.Model
    block: ast.Weights
    settings: Mapping[str, Setting]
    alternatives: tuple[Mapping[str, Setting], ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The title of the map."""
        return self.block.title.value


def recognise(
    where: str,
    config: Mapping[str, object],
    spec: str | None = None,
    tensors: Mapping[str, LazyTensor] | None = None,
    ignore: Collection[str] = (),
) -> Recognised:
    """Finds the spec for a config in the library, or checks the given one.

    Raises `ArchError` (code `config`) if no spec matches the config, or if the spec does not
    support its values. `where` is the path of the config, for messages. Fields of `ignore` may
    be unknown to the spec.
    """
    fields = flatten(config)
    paths = [_path(spec)] if spec else library_specs()
    best = _search([path for path in paths if _mentions(path, fields)], fields)
    best = best or _search(paths, fields)
    if best is None:
        _fail_unknown(where, fields, paths, spec)
    path, block, node = best
    file = tree(read(str(path)))
    report = Report()
    scope = load(file, path, report)
    inline_includes(file, scope, report)
    check_owners(file, report)
    report.raise_any()
    model = next(
        i for i in file.items if isinstance(i, ast.Model) and i.name.id == block.model.id
    )
    settings, *others = read_alternatives(where, node, scope, model, config, tensors, ignore)
    return Recognised(path, file, model, block, settings, tuple(others), tuple(ignore))


def _mentions(path: Path, fields: Mapping[str, object]) -> bool:
    """Whether a spec's text contains a string of the config: a fast filter."""
    texts = (v[0] if isinstance(v, list) and v else v for v in fields.values())
    source = read(str(path)).text
    return any(isinstance(text, str) and f'"{text}"' in source for text in texts)


def _search(paths: Sequence[Path], fields: Mapping[str, object]) -> _Candidate | None:
    """The map that matches a config, with the fewest fixed fields that differ. Of several, the
    one with the fewest fields that only the config or only the map has."""
    best: tuple[tuple[int, int], _Candidate] | None = None
    for path in paths:
        for block, node in _configs(path):
            if not identifies(node, fields):
                continue
            there = [(n, v) for n, v in fixed_fields(node) if not fields.keys().isdisjoint(n)]
            differing = sum(
                not any(_has(fields, names, value) for value in values)
                for names, values in there
            )
            order = differing, _unmatched(node, fields)
            if best is None or order < best[0]:
                best = order, (path, block, node)
    return best[1] if best else None


def identifies(node: ast.Config, fields: Mapping[str, object]) -> bool:
    """Whether a map is for the model type of a config, or for its architecture if the config,
    of a release before 2020, has no model type. A map without a model type is for configs that
    have its first field."""
    own = model_type_field(node)
    if own is None:
        return own_field(node) in fields
    if not fields.keys().isdisjoint(own[0]):
        return any(_has(fields, own[0], value) for value in own[1])
    texts = [
        part.value
        for line in node.rules
        if isinstance(line, ast.Setting) and line.fields[0].id == "architectures"
        for part in walk(line)
        if isinstance(part, ast.String)
    ]
    return any(_has(fields, ("architectures",), text) for text in texts)


def _unmatched(node: ast.Config, fields: Mapping[str, object]) -> int:
    """How many fields a config has and the map does not know, or needs and the config lacks."""
    needed = [
        line.fields
        for line in node.rules
        if isinstance(line, ast.Setting)
        if line.default is None
        if not is_named(line.value, "any") and not is_tensor_field(line.fields[0].id)
    ]
    missing = [names for names in needed if not any(name.id in fields for name in names)]
    return len(unknown_fields(node, fields)) + len(missing)


def unknown_fields(node: ast.Config, config: Mapping[str, object]) -> list[str]:
    """The fields of a config that no line of a block has, and that may change a model."""
    lines = [line for line in walk(node) if isinstance(line, ast.Setting)]
    known = {name.id for line in lines for name in line.fields}
    whole = {name.id for line in lines if is_named(line.value, "any") for name in line.fields}
    return [
        name
        for name in flatten(config)
        if name not in known and whole.isdisjoint(outer_fields(name))
        if not is_bookkeeping(name)
    ]


def model_type_field(node: ast.Config) -> tuple[tuple[str, ...], list[str]] | None:
    """The field that identifies a config, and its values: the first line, if it has strings."""
    first = next(iter(node.rules), None)
    if not isinstance(first, ast.Setting):
        return None
    call = names_call(first.value)
    given = [arg.value for arg in call.args] if call else [first.value]
    texts = [text for value in given for text in alternatives(value)]
    values = [text.value for text in texts if isinstance(text, ast.String)]
    return (tuple(name.id for name in first.fields), values) if values else None


def has_config_json(node: ast.Config) -> bool:
    """Whether a `config` block is of a config.json, not of settings in a file of weights."""
    own = model_type_field(node)
    return own is not None and own[0] not in _FILES


def fixed_fields(node: ast.Config) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """All fields that a block fixes to a string, or to one of several.

    They distinguish blocks for one model type.
    """
    for line in node.rules:
        if isinstance(line, ast.Setting):
            value = line.value
            if isinstance(value, ast.Call) and value.callee.id == "list" and value.args:
                value = value.args[0].value  # type: ignore[assignment]
            texts = [each.value for each in alternatives(value) if isinstance(each, ast.String)]
            if texts:
                yield tuple(name.id for name in line.fields), texts


def own_field(node: ast.Config) -> str | None:
    """The field that identifies configs without a model type: the first, if it is nested."""
    first = next(iter(node.rules), None)
    if not isinstance(first, ast.Setting) or first.default is not None:
        return None
    name = first.fields[0].id
    nested = "." in name and not is_tensor_field(name) and not is_named(first.value, "any")
    return name if nested else None


def _path(spec: str) -> Path:
    found = find(spec)
    return found if found else Path(read(spec).path)


def _configs(path: Path) -> list[tuple[ast.Weights, ast.Config]]:
    file = tree(read(str(path)))
    blocks = [item for item in file.items if isinstance(item, ast.Weights)]
    if any(map(has_includes, blocks)):
        scope = load(file, path, Report())
        blocks = [inline_block(block, scope) for block in blocks]
    return [(b, rule) for b in blocks for rule in b.rules if isinstance(rule, ast.Config)]


def _has(fields: Mapping[str, object], names: tuple[str, ...], value: object) -> bool:
    """Whether one of a field's names has this value, or a list of it."""
    found = (fields[name] for name in names if name in fields)
    return any(v == value or (isinstance(v, list) and v == [value] * len(v)) for v in found)


_KIND_FIELDS = ("model_type", "general.architecture", "architecture", "spec")


def _fail_unknown(
    where: str, fields: Mapping[str, object], paths: Sequence[Path], spec: str | None
) -> NoReturn:
    field = next((name for name in _KIND_FIELDS if name in fields), None)
    kind = str(fields.get(field or ""))
    # The supported model types, each with its spec: with this field, and with another one.
    known: dict[str, str] = {}
    others: dict[str, str] = {}
    for path in paths:
        for _, node in _configs(path):
            own = model_type_field(node)
            if own is not None:
                same = field is None or field in own[0]
                for value in own[1]:
                    (known if same else others).setdefault(value, path.name)
    gguf = " in a GGUF file" if field == "general.architecture" else ""
    unsupported = f"`{spec}` does not" if spec else "no spec of the library"
    unsupported += f" support{'' if spec else 's'} the model type `{kind}`{gguf}"
    fail(
        "config",
        f"{where}: {unsupported if field else 'the config does not name its model type'}",
        expected=listing(sorted(known)) or None,
        help=(
            f"{others[kind]} supports it in a folder with config.json"
            if gguf and kind in others
            else did_you_mean(kind, known)
            or "write a spec with a `weights` block whose `config` starts with its model type"
        ),
    )
