"""The weights of the reference models under the names that our specs give them.

Each public function maps our paths to arrays, for one of the models of `torch_models.py`.
PyTorch's attention keeps the matrices of queries, keys and values in one, ours are three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

Weights = dict[str, NDArray[np.float32]]


def gpt_weights(model: Any) -> Weights:
    tensors = _named("embed", model.embed) | _named("posenc", model.posenc)
    tensors |= _blocks("self_attention_block.{i}", model.blocks)
    return _arrays(tensors | _named("norm", model.norm) | _named("linear", model.linear))


def figure_weights(model: Any) -> Weights:
    tensors = _named("embed", model.embed) | _named("embed_2", model.embed_2)
    for i, layer in enumerate(model.transformer.encoder.layers):
        at = f"self_attention_block.{i}"
        tensors |= _layer(layer, self_attn=f"{at}.attention", norm1=f"{at}.norm")
        tensors |= _layer(layer, mlp=f"{at}.mlp", norm2=f"{at}.norm_2")
    decoder = model.transformer.decoder
    tensors |= _blocks("stack.{i}.self_attention_block", decoder.self_blocks)
    tensors |= _blocks("stack.{i}.cross_attention_block", decoder.cross_blocks)
    return _arrays(tensors | _named("linear", model.linear))


def published_weights(model: Any) -> Weights:
    places = ("post_norm", "post_norm_2", "post_norm_3")
    stacks = _stacks(model.transformer, places[:2], places)
    return _arrays(_named("tokens", model.embed) | stacks)


def whole_weights(model: Any) -> Weights:
    """Under the names of `WHOLE` in test_transformer.py."""
    tensors = _named("source_tokens", model.embed) | _named("target_tokens", model.embed_2)
    tensors |= _stacks(model.transformer, ("self", "ff"), ("self", "cross", "ff"))
    tensors |= _named("encoder_norm", model.transformer.encoder.norm)
    tensors |= _named("decoder_norm", model.transformer.decoder.norm)
    return _arrays(tensors | _named("head", model.linear))


def vit_weights(model: Any) -> Weights:
    embeddings = model.vit.embeddings
    projection = embeddings.patch_embeddings.projection  # a convolution: [D, 3, patch, patch]
    tensors = {"linear.weight": projection.weight.flatten(1), "linear.bias": projection.bias}
    tensors["prepend.weight"] = embeddings.cls_token[0, 0]
    tensors["posenc.weight"] = embeddings.position_embeddings[0]
    for i, layer in enumerate(model.vit.layers):
        at = f"self_attention_block.{i}"
        for ours in ("q", "k", "v"):
            projection = getattr(layer.attention, f"{ours}_proj")
            tensors |= _named(f"{at}.attention.{ours}", projection)
        tensors |= _named(f"{at}.attention.out", layer.attention.o_proj)
        tensors |= _named(f"{at}.norm", layer.layernorm_before)
        tensors |= _named(f"{at}.norm_2", layer.layernorm_after)
        tensors |= _named(f"{at}.mlp.0", layer.mlp.fc1) | _named(f"{at}.mlp.1", layer.mlp.fc2)
    for i in range(3):
        tensors |= _named(f"mlp.{i}", model.mlp[2 * i])
    return _arrays(tensors)


def _arrays(tensors: dict[str, Tensor]) -> Weights:
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}


def _named(path: str, module: Any) -> dict[str, Tensor]:
    return {f"{path}.{name}": weight for name, weight in module.named_parameters()}


def _attention(path: str, module: nn.MultiheadAttention) -> dict[str, Tensor]:
    tensors = _named(f"{path}.out", module.out_proj)
    for kind in ("weight", "bias"):
        parts = getattr(module, f"in_proj_{kind}").chunk(3)
        tensors |= {f"{path}.{x}.{kind}": w for x, w in zip("qkv", parts, strict=True)}
    return tensors


def _blocks(path: str, blocks: Any) -> dict[str, Tensor]:
    """`{i}` in the path stands for the number of the block."""
    tensors: dict[str, Tensor] = {}
    for i, block in enumerate(blocks):
        at = path.format(i=i)
        tensors |= _attention(f"{at}.attention", block.attention)
        tensors |= _named(f"{at}.norm", block.norm) | _named(f"{at}.norm_2", block.norm_2)
        tensors |= _named(f"{at}.mlp.0", block.mlp[0]) | _named(f"{at}.mlp.1", block.mlp[2])
    return tensors


def _stacks(
    transformer: Any, encoder: tuple[str, str], decoder: tuple[str, str, str]
) -> dict[str, Tensor]:
    """Both stacks, given the places of their sublayers, which have their norms beside them."""
    tensors: dict[str, Tensor] = {}
    for i, layer in enumerate(transformer.encoder.layers):
        one, last = (f"encoder.{i}.{place}" for place in encoder)
        tensors |= _layer(layer, self_attn=f"{one}.attention", norm1=f"{one}.norm")
        tensors |= _layer(layer, mlp=f"{last}.mlp", norm2=f"{last}.norm")
    for i, layer in enumerate(transformer.decoder.layers):
        one, other, last = (f"decoder.{i}.{place}" for place in decoder)
        tensors |= _layer(layer, self_attn=f"{one}.attention", norm1=f"{one}.norm")
        tensors |= _layer(layer, multihead_attn=f"{other}.attention", norm2=f"{other}.norm")
        tensors |= _layer(layer, mlp=f"{last}.mlp", norm3=f"{last}.norm")
    return tensors


def _layer(layer: Any, **paths: str) -> dict[str, Tensor]:
    """Parts of one of PyTorch's layers by their names there; `mlp` is both its linears."""
    tensors: dict[str, Tensor] = {}
    for name, path in paths.items():
        if name == "mlp":
            tensors |= _named(f"{path}.0", layer.linear1) | _named(f"{path}.1", layer.linear2)
        elif name.startswith("norm"):
            tensors |= _named(path, getattr(layer, name))
        else:
            tensors |= _attention(path, getattr(layer, name))
    return tensors
