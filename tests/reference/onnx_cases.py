"""Operator cases of the `onnx` package as small models of ours, or the reason why not.

A case is one node with inputs and the output to expect. `written(case)` gives the spec, the
weights and the inputs that say the same in our language:

- a batch axis of one stands before the axes of a case of softmax, gelu or a norm; a norm over
  several axes is one over their product, by `reshape`;
- queries, keys and values of attention are features of its inputs, and its projections are
  matrices of zeros and ones that select them. The queries of causal attention stand at their
  places in the sequence of the keys, so it attends to itself; else the keys and values are a
  memory. Keys that are not there make the sequence ragged.
- a case with a window, or a mask of finite numbers, is said by `attend`, whose bias it is.
- a rotation's tables of cosines and sines are ours to compute, so `turned(case)` gives those
  that are to stand in their place.

Only the first output is compared: ours return no means, scores or caches.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx", reason="onnx is not installed; CONTRIBUTING.md says how")

Array = NDArray[Any]

FAMILY = re.compile(
    r"test_(softmax|gelu|layer_normalization|rms_normalization|attention|rotary_embedding)(?:_|$)"
)

EXPANDED = "the same case again, its operator written out in others"
MASK = "a mask given as data, of what is not seen: ours follow from the types"
SOFTCAP = "scores bounded by a tanh"
WINDOW = "a window of positions on both sides"
NO_KEYS = "queries before the first key, which see nothing"
NO_MORE_KEYS = "queries behind the last key"

AXES = "IJKL"


@dataclass(frozen=True)
class Case:
    """One case: `inputs` by the operator's names, and the first output as we lay it out."""

    name: str
    family: str
    attr: Mapping[str, Any]
    inputs: Mapping[str, Array]
    expected: Array


@dataclass(frozen=True)
class Program:
    """A case in our language: a spec, its weights and inputs, and where its output stands."""

    spec: str
    weights: Mapping[str, Array]
    inputs: Mapping[str, Array]
    dtype: str
    result: Callable[[Array], Array]


def cases() -> list[Case]:
    """All cases of our operators, in onnx's order."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of numpy, in onnx's own computing
        every = collect_testcases(None)
    return [_case(c, match[1]) for c in every if (match := FAMILY.match(c.name))]


def left_out(case: Case) -> str | None:
    """Why our operators cannot say a case, or None where they can."""
    mask = case.inputs.get("attn_mask")
    keys = case.inputs.get("nonpad_kv_seqlen")
    if "_expanded" in case.name:
        return EXPANDED
    if case.attr.get("softcap"):
        return SOFTCAP
    if case.attr.get("right_window_size", -1) != -1:
        return WINDOW
    if mask is not None and not (mask.all() if mask.dtype == bool else np.isfinite(mask).all()):
        return MASK
    if keys is not None and (keys < case.inputs["Q"].shape[-2]).any():
        return NO_KEYS
    if _past(case) and case.inputs["Q"].shape[-2] > case.inputs["K"].shape[-2]:
        return NO_MORE_KEYS
    return None


def written(case: Case) -> Program:
    """A case that is not left out, in our language."""
    if case.family != "attention":
        return _simple(case)
    mask = case.inputs.get("attn_mask")
    plain = "left_window_size" not in case.attr and (mask is None or mask.dtype == bool)
    return _attention(case) if plain else _attend(case)


def _case(case: Any, family: str) -> Case:
    node = case.model.graph.node[0]
    attr = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    given, expected = case.data_sets[0]
    names = [name for name in node.input if name]
    if "_expanded" in case.name:
        names = [value.name for value in case.model.graph.input]
    output = _features(expected[0]) if family == "attention" else expected[0]
    return Case(case.name, family, attr, dict(zip(names, given, strict=True)), _plain(output))


# -- softmax, gelu and norms --


def _simple(case: Case) -> Program:
    x, *weights = case.inputs.values()
    axes = AXES[: x.ndim]
    axis = case.attr.get("axis", -1) % x.ndim
    kept, merged = " ".join(axes[:axis]), " ".join(axes[axis:])
    apply = {"softmax": f"softmax({axes[axis]})", "gelu": "gelu"}.get(case.family, "")
    if case.attr.get("approximate") == b"tanh":
        apply = "gelu_tanh"
    if case.family.endswith("normalization"):
        kind = case.family.split("_")[0]
        apply = f"norm({kind}, eps = {case.attr.get('epsilon', 1e-5):.9f})"
        if axis < x.ndim - 1:
            sizes = ", ".join(f"{name} = {name}" for name in axes[axis:])
            many, one = " ".join(axes), f"{kept} ({merged})"
            back = f'reshape("{one} -> {many}", {sizes})'
            apply = f'reshape("{many} -> {one}") -> {apply} -> {back}'
    params = ", ".join(f"{name} = {size}" for name, size in zip(axes, x.shape, strict=True))
    type = f"float[{', '.join(axes)}]"
    return Program(
        f"model Case({params}) {{ input x: {type} output y: {type} = x -> {apply} }}",
        {f"norm.{n}": w.ravel() for n, w in zip(("weight", "bias"), weights, strict=False)},
        {"x": x[None]},
        "float32",
        lambda y: y[0],
    )


# -- attention --


def _heads(case: Case) -> tuple[int, int]:
    """How many heads the queries have, and the keys."""
    q, kv = (
        case.attr.get(f"{which}_num_heads", case.inputs[name].shape[1])
        for which, name in (("q", "Q"), ("kv", "K"))
    )
    return q, kv


def _past(case: Case) -> int:
    """How many keys stand before the first query of a case that has such."""
    return case.inputs["past_key"].shape[2] if "past_key" in case.inputs else 0


def _sequences(case: Case) -> tuple[Array, Array, Array, Array]:
    """Queries, keys and values, each [B, n, features], and `rows`: query t of example b stands
    at position `rows[b, t]`."""
    q, k, v = (_features(case.inputs[name]) for name in "QKV")
    if "past_key" in case.inputs:
        k = np.concatenate([_features(case.inputs["past_key"]), k], axis=1)
        v = np.concatenate([_features(case.inputs["past_value"]), v], axis=1)
    batch, T, _ = q.shape
    # The last query stands before these positions.
    ends = case.inputs.get("nonpad_kv_seqlen", np.full(batch, _past(case) + T))
    causal = case.attr.get("is_causal", 0) == 1
    return q, k, v, np.arange(T) + (ends - T if causal else 0 * ends)[:, None]


def _attention(case: Case) -> Program:
    heads, kv_heads = _heads(case)
    q, k, v, rows = _sequences(case)
    (batch, T, _), S = q.shape, k.shape[1]
    sizes = q.shape[2] // heads, v.shape[2] // kv_heads
    causal = case.attr.get("is_causal", 0) == 1
    there = case.inputs.get("nonpad_kv_seqlen")
    width = max(q.shape[2], heads * sizes[1])  # of what goes in, and of what comes out
    alone = causal or T == S
    x = np.zeros((batch, S if alone else T, width))
    x[np.arange(batch)[:, None], rows, : q.shape[2]] = q
    memory = np.concatenate([k, v], axis=2)
    inputs = {"x": np.concatenate([x, memory], axis=2)} if alone else {"x": x, "memory": memory}
    if there is not None:
        inputs["there"] = (np.arange(S) < there[:, None]).astype(int)

    inner, over = (inputs[name].shape[2] for name in ("x", "x" if alone else "memory"))
    size, keys = max(sizes), over - memory.shape[2]
    selections = {
        "q": _select(heads, size, sizes[0], 0, inner),
        "k": _select(kv_heads, size, sizes[0], keys, over),
        "v": _select(kv_heads, size, sizes[1], keys + k.shape[2], over),
        "out": _select(heads, size, sizes[1], 0, inner).T,
    }
    options = [f"{heads}", f"kv_heads = {kv_heads}", f"head_size = {size}", "bias = false"]
    options += [f"scale = {case.attr.get('scale', sizes[0] ** -0.5):.9f}"]
    options += ["causal"] * causal + ["over = memory"] * (not alone)
    return Program(
        _attention_spec(inputs, ", ".join(options)),
        {f"attention.{name}.weight": matrix for name, matrix in selections.items()},
        {name: _plain(array) for name, array in inputs.items()},
        str(q.dtype),
        lambda y: y[np.arange(batch)[:, None], rows, : heads * sizes[1]],
    )


def _attention_spec(inputs: Mapping[str, Array], options: str) -> str:
    T, D = inputs["x"].shape[1:]
    lines = [f"input x: float[T <= {T}, {D}]"]
    if "memory" in inputs:
        S, E = inputs["memory"].shape[1:]
        lines.append(f"input memory: float[S <= {S}, {E}]")
    if "there" in inputs:
        lines.append("input there: int[T] < 2 pad 0")
    lines.append(f"output y: float[T, {D}] = x -> attention({options})")
    return "model Case() {\n" + "\n".join(lines) + "\n}"


def _attend(case: Case) -> Program:
    heads, kv_heads = _heads(case)
    q, k, v, rows = _sequences(case)
    (batch, T, _), S = q.shape, k.shape[1]
    q, k, v = (
        q.reshape(batch, T, heads, -1),
        *(x.reshape(batch, S, kv_heads, -1) for x in (k, v)),
    )
    each = np.arange(batch)[:, None]
    alone = case.attr.get("is_causal", 0) == 1
    x = np.zeros((batch, S if alone else T, *q.shape[2:]))
    x[each, rows] = q
    bias = np.zeros((*x.shape[:2], heads, S))  # [B, T, H, S]
    mask = case.inputs.get("attn_mask", np.zeros((1, 1), np.float32))
    if mask.dtype != bool:
        shape = (batch, heads, T, S if mask.shape[-1] == 1 else mask.shape[-1])
        bias[each, rows, :, : shape[3]] = np.broadcast_to(mask, shape).swapaxes(1, 2)
    inputs = {"q": x, "k": k, "v": v, "bias": bias.swapaxes(1, 2)}
    there = case.inputs.get("nonpad_kv_seqlen")
    if there is not None:
        inputs["there"] = (np.arange(S) < there[:, None]).astype(int)

    keys = "T" if alone else "S"
    lines = [f"input q: float[T <= {x.shape[1]}, {heads}, {q.shape[3]}]"]
    lines += [f"input k: float[{keys}{'' if alone else f' <= {S}'}, {kv_heads}, {k.shape[3]}]"]
    lines += [f"input v: float[{keys}, {kv_heads}, {v.shape[3]}]"]
    lines += [f"input bias: float[{heads}, T, {keys}]"]
    lines += [f"input there: int[{keys}] < 2 pad 0"] * (there is not None)
    options = ["bias = bias"] + ["causal"] * alone
    options += [f"scale = {case.attr.get('scale', q.shape[3] ** -0.5):.9f}"]
    if (left := case.attr.get("left_window_size", -1)) >= 0:
        options += [f"window = {left + 1}"]
    attend = f"attend(q, k, v, {', '.join(options)})"
    lines += [f"output y: float[T, {heads}, {v.shape[3]}] = {attend}"]
    return Program(
        "model Case() {\n" + "\n".join(lines) + "\n}",
        {},
        {name: _plain(array) for name, array in inputs.items()},
        str(case.inputs["Q"].dtype),
        lambda y: y[each, rows].reshape(batch, T, -1),
    )


# -- rotations --


def turned(case: Case) -> list[tuple[Program, Array, Array]]:
    """Each example of a case of a rotation with its table [2, T, size / 2] and its output."""
    x, expected = (_by_heads(case, array) for array in (case.inputs["input"], case.expected))
    cos, sin = case.inputs["cos_cache"], case.inputs["sin_cache"]
    if (positions := case.inputs.get("position_ids")) is not None:
        cos, sin = cos[positions], sin[positions]  # [B, T, size / 2] each
    _, T, heads, h = x.shape
    layout = "pairs" if case.attr.get("interleaved") else "halves"
    size = 2 * cos.shape[-1]
    spec = f"""model Case() {{
      input x: float[{T}, {heads}, {h}]
      output y: float[{T}, {heads}, {h}] = x -> rotary({layout}, size = {size})
    }}"""
    return [
        (
            Program(spec, {}, {"x": x[i : i + 1]}, "float32", lambda y: y[0]),
            np.stack([cos[i], sin[i]]),
            expected[i],
        )
        for i in range(len(x))
    ]


def _by_heads(case: Case, x: Array) -> Array:
    """[B, T, H, h] of a case's [B, H, T, h] or [B, T, H h]."""
    if x.ndim == 4:
        return x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], case.attr["num_heads"], -1)


def _features(x: Array) -> Array:
    """[B, T, H h] of a case's [B, H, T, h], or of what has that shape already."""
    return x if x.ndim == 3 else x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _select(groups: int, size: int, given: int, start: int, width: int) -> Array:
    """[groups size, width]: takes `given` features for each group, from `start` on."""
    matrix = np.zeros((groups * size, width), np.float32)
    for group in range(groups):
        for i in range(given):
            matrix[group * size + i, start + group * given + i] = 1
    return matrix


def _plain(array: Array) -> Array:
    """Without bfloat16, which NumPy itself has not."""
    return array if array.dtype.kind == "i" else array.astype(np.float32)
