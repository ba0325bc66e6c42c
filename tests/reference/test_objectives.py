"""The losses of published models and all their gradients are those of transformers.

Gradients are compared by the names of the specs: those of transformers are saved in the place
of its weights, and read like a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor

import archdsl

pytestmark = [pytest.mark.reference("torch", "transformers"), pytest.mark.slow]

TOLERANCE = 1e-5  # of the loss
# Of a gradient's largest number, and of the largest of all. A key's bias moves all scores of a
# query alike, so its gradient is rounding alone.
GRADIENT, ROUNDING = 1e-4, 1e-6
B, T, VOCAB = 3, 7, 31
BERT = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
}
TOWER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
IMAGE = {**TOWER, "image_size": 12, "patch_size": 4}
TEXT = {**TOWER, "vocab_size": VOCAB, "max_position_embeddings": T}

Arrays = dict[str, NDArray[Any]]
# The model of transformers, what it gets, and what ours gets.
Objective = tuple[Any, dict[str, Any], Arrays]


def tokens(random: np.random.Generator) -> NDArray[Any]:
    """Rows whose last token is the largest: CLIP reads its vector."""
    found = random.integers(3, VOCAB - 1, (B, T))
    found[:, -1] = VOCAB - 1
    return found


def next_token(random: np.random.Generator) -> Objective:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    given = tokens(random)
    model = LlamaForCausalLM(LlamaConfig(**BERT, num_key_value_heads=1))
    known = torch.from_numpy(given)
    return model, {"input_ids": known, "labels": known}, {"tokens": given}


def teacher_forcing(random: np.random.Generator) -> Objective:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    source, answer = tokens(random), tokens(random)[:, 2:].copy()
    source[1, 4:] = 0
    config = T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    theirs = {
        "input_ids": source,
        "attention_mask": (source != 0).astype(int),
        "labels": answer,
    }
    target = np.concatenate([np.zeros((B, 1), int), answer], 1)
    return (
        T5ForConditionalGeneration(config),
        {name: torch.from_numpy(each) for name, each in theirs.items()},
        {"source": source, "target": target},
    )


def masked_tokens(random: np.random.Generator) -> Objective:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    given, targets = tokens(random), tokens(random)
    given[0, 5:] = 0
    masked = random.random(given.shape) < 0.5
    labels = np.where(masked & (given != 0), targets, -100)
    theirs = {"input_ids": given, "attention_mask": (given != 0).astype(int), "labels": labels}
    return (
        BertForMaskedLM(BertConfig(**BERT)),
        {name: torch.from_numpy(each) for name, each in theirs.items()},
        {"tokens": given, "targets": targets, "masked": masked},
    )


def classes(random: np.random.Generator) -> Objective:
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    pixels = random.standard_normal((B, 3, 12, 12)).astype(np.float32)
    label = np.array([4, 0, 2])
    model = ViTForImageClassification(ViTConfig(**IMAGE, num_labels=5))
    theirs = {"pixel_values": torch.from_numpy(pixels), "labels": torch.from_numpy(label)}
    return model, theirs, {"pixels": pixels, "label": label}


def pairs(random: np.random.Generator, name: str) -> Objective:
    """CLIP or SigLIP."""
    import torch
    import transformers

    config: Any = getattr(transformers, f"{name}Config")
    sizes = {"eos_token_id": VOCAB - 1, "bos_token_id": 1, "pad_token_id": 0}
    shared = {"projection_dim": 16} if name == "CLIP" else {}
    model = getattr(transformers, f"{name}Model")(
        config(text_config={**TEXT, **sizes, **shared}, vision_config=IMAGE | shared, **shared)
    )
    pixels, given = random.standard_normal((B, 3, 12, 12)).astype(np.float32), tokens(random)
    theirs = {"pixel_values": torch.from_numpy(pixels), "input_ids": torch.from_numpy(given)}
    return model, {**theirs, "return_loss": True}, {"pixels": pixels, "tokens": given}


OBJECTIVES: dict[str, Callable[[np.random.Generator], Objective]] = {
    "next token": next_token,
    "teacher forcing": teacher_forcing,
    "masked tokens": masked_tokens,
    "classes": classes,
    "contrastive": lambda random: pairs(random, "CLIP"),
    "contrastive, sigmoid": lambda random: pairs(random, "Siglip"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_and_its_gradients(name: str, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    theirs, asked, given = OBJECTIVES[name](np.random.default_rng(3))
    theirs.eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    theirs.save_pretrained(tmp_path / "weights")
    expected = theirs(**asked).loss
    expected.backward()
    for weight in theirs.parameters():
        weight.data = torch.zeros_like(weight) if weight.grad is None else weight.grad
    theirs.save_pretrained(tmp_path / "gradients")

    ours = archdsl.from_pretrained(tmp_path / "weights", device="CPU")
    right = archdsl.from_pretrained(tmp_path / "gradients", device="CPU").parameters
    loss = ours.loss(**given)
    loss.backward()
    found: Any = {
        path: weight.grad for path, weight in ours.parameters.items() if weight.grad is not None
    }
    Tensor.realize(loss, *found.values())
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
    largest = max(float(np.abs(each.numpy()).max()) for each in right.values())
    assert largest > 0.1
    for path, each in right.items():
        exact = each.numpy()
        gradient = found[path].numpy() if path in found else np.zeros_like(exact)
        distance = float(np.abs(gradient - exact).max())
        assert distance <= GRADIENT * float(np.abs(exact).max()) + ROUNDING * largest, path
