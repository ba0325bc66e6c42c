"""Adapters in the format of PEFT, the library of Hugging Face: low-rank matrices alone.

A folder has `adapter_config.json` and `adapter_model.safetensors`. A matrix is named after the
layer of the published model, `base_model.model.LAYER.lora_A.weight`, and a weight map says
which weights of ours belong to the layer. A layer whose weight is several of ours, such as the
queries, keys and values of GPT-2, has one A for all, and a B whose rows are theirs in turn.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.formats import read_checkpoint, resolve, write_safetensors
from archdsl.formats.atomic import replacing
from archdsl.formats.host import LazyTensor
from archdsl.formats.strict_json import read_object
from archdsl.published.conversions import Conversion
from archdsl.published.convert import as_floats
from archdsl.published.low_rank import LowRank
from archdsl.published.weight_maps import Pairing, WeightMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_SIDES = (".lora_A.weight", ".lora_B.weight")
_BY_ROWS = ("split", "halves")  # what may happen to a weight besides a transposition
_SHOWN = 4

# Fields that change nothing of what an adapter computes, beside the matrices of its file.
_FREE = {
    *("auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying"),
    *("eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "layers_pattern"),
    *("layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config"),
    *("megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config"),
    *("target_modules", "task_type"),
}
_READ = {
    *("alpha_pattern", "init_lora_weights", "lora_alpha", "peft_type", "r", "rank_pattern"),
    "use_rslora",
}
_KEPT = (True, False, "gaussian", "eva", "orthogonal")  # initial values that keep the weights


Adapter = Mapping[str, LowRank]  # by the path of the weight


def read_adapter(
    folder: str | Path, maps: Mapping[str, WeightMap], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, LowRank]:
    """Reads an adapter for a model with weights of these shapes, by path.

    Its layers have the names of one of the maps, or the model's own. Raises `ArchError`: `file`
    if a file is missing, `config` for a field that changes what the adapter computes in a way
    that is not known here, `checkpoint` if the matrices do not fit the model.
    """
    place = resolve(str(folder))
    config = read_object(place / CONFIG, "an adapter's config")
    _check_config(place / CONFIG, config)
    layers = _layers(place, read_checkpoint(place / WEIGHTS).tensors)
    known = [*maps.values(), own_map(shapes)]
    places = max(map(_places, known), key=lambda each: len(each.keys() & layers.keys()))
    unknown = [layer for layer in layers if layer not in places]
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        fail(
            "checkpoint",
            f"{place}: the model lacks layers of the adapter",
            expected="layers such as " + listing(list(places)[:3], "and"),
            found=listing(unknown[:_SHOWN], "and") + more,
            help=did_you_mean(unknown[0], places) or "is this the adapter's base model?",
        )
    found: dict[str, LowRank] = {}
    for layer, (a, b) in layers.items():
        low = LowRank(a, b, _scale(config, layer, len(a)))
        found |= _parts(place, layer, places[layer], low, shapes)
    return {path: found[path] for path in shapes if path in found}


def write_adapter(
    folder: str | Path,
    map: WeightMap,
    adapter: Adapter,
    shapes: Mapping[str, tuple[int, ...]],
    base: str | None = None,
    task: str | None = None,
) -> int:
    """Writes an adapter of a model with weights of these shapes; returns the number of layers.

    `base` is the name of the base model, and `task` PEFT's name of its task. Raises `ArchError`
    `weights-map` if a weight belongs to no linear layer of the published model, and `file` if
    the files cannot be written.
    """
    layers, turned = {}, False
    for pairing in map.pairings:
        parts = [adapter.get(path) for path in pairing.ours]
        if any(parts):
            names = _check_layer(map, pairing)
            turned = turned or any(each.name == "transpose" for each in pairing.conversions)
            layers[names] = _joined(pairing, parts, shapes)
    if not layers:
        fail("model", "the model has no adapter", help="add one: `model.add_lora(rank=8)`")
    numbers = [(len(low.a), low.scale) for low in layers.values()]
    rank, scale = max(set(numbers), key=numbers.count)
    other = {
        name: low for name, low in layers.items() if (len(low.a), low.scale) != (rank, scale)
    }
    config = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _plain(scale * rank),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": turned,
        "target_modules": _targets(list(layers), map),
        "rank_pattern": {re.escape(n): len(low.a) for n, low in other.items()},
        "alpha_pattern": {
            re.escape(n): _plain(low.scale * len(low.a)) for n, low in other.items()
        },
        "modules_to_save": None,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }
    tensors = {
        f"{_PREFIX}{name}{side}": value
        for name, low in layers.items()
        for side, value in zip(_SIDES, (low.a, low.b), strict=True)
    }
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail("file", f"{place}: cannot create the folder: {error.strerror}", cause=error)
    write_safetensors(place / WEIGHTS, tensors, {"format": "pt"})
    with replacing(place / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return len(layers)


def own_map(shapes: Mapping[str, tuple[int, ...]]) -> WeightMap:
    """The model's own names, as a map."""
    return WeightMap("", tuple(Pairing((p,), ((p,),), (), (s,)) for p, s in shapes.items()))


# -- layers --


def _places(map: WeightMap) -> dict[str, Pairing]:
    """The layers of a map that have a weight of their own, under all of their names."""
    found = {}
    for pairing in map.pairings:
        for names in pairing.theirs:
            if len(names) == 1 and names[0].endswith(".weight"):
                layer = names[0].removesuffix(".weight")
                found[layer] = pairing
                for prefix in map.optional:
                    if layer.startswith(prefix):
                        found.setdefault(layer.removeprefix(prefix), pairing)
    return found


def _check_layer(map: WeightMap, pairing: Pairing) -> str:
    """The name of a layer of the published model; fails if it is not a linear layer alone."""
    names = pairing.theirs[0]
    rows = _row_conversions(pairing)
    if len(names) != 1 or not names[0].endswith(".weight") or rows is None:
        fail(
            "weights-map",
            f"PEFT cannot adapt `{names[0]}`",
            expected="weights that are those of a linear layer in the published model",
            found=f"`{pairing.ours[0]}` in `weights {map.title!r}`",
            help="choose targets without it",
        )
    return names[0].removesuffix(".weight")


def _row_conversions(pairing: Pairing) -> list[Conversion] | None:
    """The conversions of the rows of a weight [out, in], without transpositions; None if there
    are others."""
    rows = [each for each in pairing.conversions if each.name != "transpose"]
    return rows if all(each.name in _BY_ROWS for each in rows) else None


def _parts(
    place: Path,
    layer: str,
    pairing: Pairing,
    low: LowRank,
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[str, LowRank]]:
    """What a layer of an adapter adds to each of our weights."""
    sizes = [shapes[path] for path in pairing.ours if path in shapes]
    rows = _row_conversions(pairing) if len(sizes) == len(pairing.ours) else None
    wanted = (sum(size[0] for size in sizes), sizes[0][1]) if rows is not None else None
    if rows is None or (len(low.b), low.a.shape[1]) != wanted:
        fail(
            "checkpoint",
            f"{place}: the adapter of `{layer}` does not fit the model",
            expected=f"matrices [rank, {wanted[1]}] and [{wanted[0]}, rank]"
            if wanted
            else "an adapter of a linear layer",
            found=f"{list(low.a.shape)} and {list(low.b.shape)}",
        )
    ours = [low.b]
    after = tuple((size[0], len(low.a)) for size in sizes)
    for each, shape in zip(rows, _stages(rows, after)[1:], strict=True):
        ours = each.apply(ours, shape)
    for path, part in zip(pairing.ours, ours, strict=True):
        if len(ours) == 1 or not low.b.any():
            yield path, LowRank(low.a, part, low.scale)
        elif part.any():
            used = part.any(0)  # the columns of this weight; A has rows for others too
            yield path, LowRank(low.a[used], part[:, used], low.scale)


def _joined(
    pairing: Pairing, parts: Sequence[LowRank | None], shapes: Mapping[str, tuple[int, ...]]
) -> LowRank:
    """What an adapter adds to a layer of the published model."""
    import numpy as np

    present = [each for each in parts if each is not None]
    scale, rank = present[0].scale, sum(len(each.a) for each in present)
    ours, start = [], 0
    for path, each in zip(pairing.ours, parts, strict=True):
        rows = np.zeros((shapes[path][0], rank), np.float32)
        if each is not None:
            end = start + len(each.a)
            rows[:, start:end] = each.b * np.float32(each.scale / scale)
            start = end
        ours.append(rows)
    conversions = _row_conversions(pairing) or []
    stages = _stages(conversions, tuple(each.shape for each in ours))
    for conversion, before in zip(reversed(conversions), reversed(stages[:-1]), strict=True):
        ours = conversion.undo(ours, before)
    return LowRank(np.concatenate([each.a for each in present]), ours[0], scale)


def _stages(conversions: Sequence[Conversion], after: tuple[Any, ...]) -> list[Any]:
    """The shapes before the first conversion, between conversions, and after the last."""
    found = [after]
    for each in reversed(conversions):
        found.insert(0, each.before(found[0], 1))
    return found


def _targets(layers: Sequence[str], map: WeightMap) -> list[str]:
    """PEFT's `target_modules`: the last parts of the names, if no other layer has these."""
    every = [names[0].removesuffix(".weight") for names in (p.theirs[0] for p in map.pairings)]
    adapted = set(layers)
    others = {layer.rpartition(".")[2] for layer in every if layer not in adapted}
    last = (layer.rpartition(".")[2] for layer in layers)
    short = (
        name if name not in others else layer for name, layer in zip(last, layers, strict=True)
    )
    return sorted(set(short))


# -- files --


def _layers(
    place: Path, tensors: Mapping[str, LazyTensor]
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """A and B of each layer, float32, by the name of the layer."""
    found: dict[str, list[NDArray[Any] | None]] = {}
    wrong = []
    for name, tensor in tensors.items():
        side = next((i for i, end in enumerate(_SIDES) if name.endswith(end)), None)
        if side is None or not name.startswith(_PREFIX) or len(tensor.shape) != 2:
            wrong.append(name)
            continue
        layer = name.removeprefix(_PREFIX).removesuffix(_SIDES[side])
        found.setdefault(layer, [None, None])[side] = as_floats(tensor).read()
    wrong += [layer for layer, pair in found.items() if any(each is None for each in pair)]
    pairs = {
        layer: (a, b) for layer, (a, b) in found.items() if a is not None and b is not None
    }
    wrong += [layer for layer, (a, b) in pairs.items() if len(a) != b.shape[1]]
    if wrong or not pairs:
        fail(
            "checkpoint",
            f"{place / WEIGHTS}: these are not the low-rank matrices of linear layers",
            expected=f"pairs such as `{_PREFIX}LAYER{_SIDES[0]}` [rank, in] and "
            f"`{_PREFIX}LAYER{_SIDES[1]}` [out, rank]",
            found=listing(wrong[:_SHOWN], "and") or "no tensors",
        )
    return pairs


def _scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """alpha / rank of a layer, or alpha / sqrt(rank) (Kalajdzievski 2023)."""
    patterns = config.get("alpha_pattern") or {}
    own = (alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", layer))
    alpha = next(own, config["lora_alpha"])
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    def refuse(message: str, value: object, expected: str, help: str | None = None) -> NoReturn:
        found = f"{value!r:.80}"
        fail("config", f"{path}: {message}", expected=expected, found=found, help=help)

    kind = config.get("peft_type")
    if kind != "LORA":
        refuse("this kind of adapter is not known", kind, "`LORA`")
    numbers = {"lora_alpha": config.get("lora_alpha")}
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        refuse("`alpha_pattern` is not valid", patterns, "an object")
    for name, value in {**numbers, **patterns}.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            refuse(f"`{name}` is not valid", value, "a number")
    start = config.get("init_lora_weights", True)
    if not any(start is each or start == each for each in _KEPT):
        refuse(
            "the adapter belongs to other weights than the base model's",
            start,
            "`init_lora_weights` true",
            "PEFT's `save_pretrained` converts it: `path_initial_model_for_weight_conversion`",
        )
    for name, value in config.items():
        if name not in _FREE | _READ and value not in (None, False, "none", {}, []):
            refuse(
                f"the field `{name}` is not known, and the adapter may depend on it",
                value,
                "an adapter of low-rank matrices alone",
            )


def _plain(number: float) -> int | float:
    """A number as PEFT writes it: 16, not 16.0."""
    return int(number) if float(number).is_integer() else float(number)
