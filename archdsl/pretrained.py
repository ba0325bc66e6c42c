"""Import of published checkpoints as models and specs, and export of models as checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from archdsl.analysis import Analysis, analyse
from archdsl.backend.target import kernels_for, open_device
from archdsl.diagnostics import fail, listing
from archdsl.execution import checkpoints
from archdsl.execution.adapters import adapter_weights
from archdsl.formats import Checkpoint, read_checkpoint, resolve, write_checkpoint
from archdsl.formats.checkpoint import CONFIG
from archdsl.formats.gguf_copy import copy_gguf
from archdsl.formats.host import LazyTensor
from archdsl.formats.other_files import folder_of, other_files
from archdsl.formats.strict_json import read_object
from archdsl.frozen import Frozen
from archdsl.graph.cost import BYTES, parameter_count
from archdsl.graph.sites import parameters
from archdsl.model import Model
from archdsl.passes.lora import linear_weights
from archdsl.published.config_values import flatten
from archdsl.published.configs import read_alternatives, write_config
from archdsl.published.end_tokens import ends_of_config
from archdsl.published.keep_config import bind, changed_parameters, format_value, keep_fields
from archdsl.published.low_rank import with_low_rank
from archdsl.published.peft import read_adapter
from archdsl.published.recognise import (
    Recognised,
    has_config_json,
    identifies,
    recognise,
    unknown_fields,
)
from archdsl.published.specialise_spec import specialise_spec
from archdsl.published.weight_maps import WeightMap
from archdsl.semantics.model_parameters import Setting
from archdsl.syntax import ast
from archdsl.training.run_folder import read_environment, read_settings
from archdsl.training.trained import TrainedRun, find_run

SHARD = 5_000_000_000  # bytes of a file of weights, at most


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
    settings: Mapping[str, Setting],
) -> Model:
    """Implements `archdsl.from_pretrained`."""
    if isinstance(ignore, str):
        fail(
            "argument-value",
            "`ignore` takes a list of fields, not a string",
            expected=f"ignore=[{ignore!r}]",
        )
    if spec is None and (run := find_run(path)):
        return _of_run(run, device, dtype, seed, kernels, quantize, tune, settings)
    opened, _, analysis, found = _open_checkpoint(path, spec, ignore, settings)
    if dtype is None and quantize is None and kernels == "best":
        quantize = "stored" if kernels_for(open_device(device)) else None
    dtype = dtype or common_dtype(found.values())
    model = Model(analysis.graph, analysis.maps, device, dtype, seed, kernels, quantize, tune)
    model.fill(found)
    model.ends = ends_of_config(opened.config or {})
    model.source = _absolute(path)
    return model


def _of_run(
    run: TrainedRun,
    device: str | None,
    dtype: str | None,
    seed: int,
    kernels: str,
    quantize: str | None,
    tune: float | None,
    settings: Mapping[str, Setting],
) -> Model:
    """The model of a training run, which may have an adapter of another checkpoint."""
    known, trained = read_environment(run.folder), read_settings(run.folder)
    dtype = dtype or str(known.get("dtype"))
    options = (device, dtype, seed, kernels, quantize, tune)
    if source := known.get("source"):
        model = from_pretrained(str(source), None, *options, (), settings)
        model.adapt(trained)
        own = {path: model.weights[path] for path in adapter_weights(model.graph)}
        model.fill(checkpoints.read(str(run.weights), own, {}, None))
        return model
    analysis = analyse(str(run.spec), settings=settings)
    model = Model(analysis.graph, analysis.maps, *options)
    model.adapt(trained)
    model.load(run.weights)
    model.source = _absolute(run.folder)
    return model


def _absolute(path: str | Path) -> str:
    return str(path if str(path).startswith("package:") else Path(path).absolute())


class Described(Frozen):
    """The spec of a checkpoint, its weights by name, and its other files.

    `ignored` are the names of tensors that the spec does not use. `left_out` are the names of
    files that are not read and not kept, such as weights in another format.
    """

    spec: ast.File
    weights: Mapping[str, LazyTensor]
    ignored: Sequence[str]
    files: Mapping[str, Path]
    left_out: Sequence[str]


def describe(
    path: str | Path,
    spec: str | None = None,
    ignore: Collection[str] = (),
    settings: Mapping[str, Setting] | None = None,
) -> Described:
    """Returns the spec of a checkpoint, with its sizes as defaults, its weights and its files.

    The map of the spec lists the ignored fields, so that it reads the config without `ignore`.
    Names, shapes and dtypes of the weights are checked; their values are not read yet.
    """
    opened, known, analysis, found = _open_checkpoint(path, spec, ignore, settings or {})
    described = specialise_spec(known, parameter_count(analysis.graph), analysis.maps)
    ignored = checkpoints.left_out(opened.tensors, analysis.maps[known.title])
    if not opened.path.is_dir():
        return Described(described, found, ignored, {}, ())
    return Described(described, found, ignored, *other_files(opened.path, opened.used))


def export(
    analysis: Analysis,
    weights: str,
    folder: str | Path,
    map: str | None,
    shard_bytes: int,
    files: str | None = None,
    ignore: Collection[str] = (),
) -> tuple[int, int]:
    """Writes a spec and its weights as a published checkpoint.

    Weights keep their dtype and are read one at a time. `files` is a folder with the other
    files of the checkpoint: its tokenizer, the fields of its config that are not about the
    model. By default it is the folder that an import has written beside the weights, or the
    weights' own; "none" stands for no folder. Fields of `ignore` may be unknown to the spec.

    Returns the numbers of tensors and of other files. Raises `ArchError` if the spec has no
    weight map with a config, if the weights or the files do not fit the model, or if the folder
    already has a checkpoint.
    """
    chosen = _choose_map(analysis, map)
    parameters_ = {p.path: p for p in parameters(analysis.graph)}
    ours = checkpoints.read(weights, parameters_, analysis.maps, None)
    return _export(analysis, chosen, ours, weights, folder, shard_bytes, files, ignore)


def merge(
    base: str | Path,
    adapter: str | Path,
    to: str | Path,
    dtype: str | None = None,
    spec: str | None = None,
    files: str | None = None,
    ignore: Collection[str] = (),
    settings: Mapping[str, Setting] | None = None,
) -> tuple[int, int]:
    """Writes a checkpoint with the weights of `base` and what an adapter adds to them.

    `to` is a new folder, or a .gguf file if `base` is one: it has the metadata of `base`.
    `adapter` is a folder in PEFT's format. `dtype` is that of the weights, and of the
    matrices in a .gguf file; by default it is the base's, and float16 for a base in a .gguf
    file, whose quantization is lost. `files` is that of `export`.

    Returns the numbers of changed weights and of tensors. Raises `ArchError` as
    `from_pretrained` and `export` do, and if the adapter does not fit.
    """
    opened, known, analysis, ours = _open_checkpoint(base, spec, ignore, settings or {})
    low = read_adapter(adapter, analysis.maps, linear_weights(analysis.graph))
    from_gguf, to_gguf = (str(path).endswith(".gguf") for path in (opened.path, to))
    if to_gguf and not from_gguf:
        fail(
            "file",
            f"{to}: only a .gguf file can be merged into a .gguf file",
            expected="a folder",
            found=f"the base `{base}`",
        )
    dtype = dtype or ("float16" if from_gguf else None)
    found = {}
    for path, weight in ours.items():
        # llama.cpp needs vectors in float32.
        kind = dtype if dtype and (len(weight.shape) > 1 or not to_gguf) else weight.dtype
        found[path] = with_low_rank(path, weight, low.get(path), kind)
    if not to_gguf:
        recast = dtype is not None
        chosen, base = _choose_map(analysis, None), str(base)
        count, _ = _export(analysis, chosen, found, base, to, SHARD, files, ignore, recast)
        return len(low), count
    theirs = checkpoints.to_published(analysis.maps[known.title], found)
    copy_gguf(opened.path, to, {**opened.tensors, **theirs})
    return len(low), len(theirs)


def _export(
    analysis: Analysis,
    chosen: WeightMap,
    ours: Mapping[str, LazyTensor],
    weights: str,
    folder: str | Path,
    shard_bytes: int,
    files: str | None,
    ignore: Collection[str],
    recast: bool = False,
) -> tuple[int, int]:
    """Writes weights as a published checkpoint. `weights` is where they come from, and `recast`
    whether they have another dtype there."""
    node = chosen.config
    assert node is not None
    theirs = checkpoints.to_published(chosen, ours)
    place = _folder_of_files(weights, files)
    others, _ = other_files(place) if place else ({}, [])
    original = read_object(others[CONFIG], "a config") if CONFIG in others else None
    if original and files is None and not resolve(weights).is_dir():
        # The import has accepted all fields. It may have read the settings elsewhere: the
        # config.json of CTranslate2 has none.
        ignore = unknown_fields(node, original)
        if not identifies(node, flatten(original)):
            original, ignore = None, ()
    work, env = analysis.elaborator, analysis.env
    if original is None:
        config = write_config(node, work, env)
    else:
        config = keep_fields(
            str(others[CONFIG]), node, analysis.model, work, env, original, theirs, ignore
        )
    _check_round_trip(analysis, node, config, theirs, ignore)
    if recast or files is not None or original is None:
        names = [name for name in ("dtype", "torch_dtype") if name in config]
        config |= dict.fromkeys(names or ["dtype"], common_dtype(ours.values()))
    write_checkpoint(folder, theirs, config, shard_bytes, others)
    return len(theirs), len(others.keys() - {CONFIG})


def _folder_of_files(weights: str, files: str | None) -> Path | None:
    if files is None:
        ways = ", or pass `--files FOLDER`; `--files none` writes only the weights and a config"
        return folder_of(resolve(weights), ways)
    place = resolve(files)
    if files != "none" and not place.is_dir():
        fail("file", f"{files}: the folder is missing", expected="a folder, or none")
    return None if files == "none" else place


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
    path: str | Path,
    spec: str | None = None,
    ignore: Collection[str] = (),
    settings: Mapping[str, Setting] | None = None,
) -> tuple[Checkpoint, Recognised, Analysis]:
    """Returns a checkpoint with the model of its config; the weights are not checked.

    `settings` are parameters of the model that replace those of the config.
    """
    opened, known = _recognise(path, spec, ignore)
    found = [{**each, **(settings or {})} for each in (known.settings, *known.alternatives)]
    several = [_analyse(known, each) for each in found]

    def mismatches(analysis: Analysis) -> int:
        return checkpoints.mismatches(opened.tensors, analysis.maps[known.title])

    # The tensors decide what the config leaves open; the first of equals is taken.
    analysis = min(several, key=mismatches) if len(several) > 1 else several[0]
    return opened, replace(known, settings=found[several.index(analysis)]), analysis


def take_weights(
    path: str | Path, opened: Checkpoint, known: Recognised, analysis: Analysis
) -> dict[str, LazyTensor]:
    """Returns the tensors of a checkpoint as weights of its model; raises `ArchError` unless
    they fit one to one."""
    weights = {p.path: p for p in parameters(analysis.graph)}
    return checkpoints.fit(str(path), opened.tensors, weights, analysis.maps, known.title)


def _open_checkpoint(
    path: str | Path,
    spec: str | None,
    ignore: Collection[str],
    settings: Mapping[str, Setting],
) -> tuple[Checkpoint, Recognised, Analysis, dict[str, LazyTensor]]:
    """Returns a checkpoint, its spec, its model, and its tensors as weights of the model."""
    opened, known, analysis = understand(path, spec, ignore, settings)
    return opened, known, analysis, take_weights(path, opened, known, analysis)


def _analyse(known: Recognised, settings: Mapping[str, Setting]) -> Analysis:
    return analyse(str(known.path), known.model.name.id, dict(settings))


def _check_round_trip(
    analysis: Analysis,
    node: ast.Config,
    config: Mapping[str, object],
    theirs: Mapping[str, LazyTensor],
    ignore: Collection[str],
) -> None:
    """Raises `ArchError` if a written config does not describe the same model when read."""
    model, env = analysis.model, analysis.env
    readings = read_alternatives("the config", node, env.scope, model, config, theirs, ignore)
    found = (bind(model, env, settings) for settings in readings)
    again = min(found, key=lambda each: len(changed_parameters(model, each, env)))
    lost = changed_parameters(model, again, env)
    if lost:
        values = [f"{n} = {format_value(env.names[n])}" for n in lost]
        fail(
            "config",
            f"the published config cannot express {listing(values, 'and')}",
            node.span,
            expected=listing([f"{n} = {format_value(again.names[n])}" for n in lost], "and"),
        )


def _choose_map(analysis: Analysis, map: str | None) -> WeightMap:
    """Returns the weight map for an export: the named one, or the first."""
    maps: Mapping[str, WeightMap] = {
        title: each
        for title, each in analysis.maps.items()
        if each.config and has_config_json(each.config)
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
