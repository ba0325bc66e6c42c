"""Encoders of sound: AST, beside transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.reference.families import Family, Reference
from tests.reference.families.encoders import ACTIVATIONS, drawn, widths

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)


def save_ast(folder: Path, seed: int) -> Reference:
    random = np.random.default_rng(seed)
    patch, stride = int(random.integers(3, 7)), int(random.integers(2, 5))
    frames, mels = (int(n) for n in random.integers(12, 24, 2))
    config = transformers.ASTConfig(
        **widths(random),
        patch_size=patch,
        time_stride=stride,
        frequency_stride=stride,
        max_length=frames,
        num_mel_bins=mels,
        num_labels=int(random.integers(2, 9)),
        hidden_act=str(random.choice(ACTIVATIONS)),
        qkv_bias=bool(random.integers(2)),
        layer_norm_eps=float(random.choice([1e-12, 1e-6])),
    )
    bare = seed == 2
    kind = transformers.ASTModel if bare else transformers.ASTForAudioClassification
    theirs = drawn(kind(config), seed)
    theirs.save_pretrained(folder)
    mel = random.standard_normal((2, frames, mels), np.float32)
    with torch.no_grad():
        found = theirs(torch.from_numpy(mel), output_hidden_states=not bare)
    if bare:
        outputs = {"hidden": found.last_hidden_state, "pooled": found.pooler_output}
    else:
        outputs = {"logits": found.logits}
    return Reference({"mel": mel}, {name: each.numpy() for name, each in outputs.items()})


FAMILIES = (Family("ast", "ast.arch", "transformers ASTForAudioClassification", save_ast),)
