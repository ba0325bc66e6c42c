"""Published configs, both ways: the fields of a `config.json` for a model's parameters.

A `config` block says of each field what it is in the model's own words. Where that is a bare
parameter, reading sets it; all else is computed from the parameters and must agree with the
field. So a config that is read whole is a config that was understood whole.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, listing
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.library import Scope
from archdsl.semantics.models import ModelBuilder, Setting
from archdsl.semantics.report import Report
from archdsl.semantics.unknown import no_choice
from archdsl.semantics.values import Env, Scalar, Symbol
from archdsl.semantics.weight_maps import lines
from archdsl.syntax import ast
from archdsl.syntax.printer import expression

# Fields that say where a model came from, how it was trained and how text is made with it;
# none changes what it computes. Written by transformers 2 to 5, and by llama.cpp's converters.
BOOKKEEPING = (
    *("_*", "transformers_version", "torch_dtype", "dtype", "torchscript", "tokenizer_class"),
    *("use_cache", "output_*", "return_dict*", "gradient_checkpointing", "use_bfloat16"),
    *("tf_legacy_loss", "pruned_heads", "chunk_size_feed_forward", "name_or_path"),
    *("auto_map", "license", "language", "tags", "prefix", "sep_token_id"),
    *(
        "initializer_*",
        "init_std",
        "*init_factor",
        "*dropout",
        "*dropout_prob",
        "*dropout_rate",
    ),
    *(
        "*_pdrop",
        "*layerdrop",
        "drop_path_rate",
        "*router_aux_loss_coef",
        "router_jitter_noise",
    ),
    *("id2label*", "label2id*", "problem_type", "finetuning_task", "num_labels"),
    *("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_*", "begin_suppress*"),
    *("suppress_tokens", "bad_words_ids", "task_specific_params*", "max_length", "min_length"),
    *("do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences"),
    *("exponential_decay_length_penalty", "remove_invalid_values", "max_new_tokens"),
    *("mask_time_*", "mask_feature_*", "apply_spec_augment"),
    *(
        "transformers.js_config*",
        "general.[!a]*",
        "general.author",
        "general.alignment",
        "tokenizer.*",
        "quantize.*",
    ),
    "GGUF.*",
)


# What stands before a tensor's name where a line asks whether the checkpoint has it.
TENSORS = "tensors."


def read_config(
    path: str,
    node: ast.Config,
    scope: Scope,
    model: ast.Model,
    config: Mapping[str, object],
    tensors: Collection[str] = (),
) -> dict[str, Setting]:
    """The parameters of a model that a published config sets.

    The names of the checkpoint's `tensors` say what some configs do not: the field
    `tensors.NAME` is whether there is one.

    Raises `ArchError` (code `config`) with every field that is missing, that this spec does
    not know, or whose value it cannot be compiled for. `path` is the config's, for messages.
    """
    return _Reading(path, scope, model, flat(config), tensors).settings_of(node)


def write_config(node: ast.Config, work: Elaborator, env: Env) -> dict[str, object]:
    """The config of a model whose parameters are those of `env`, fields within fields."""
    written: dict[str, object] = {}
    for line in lines(node.rules, work, env):
        assert isinstance(line, ast.Setting)
        if _names(line.value, "any") or line.fields[0].id.startswith(TENSORS):
            continue
        value = _value(line.value, work, env)
        if line.default is not None:
            default = _default(line, work, env)
            # A field that is fixed to what it means where it is missing need not be there.
            if parameter(line.value, env.names) is None and _equal(value, default):
                continue
        *within, name = line.fields[0].id.split(".")
        place: dict[str, object] = written
        for part in within:
            place = place.setdefault(part, {})  # type: ignore[assignment]
        place[name] = value
    work.report.raise_any()
    return written


def identity(node: ast.Config) -> tuple[tuple[str, ...], str] | None:
    """The field by which a config is known, and its value: the first line's if a text."""
    first = next(iter(node.rules), None)
    if isinstance(first, ast.Setting) and isinstance(first.value, ast.String):
        return tuple(name.id for name in first.fields), first.value.value
    return None


def constants(node: ast.Config) -> Iterator[tuple[tuple[str, ...], object]]:
    """All fields that a block fixes to a text, which tell it from others for its kind."""
    for line in node.rules:
        if isinstance(line, ast.Setting):
            value = line.value
            if isinstance(value, ast.Call) and value.callee.id == "list" and value.args:
                value = value.args[0].value  # type: ignore[assignment]
            if isinstance(value, ast.String):
                yield tuple(name.id for name in line.fields), value.value


def flat(config: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A config's fields by dotted names; a field with nothing in it is not there.

    What is numbered is a list, and stays whole.

    >>> flat({"a": {"b": 1, "c": {}}, "d": [2], "id2label": {"0": "cat"}})
    {'a.b': 1, 'd': [2], 'id2label': {'0': 'cat'}}
    """
    fields: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and not (value and all(map(str.isdigit, value))):
            fields |= flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = value
    return fields


@dataclass
class _Reading:
    """One config being read: the fields met, and the parameters that they have set."""

    path: str
    scope: Scope
    model: ast.Model
    fields: dict[str, object]
    tensors: Collection[str]
    settings: dict[str, Setting] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)
    problems: list[Diagnostic] = field(default_factory=list)

    @property
    def known(self) -> list[str]:
        return [param.name.id for param in self.model.params.params]

    def settings_of(self, node: ast.Config) -> dict[str, Setting]:
        computed = list(self.lines(node.rules))
        work, env = self.names()
        work.report.raise_any()
        for line, found in computed:
            self.agrees(line, found, work, env)
        self.unknown()
        if self.problems:
            raise ArchError(self.problems)
        return self.settings

    def names(self) -> tuple[Elaborator, Env]:
        """The model's parameters as they are set so far."""
        builder = ModelBuilder(self.scope, self.model, Report())
        return builder.work, builder.named(self.settings)

    def wrong(self, line: ast.Setting | None, message: str, **more: str | None) -> None:
        span = line.span if line else None
        text = f"{self.path}: {message}"
        self.problems.append(Diagnostic("config", text, span, **more))  # type: ignore[arg-type]

    def lines(self, rules: Iterable[ast.Line]) -> Iterator[tuple[ast.Setting, object]]:
        """Reads what sets a parameter, and hands on what must agree: the line and the value."""
        absent: list[ast.Setting] = []
        groups: list[ast.Only] = []
        for line in rules:
            match line:
                case ast.Only():
                    groups.append(line)
                case ast.Setting():
                    found = self.found(line)
                    if _names(line.value, "any"):
                        continue
                    if found is None and line.default is not None:
                        absent.append(line)
                    elif found is None and not any(n.id in self.fields for n in line.fields):
                        names = [name.id for name in line.fields]
                        near = did_you_mean(names[0], self.fields)
                        self.wrong(line, f"there is no field {listing(names)}", help=near)
                    elif not self.sets(line, found):
                        yield line, found
        # What a field means that is not there may need the parameters that are.
        for line in absent:
            work, env = self.names()
            value = _default(line, work, env)
            name = parameter(line.value, self.known)
            if name is None:
                yield line, value
            elif name not in self.settings:
                self.settings[name] = "none" if value is None else value  # type: ignore[assignment]
        # And what stands under a condition, those that it speaks of.
        for group in groups:
            work, env = self.names()
            if work.conditions.holds(group.condition, env) is True:
                yield from self.lines(group.rules)

    def found(self, line: ast.Setting) -> object:
        """The value of a line's field, by the first of its names that has one."""
        first = line.fields[0].id
        if first.startswith(TENSORS):
            return first.removeprefix(TENSORS) in self.tensors
        values = [(n.id, self.fields[n.id]) for n in line.fields if n.id in self.fields]
        self.met |= {name for name, _ in values}
        given = [(name, value) for name, value in values if value is not None]
        for name, value in given[1:]:
            if not _equal(value, given[0][1]):
                self.wrong(
                    line,
                    f"{given[0][0]} and {name} are one thing and differ",
                    found=f"{_said(given[0][1])} and {_said(value)}",
                )
        return given[0][1] if given else None

    def sets(self, line: ast.Setting, found: object) -> bool:
        """Sets a parameter, if that is what the field is."""
        name = parameter(line.value, self.known)
        if name is None:
            return False
        if isinstance(line.value, ast.Not):
            found = not found if isinstance(found, bool) else found
        elif isinstance(line.value, ast.Call) and line.value.callee.id == "labels":
            found = len(found) if isinstance(found, Mapping | list) else found
        elif isinstance(line.value, ast.Call):
            known = [(a.name.id, a.value) for a in line.value.args if a.name]
            texts = {
                value.value: ours for ours, value in known if isinstance(value, ast.String)
            }
            if not isinstance(found, str) or found not in texts:
                message = (
                    f"{line.fields[0].id} is {_said(found)}, which this spec does not know"
                )
                near = did_you_mean(found, texts) if isinstance(found, str) else None
                self.wrong(line, message, expected=listing(texts), help=near)
                return True
            found = texts[found]
        if found is not None and not isinstance(found, int | float | bool | str):
            message = f"{line.fields[0].id} is {_said(found)}, which is no parameter's value"
            self.wrong(line, message)
            return True
        value: Setting = "none" if found is None else found
        before = self.settings.setdefault(name, value)
        if not _equal(before, value):
            message = f"{line.fields[0].id} gives another `{name}`"
            self.wrong(line, message, expected=_said(before), found=_said(value))
        return True

    def agrees(self, line: ast.Setting, found: object, work: Elaborator, env: Env) -> None:
        """Holds a field against what the spec computes for it."""
        wanted = _value(line.value, work, env)
        if not work.report.mistakes and not _equal(found, wanted):
            self.wrong(
                line,
                f"{line.fields[0].id} is {_said(found)}, and this spec is for another",
                expected=_said(wanted),
            )
        self.problems += work.report.diagnostics

    def unknown(self) -> None:
        known = [name for name in self.fields if name in self.met]
        for name, value in self.fields.items():
            if value is None or name in self.met or value in ([], {}):
                continue
            if not bookkeeping(name):
                self.wrong(
                    None,
                    f"{name} is {_said(value)}, and this spec says nothing of the field",
                    help=did_you_mean(name, known)
                    or f"if it changes nothing that is computed: `{name} = any`",
                )


def bookkeeping(name: str) -> bool:
    """Whether a field, or one that it is within, is among those that change no computation."""
    parts = name.split(".")
    ends = [".".join(parts[i:]) for i in range(len(parts))]
    return any(fnmatchcase(end, pattern) for end in ends for pattern in BOOKKEEPING)


def _default(line: ast.Setting, work: Elaborator, env: Env) -> object:
    """What a field means that is not there: a value, or one of the choices."""
    node = line.default
    assert node is not None
    if isinstance(node, ast.Name) and node.id not in env.names:
        args = line.value.args if isinstance(line.value, ast.Call) else ()
        if node.id in [arg.name.id for arg in args if arg.name] or no_choice(node) is None:
            return None if node.id == "none" else node.id
    return _value(node, work, env)


def parameter(value: ast.Expr | ast.Not, names: Iterable[str]) -> str | None:
    """The parameter of a model that a field is, itself, denied, or by names of its own."""
    if isinstance(value, ast.Not):
        value = value.operand
    if isinstance(value, ast.Call) and value.callee.id in ("names", "labels") and value.args:
        value = value.args[0].value  # type: ignore[assignment]
    return value.id if isinstance(value, ast.Name) and value.id in names else None


def _names(node: ast.Expr | ast.Not, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _value(node: ast.Expr | ast.Typed | ast.Not, work: Elaborator, env: Env) -> object:
    """What a field's expression is for these parameters, as a config has it."""
    if isinstance(node, ast.Not):
        return work.conditions.holds(node, env) is True
    if isinstance(node, ast.Call) and node.callee.id == "list":
        value, *count = (_value(a.value, work, env) for a in node.args)
        times = count[0] if count else 1
        return [value] * times if isinstance(times, int) else None
    if isinstance(node, ast.Call) and node.callee.id == "labels" and node.args:
        classes = _value(node.args[0].value, work, env)
        return {str(i): f"LABEL_{i}" for i in range(classes)} if type(classes) is int else None
    if isinstance(node, ast.Call) and node.callee.id == "names" and node.args:
        chosen = _value(node.args[0].value, work, env)
        for arg in node.args[1:]:
            if arg.name and arg.name.id == ("none" if chosen is None else chosen):
                return _value(arg.value, work, env)
        known = listing(arg.name.id for arg in node.args if arg.name)
        text = f"no published name is told for {_said(chosen)}"
        work.wrong("config", text, node.span, expected=known)
        return None
    value = work.value(node, env)
    match value:
        case Scalar():
            return value.value
        case Symbol(name="none"):
            return None
        case Symbol():
            names = {a.id for a in ast.walk(node) if isinstance(a, ast.Name)}
            if value.name in names and value.name not in env.names:
                work.wrong(
                    "config",
                    f"nothing is named `{expression(node)}` here",  # type: ignore[arg-type]
                    node.span,
                    help=did_you_mean(value.name, env.names),
                )
            return value.name
        case _:
            return None


def _equal(one: object, other: object) -> bool:
    match one, other:
        case bool(), _:
            return one is other
        case _, bool():
            return False
        case int() | float(), int() | float():
            return math.isclose(one, other, rel_tol=1e-9)
        case list(), list():
            return len(one) == len(other) and all(map(_equal, one, other))
        case _:
            return one == other


def _said(value: object) -> str:
    """A config's value as a message says it."""
    if isinstance(value, list):
        inside = ", ".join(map(_said, value[:4]))
        return f"[{inside}{', …' if len(value) > 4 else ''}]"
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f'"{value:.60}"' if isinstance(value, str) else f"{value!s:.60}"
