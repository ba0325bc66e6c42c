"""Whether a device computes what the CPU does: models of odd sizes, their inputs, the right
results and the allowed differences. tests/backend/test_devices.py uses the same.

The reference is the CPU in float32 without the JIT, for the whole sequence at once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import archdsl
from archdsl.graph.nodes import Input
from archdsl.model import Model
from archdsl.passes.split_decoding import find_tokens_and_logits, split_decoding

Inputs = dict[str, NDArray[Any]]
Logits = NDArray[np.float32]

# The largest difference, as a part of the largest logit or gradient.
TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 5e-2}

# No size fills a tensor core; models of one size share most of their kernels.
_SIZES = {"D": 36, "heads": 4, "depth": 2}
_TOKENS = {"vocab": 59, "context": 20, **_SIZES}
MODELS: dict[str, dict[str, Any]] = {
    "gpt.arch": _TOKENS,
    "vit.arch": {"image": 16, "patch": 4, "classes": 10, **_SIZES},
    "transformer.arch": _TOKENS,
    "bert.arch:BertMaskedLM": {"inner": 68, **_TOKENS},
    "t5.arch": {"size": 9, "inner": 68, **_TOKENS},
    "whisper.arch": {"bins": 5, "length": 21, "pad_id": 0, "inner": 68, **_TOKENS},
    # Grouped queries: three heads share a key head.
    "llama.arch": {**_TOKENS, "D": 60, "heads": 6, "kv_heads": 2, "inner": 68},
}
LENGTHS = {"S": (11, 6, 1), "T": (17, 2, 9)}  # of padded rows; of the others the largest
PROMPT = 9  # tokens of a prompt; the others are fed one by one


def described(spec: str, **options: Any) -> Model:
    """The model of a spec in its size."""
    return archdsl.compile(spec, **MODELS[spec], **options)


def save_weights(spec: str, folder: Path) -> Path:
    """A file of weights so large that attention is not near uniform."""
    random = np.random.default_rng(7)
    arrays = {}
    for path, each in described(spec).weights.items():
        drawn = 0.2 * random.standard_normal(each.weight.shape)
        arrays[path] = ((each.weight.init == "ones") + drawn).astype(np.float32)
    file = folder / f"{spec.replace(':', '.')}.npz"
    np.savez(file, **arrays)
    return file


@functools.cache
def batches(spec: str) -> tuple[Inputs, ...]:
    """Three batches of one shape, for the three ways in which a JIT runs: plain, captured
    and replayed."""
    random = np.random.default_rng(11)
    graph = described(spec).graph
    rows = len(LENGTHS["T"])
    sizes = {name: max(lengths) for name, lengths in LENGTHS.items()}

    def values(each: Input) -> NDArray[Any]:
        shape = (rows, *(axis.size.at(sizes) for axis in each.type.axes))
        if each.type.dtype == "float":
            return random.random(shape, np.float32)
        below = each.type.below or 2
        drawn = random.integers(min(2, below - 1), below, shape)
        if each.pad is not None:
            lengths = np.array(LENGTHS[str(each.type.axes[0].size)])
            drawn[np.arange(shape[1]) >= lengths[:, None]] = each.pad
        return drawn

    return tuple({each.name: values(each) for each in graph.inputs} for _ in range(3))


def labels(spec: str) -> Inputs:
    """Values of the inputs that only training has."""
    rows = len(LENGTHS["T"])
    return {
        label.name: np.arange(rows) % (label.type.below or 1)
        for label in described(spec).graph.labels
    }


def logits(model: Model, inputs: Inputs) -> Logits:
    values: Logits = model(**inputs)["logits"].numpy()
    return values


def is_stepped(spec: str) -> bool:
    """Whether a model predicts its next token."""
    return not isinstance(find_tokens_and_logits(described(spec).graph), str)


def stepped_logits(model: Model, inputs: Inputs) -> Logits:
    """The logits of the last position of a prompt, and of those after it, token by token."""
    tokens = split_decoding(model.graph).tokens
    target = inputs[tokens]
    decoder = model.decoder(len(target))
    decoder.begin(**{name: array for name, array in inputs.items() if name != tokens})
    found = [decoder.prefill(target[:, :PROMPT].tolist())]
    found += [decoder.feed(column[:, None])[:, -1] for column in target.T[PROMPT:]]
    return np.stack(found, axis=1)


def reference(spec: str, weights: Path) -> list[Logits]:
    """The logits of a spec's batches on the CPU."""
    from tinygrad.helpers import Context

    model = described(spec, device="CPU")
    model.load(weights)
    with Context(JIT=0):  # type: ignore[no-untyped-call]
        return [logits(model, inputs) for inputs in batches(spec)]


def difference(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The largest difference, as a part of the largest wanted number; NaN if any is NaN."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def whole_errors(model: Model, spec: str, wanted: Sequence[Logits]) -> list[float]:
    """The difference of each batch, for whole sequences."""
    return [
        difference(logits(model, inputs), right)
        for inputs, right in zip(batches(spec), wanted, strict=True)
    ]


def stepped_error(model: Model, spec: str, wanted: Sequence[Logits]) -> float:
    """The difference of the first batch, step by step."""
    return difference(stepped_logits(model, batches(spec)[0]), wanted[0][:, PROMPT - 1 :])


def gradients(spec: str, weights: Path, device: str, dtype: str) -> Inputs:
    """The loss of the first batch, and its gradient for each weight, in float32."""
    model = described(spec, device=device, dtype=dtype)
    model.load(weights)
    loss = model.loss(**batches(spec)[0], **labels(spec))
    learnt = dict(model.parameters)
    slopes = loss.gradient(*learnt.values())
    found = {"loss": loss, **dict(zip(learnt, slopes, strict=True))}
    return {name: each.cast("float32").numpy() for name, each in found.items()}


def gradient_error(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """The largest difference of a loss and of the gradients, as a part of the loss and of the
    largest gradient."""
    largest = max(np.abs(each).max() for name, each in wanted.items() if name != "loss")
    errors = [
        float(
            np.abs(found[name] - right).max() / (np.abs(right) if name == "loss" else largest)
        )
        for name, right in wanted.items()
    ]
    return max(errors, key=lambda error: np.inf if np.isnan(error) else error)
