"""DETR's transformer beside transformers; its convolutional network is no part of the spec.

So what archdsl saves is no whole checkpoint of theirs, and there is no way back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.reference.agreement import TOLERANCE
from tests.reference.families import Family, Reference, differences

pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
pytest.importorskip(
    "transformers", reason="transformers is not installed; CONTRIBUTING.md says how"
)

from tests.reference.families.encoders import drawn, torch, transformers
from tests.reference.families.seq2seq import sizes

pytestmark = pytest.mark.reference("torch", "transformers")


def save_detr(folder: Path, seed: int) -> Reference:
    """Without the convolutional network, whose output is drawn."""
    random = np.random.default_rng(seed)
    fields, heads = sizes(random), int(random.choice([3, 5]))
    channels = int(random.integers(5, 12))
    fields |= {"d_model": 4 * heads * 2, "encoder_attention_heads": heads}
    config = transformers.DetrConfig(
        **fields | {"decoder_attention_heads": 2 * heads},
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=transformers.ResNetConfig(
            hidden_sizes=[4, 4, 4, channels],
            depths=[1, 1, 1, 1],
            embedding_size=4,
            layer_type="basic",
            out_features=["stage4"],
        ),
        num_queries=int(random.integers(4, 9)),
        num_labels=int(random.integers(2, 9)),
        activation_function=("relu", "gelu", "silu")[seed % 3],
    )
    theirs = drawn(transformers.DetrForObjectDetection(config), seed)
    theirs.save_pretrained(folder)
    features = random.standard_normal((2, channels, 25, 25), np.float32)
    model = theirs.model
    with torch.no_grad():
        grid = model.input_projection(torch.from_numpy(features))
        places = model.position_embedding(grid.shape, grid.device, grid.dtype)
        places = places.flatten(2).transpose(1, 2)
        memory = model.encoder(
            inputs_embeds=grid.flatten(2).transpose(1, 2), spatial_position_embeddings=places
        ).last_hidden_state
        queries = model.query_position_embeddings.weight.expand(2, -1, -1)
        hidden = model.decoder(
            inputs_embeds=torch.zeros_like(queries),
            encoder_hidden_states=memory,
            spatial_position_embeddings=places,
            object_queries_position_embeddings=queries,
        ).last_hidden_state
        outputs = {
            "memory": memory,
            "hidden": hidden,
            "logits": theirs.class_labels_classifier(hidden),
            "boxes": theirs.bbox_predictor(hidden).sigmoid(),
        }
    return Reference(
        {"features": features}, {name: each.numpy() for name, each in outputs.items()}
    )


@pytest.mark.parametrize(
    "seed",
    [pytest.param(0, marks=pytest.mark.long)]
    + [pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2)],
)
def test_boxes_of_drawn_features_are_those_of_transformers(seed: int, tmp_path: Path) -> None:
    family = Family("detr", "detr.arch", "transformers DetrForObjectDetection", save_detr)
    found = differences(family, tmp_path, seed)
    assert set(found) == {"memory", "hidden", "logits", "boxes"}
    for name, difference in found.items():
        assert difference <= TOLERANCE, name
