"""Import of published checkpoints as models and specs, and export of models as checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from archdsl.analysis import Analysis, analyse
from archdsl.backend.target import kernels_for, open_device
from archdsl.diagnostics import fail, listing
from archdsl.execution import checkpoints
from archdsl.formats import Checkpoint, read_checkpoint, write_checkpoint
from archdsl.formats.host import LazyTensor
from archdsl.graph.cost import BYTES, parameter_count
from archdsl.graph.sites import parameters
from archdsl.model import Model
from archdsl.published.configs import model_type_field, read_config, write_config
from archdsl.published.recognise import Recognised, recognise
from archdsl.published.specialise_spec import specialise_spec
from archdsl.published.weight_maps import WeightMap
from archdsl.semantics.model_parameters import Setting
from archdsl.semantics.models import ModelBuilder
from archdsl.semantics.report import Report
from archdsl.semantics.values import Scalar, Value, value_text
from archdsl.syntax import ast


def from_pretrained(
    path: str | Path,
    spec: str | None,
    device: str | None,
    dtype: str | None,
    seed: int,
    kernels: str,
    quantize: str | None,
    tune: float | None,
    ignore: Collection[str],
) -> Model:
    """Implements `archdsl.from_pretrained`."""
    if isinstance(ignore, str):
        fail(
            "argument-value",
            "`ignore` takes a list of fields, not a string",
            expected=f"ignore=[{ignore!r}]",
        )
    _, analysis, found = _open_checkpoint(path, spec, ignore)
    if dtype is None and quantize is None and kernels == "best":
        quantize = "stored" if kernels_for(open_device(device)) else None
    dtype = dtype or common_dtype(found.values())
    model = Model(analysis.graph, analysis.maps, device, dtype, seed, kernels, quantize, tune)
    model.fill(found)
    return model


def describe(
    path: str | Path, spec: str | None = None, ignore: Collection[str] = ()
) -> tuple[ast.File, dict[str, LazyTensor]]:
    """Returns the spec of a checkpoint, with its sizes as defaults, and its weights by name.

    The map of the spec lists the ignored fields, so that it reads the config without `ignore`.
    Names, shapes and dtypes of the weights are checked; their values are not read yet.
    """
    known, analysis, found = _open_checkpoint(path, spec, ignore)
    return specialise_spec(known, parameter_count(analysis.graph)), found


def export(
    analysis: Analysis, weights: str, folder: str | Path, map: str | None, shard_bytes: int
) -> int:
    """Writes a spec and its weights as a published checkpoint; returns the number of tensors.

    Weights keep their dtype and are read one at a time. Raises `ArchError` if the spec has no
    weight map with a config, if the weights do not fit the model, or if the folder already has
    a checkpoint.
    """
    chosen = _choose_map(analysis, map)
    parameters_ = {p.path: p for p in parameters(analysis.graph)}
    ours = checkpoints.read(weights, parameters_, analysis.maps, None)
    assert chosen.config is not None
    config = write_config(chosen.config, analysis.elaborator, analysis.env)
    theirs = checkpoints.to_published(chosen, ours)
    _check_round_trip(analysis, chosen.config, config, theirs)
    config["dtype"] = common_dtype(ours.values())
    write_checkpoint(folder, theirs, config, shard_bytes)
    return len(theirs)


def common_dtype(tensors: Iterable[LazyTensor]) -> str:
    """Returns the dtype that represents the numbers of all tensors exactly.

    >>> import numpy as np
    >>> dtypes = ("float16", "bfloat16")
    >>> half, brain = (LazyTensor(dtype, (1,), lambda: np.zeros(1)) for dtype in dtypes)
    >>> common_dtype([half]), common_dtype([half, brain])
    ('float16', 'float32')
    """
    kinds = {tensor.dtype for tensor in tensors}
    return kinds.pop() if len(kinds) == 1 and kinds <= BYTES.keys() else "float32"


def _recognise(
    path: str | Path, spec: str | None, ignore: Collection[str]
) -> tuple[Checkpoint, Recognised]:
    opened = read_checkpoint(path)
    if opened.config is None:
        fail(
            "config",
            f"{path}: no config says which model these weights belong to",
            expected="a folder with `config.json`, or a .gguf file",
            help="compile a spec and load the weights: `archdsl.compile(…).load(path)`",
        )
    return opened, recognise(str(path), opened.config, spec, opened.tensors, ignore)


def understand(
    path: str | Path, spec: str | None = None, ignore: Collection[str] = ()
) -> tuple[Checkpoint, Recognised, Analysis]:
    """Returns a checkpoint with the model of its config; the weights are not checked."""
    opened, known = _recognise(path, spec, ignore)
    several = [_analyse(known, each) for each in (known.settings, *known.alternatives)]

    def mismatches(analysis: Analysis) -> int:
        return checkpoints.mismatches(opened.tensors, analysis.maps[known.title])

    # The tensors decide what the config leaves open; the first of equals is taken.
    analysis = min(several, key=mismatches) if len(several) > 1 else several[0]
    settings = (known.settings, *known.alternatives)[several.index(analysis)]
    return opened, replace(known, settings=settings), analysis


def take_weights(
    path: str | Path, opened: Checkpoint, known: Recognised, analysis: Analysis
) -> dict[str, LazyTensor]:
    """Returns the tensors of a checkpoint as weights of its model; raises `ArchError` unless
    they fit one to one."""
    weights = {p.path: p for p in parameters(analysis.graph)}
    return checkpoints.fit(str(path), opened.tensors, weights, analysis.maps, known.title)


def _open_checkpoint(
    path: str | Path, spec: str | None, ignore: Collection[str]
) -> tuple[Recognised, Analysis, dict[str, LazyTensor]]:
    """Returns the spec of a checkpoint, its model, and its tensors as weights of the model."""
    opened, known, analysis = understand(path, spec, ignore)
    return known, analysis, take_weights(path, opened, known, analysis)


def _analyse(known: Recognised, settings: Mapping[str, Setting]) -> Analysis:
    return analyse(str(known.path), known.model.name.id, dict(settings))


def _check_round_trip(
    analysis: Analysis,
    node: ast.Config,
    config: Mapping[str, object],
    theirs: Mapping[str, LazyTensor],
) -> None:
    """Raises `ArchError` if a written config does not describe the same model when read."""
    scope = analysis.env.scope
    settings = read_config("the config", node, scope, analysis.model, config, theirs)
    again = ModelBuilder(scope, analysis.model, Report()).bind_parameters(settings)
    names = [param.name.id for param in analysis.model.params.params]
    lost = [
        n
        for n in names
        if _format_value(analysis.env.names[n]) != _format_value(again.names[n])
    ]
    if lost:
        values = [f"{n} = {_format_value(analysis.env.names[n])}" for n in lost]
        fail(
            "config",
            f"the published config cannot express {listing(values, 'and')}",
            node.span,
            expected=listing([f"{n} = {_format_value(again.names[n])}" for n in lost], "and"),
        )


def _format_value(value: Value) -> str:
    return value.text if isinstance(value, Scalar) else value_text(value)


def _choose_map(analysis: Analysis, map: str | None) -> WeightMap:
    """Returns the weight map for an export: the named one, or the first."""
    maps: Mapping[str, WeightMap] = {
        title: each
        for title, each in analysis.maps.items()
        # Maps of .gguf files have no `config.json`.
        if each.config
        and (model_type_field(each.config) or ((), ""))[0][:1] != ("general.architecture",)
    }
    if map is None and maps:
        return next(iter(maps.values()))
    if map is None or map not in maps:
        fail(
            "weights-map",
            f"`{analysis.model.name.id}` has no `weights` block with a `config.json`"
            + (f" called {map!r}" if map else ""),
            expected=listing(maps) or 'weights "title" for Model { config { … } … }',
        )
    return maps[map]
