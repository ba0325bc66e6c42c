"""Compares a variant with transformers, and says how far apart they are, or why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import archdsl
from archdsl.diagnostics import ArchError
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.variants.fields import Variant, put, small, transformers
from tests.reference.variants.outputs import Array, arguments, inputs, outputs

EQUAL, REFUSED, NOT_THEIRS, DIFFERENT = "equal", "refused", "not theirs", "different"


class Result(NamedTuple):
    """`kind` is one of the words above; `found` is the difference, or the reason."""

    kind: str
    found: str


def compare(variant: Variant, folder: Path) -> Result:
    """Saves a variant with transformers, and compares what both libraries load."""
    try:
        theirs = saved(variant, folder)
        given = arguments(theirs)
        right = outputs(theirs, given)
    except Exception as error:  # whatever transformers raises: it cannot compute this variant
        return Result(NOT_THEIRS, f"{type(error).__name__}: {_line(str(error))}")
    if not all(np.isfinite(each).all() for each in right.values()):
        return Result(NOT_THEIRS, "not all numbers are finite")
    try:
        ours = archdsl.from_pretrained(folder, device="CPU")
        names = {each.name for each in ours.graph.inputs}
        found = ours(**{n: v for n, v in inputs(theirs, given).items() if n in names})
    except ArchError as error:
        messages = [each.message.replace(str(folder), "") for each in error.diagnostics]
        return Result(REFUSED, "; ".join(_line(text).lstrip("/: ") for text in messages))
    except Exception as error:
        return Result(DIFFERENT, f"{type(error).__name__}: {_line(str(error))}")
    return agreement({n: each.numpy() for n, each in found.items()}, right, given)


def agreement(ours: dict[str, Array], right: dict[str, Array], given: dict[str, Any]) -> Result:
    """Compares all outputs, at positions that are not padded."""
    if more := sorted(ours.keys() - right.keys()):
        return Result(DIFFERENT, f"transformers has no {', '.join(more)}")
    heads = [name for name in right if "logits" in name]
    if heads and not any(name in ours for name in heads):
        return Result(DIFFERENT, f"no {' or '.join(heads)}")
    mask = given["attention_mask"].numpy() > 0 if "attention_mask" in given else None
    worst = 0.0
    for name, found in ours.items():
        theirs = right[name]
        if found.shape != theirs.shape:
            return Result(DIFFERENT, f"{name} is {found.shape}, not {theirs.shape}")
        if not np.isfinite(found).all():
            return Result(DIFFERENT, f"{name} is not finite")
        if mask is not None and found.shape[:2] == mask.shape and name in _PADDED:
            found, theirs = found[mask], theirs[mask]
        worst = max(worst, apart(found, theirs))
    return Result(EQUAL if worst <= TOLERANCE else DIFFERENT, f"{worst:.0e}")


_PADDED = ("hidden", "memory", "logits", "token_logits", "span_logits")


def saved(variant: Variant, folder: Path) -> Any:
    """The model as transformers loads it again; the folder is left for archdsl."""
    import torch

    made = getattr(transformers, variant.model)
    model = eager(made(small(variant.family, variant.change)))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not weight.requires_grad:  # positions that are not learned
                continue
            noise = torch.randn(weight.shape, generator=random)
            spread = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.3
            centre = 1.0 if weight.ndim == 1 and name.endswith("weight") else 0.0
            weight.copy_(centre + spread * noise)
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_(generator=random)
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for field, value in variant.written.items():
        put(config, field, value)
    path.write_text(json.dumps(config), encoding="utf-8")
    loaded, how = made.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    for kind in ("missing_keys", "mismatched_keys"):
        if how[kind]:
            raise ValueError(f"{kind}: {sorted(map(str, how[kind]))[0]}")
    return eager(loaded).eval()


def eager(model: Any) -> Any:
    if "Mixtral" in type(model).__name__:
        model.set_experts_implementation("eager")  # the other one needs multiples of four
    return model


def _line(text: str) -> str:
    """A message in one line, not too long."""
    return " ".join(text.replace("|", "/").split())[:120]
