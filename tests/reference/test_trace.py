"""Inner values of models beside those of transformers: hidden states, weights of attention, and
values that a forward hook of PyTorch replaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.model import Model

pytestmark = pytest.mark.reference("torch", "transformers")

TOLERANCE = 1e-5
Array = NDArray[Any]
SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}


@dataclass(frozen=True)
class Case:
    """A model of transformers, its inputs and ours, and the edges that its values are.

    `states` are those of each hidden state, by the field of the output, `weights` patterns for
    the weights of attention; `module` is the path of a module, and `edge` that of its output.
    """

    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    states: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, str]
    module: str
    edge: str
    result: str = "logits"


CASES = [
    Case(
        "GPT2LMHeadModel",
        {"n_embd": 24, "n_layer": 3, "n_head": 3, "vocab_size": 50, "n_positions": 32},
        {"input_ids": "tokens"},
        {"hidden_states": ("posenc", "h.0", "h.1", "hidden")},
        {"attentions": "h.*.attention.weights"},
        "transformer.h.1.attn",
        "h.1.attention",
    ),
    Case(
        "LlamaForCausalLM",
        {**SIZES, "num_key_value_heads": 1, "intermediate_size": 40, "vocab_size": 50},
        {"input_ids": "tokens"},
        {"hidden_states": ("embed", "h.0", "h.1", "hidden")},
        {"attentions": "h.*.attention.weights"},
        "model.layers.1.mlp",
        "h.1.mlp",
    ),
    Case(
        "BertModel",
        {**SIZES, "intermediate_size": 40, "vocab_size": 50},
        {"input_ids": "tokens"},
        {"hidden_states": ("encoder.norm", *(f"encoder.layer.{i}" for i in range(3)))},
        {"attentions": "encoder.layer.*.attention.weights"},
        "encoder.layer.1",
        "encoder.layer.1",
        "last_hidden_state",
    ),
    Case(
        "ViTForImageClassification",
        {**SIZES, "intermediate_size": 40, "image_size": 12, "patch_size": 4},
        {"pixel_values": "pixels"},
        {"hidden_states": ("positions", "layer.0", "layer.1", "layer.2")},
        {"attentions": "layer.*.attention.weights"},
        "vit.layers.1.attention",
        "layer.1.attention",
    ),
    Case(
        "MarianMTModel",
        {
            "d_model": 24,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 3,
            "decoder_attention_heads": 3,
            "encoder_ffn_dim": 40,
            "decoder_ffn_dim": 40,
            "vocab_size": 50,
            "pad_token_id": 49,
            "decoder_start_token_id": 49,
            "max_position_embeddings": 24,
        },
        {"input_ids": "source", "decoder_input_ids": "target"},
        {
            "encoder_hidden_states": ("posenc", "encoder.0", "encoder.1"),
            "decoder_hidden_states": ("posenc_2", "decoder.0", "decoder.1"),
        },
        {
            "encoder_attentions": "encoder.*.self.attention.weights",
            "decoder_attentions": "decoder.*.self.attention.weights",
            "cross_attentions": "decoder.*.cross.attention.weights",
        },
        "model.decoder.layers.0.encoder_attn",
        "decoder.0.cross.attention",
    ),
    Case(
        "GptOssForCausalLM",  # attention with sinks
        {
            **SIZES,
            "head_dim": 8,
            "num_key_value_heads": 1,
            "intermediate_size": 40,
            "vocab_size": 50,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        {"input_ids": "tokens"},
        {"hidden_states": ("embed", "h.0", "h.1", "hidden")},
        {"attentions": "h.*.attention.weights"},
        "model.layers.1.self_attn",
        "h.1.attention",
    ),
]


def opened(case: Case, folder: Path) -> tuple[Any, Model, dict[str, Any], dict[str, Array]]:
    """A drawn model of transformers, ours with its weights, and a batch for each."""
    import torch
    import transformers

    kind = getattr(transformers, case.kind)
    config = kind.config_class(**case.config)
    torch.manual_seed(0)
    theirs = kind._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, each in theirs.named_parameters():
            if "embed_positions" not in name:  # Marian's are sines
                each.normal_(0, 0.2)
    theirs.save_pretrained(folder)
    random = np.random.default_rng(0)
    given: dict[str, Any] = {}
    for number, name in enumerate(case.inputs):
        shape = (2, 7 + 2 * number)
        given[name] = (
            random.normal(size=(2, 3, 12, 12)).astype(np.float32)
            if name == "pixel_values"
            else random.integers(2, 48, shape)
        )
    ours = archdsl.from_pretrained(folder, device="CPU", dtype="float32")
    tensors = {name: torch.from_numpy(each) for name, each in given.items()}
    return theirs, ours, tensors, {case.inputs[name]: each for name, each in given.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
@pytest.mark.slow
def test_inner_values_are_those_of_transformers(case: Case, tmp_path: Path) -> None:
    import torch

    theirs, ours, tensors, arrays = opened(case, tmp_path)
    with torch.no_grad():
        found = theirs(**tensors, output_hidden_states=True, output_attentions=True)
    trace = ours.trace([*(p for each in case.states.values() for p in each)], **arrays)
    for field, paths in case.states.items():
        for path, state in zip(paths, found[field], strict=True):
            assert np.abs(trace[path] - state.numpy()).max() < TOLERANCE, path
    for field, pattern in case.weights.items():
        weights = trace.read(pattern)
        for (path, ours_), each in zip(weights.items(), found[field], strict=True):
            assert np.abs(ours_ - each.numpy()).max() < TOLERANCE, path

    other = torch.randn(2, *trace[case.edge].shape[1:], generator=torch.manual_seed(1))

    def hook(module: Any, given: Any, output: Any) -> Any:
        return (other, *output[1:]) if isinstance(output, tuple) else other

    handle = theirs.get_submodule(case.module).register_forward_hook(hook)
    with torch.no_grad():
        expected = theirs(**tensors)[case.result].numpy()
    handle.remove()
    name = "hidden" if case.result == "last_hidden_state" else case.result
    patched = ours.patch({case.edge: other.numpy()}, **arrays)
    assert np.abs(patched[name] - expected).max() < TOLERANCE * max(1, np.abs(expected).max())
    assert np.abs(trace[name] - expected).max() > 1e-3
