"""specs/vaswani2017.arch with PyTorch's `nn.Transformer`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

Weights = dict[str, Tensor]


class Transformer(nn.Module):
    """The Transformer of Vaswani et al. 2017 without dropout, and its loss.

    `nn.Transformer` has a norm behind each of its stacks, which the paper has not. `weights`
    are those of our model, by path; all sizes but `heads` follow from them.
    """

    def __init__(self, weights: Weights, heads: int):
        super().__init__()
        vocab, D = weights["tokens.weight"].shape
        hidden = len(weights["encoder.0.post_norm_2.mlp.0.weight"])
        depth = len({name.split(".")[1] for name in weights if name.startswith("encoder.")})
        self.embed = nn.Embedding(vocab, D)
        given = (D, heads, hidden, 0.0)
        self.transformer = nn.Transformer(
            D,
            heads,
            batch_first=True,
            custom_encoder=nn.TransformerEncoder(
                nn.TransformerEncoderLayer(*given, batch_first=True),
                depth,
                enable_nested_tensor=False,
            ),
            custom_decoder=nn.TransformerDecoder(
                nn.TransformerDecoderLayer(*given, batch_first=True), depth
            ),
        )
        with torch.no_grad():
            self.embed.weight.copy_(weights["tokens.weight"])
            for i, layer in enumerate(self.transformer.encoder.layers):
                _fill(layer, f"encoder.{i}", weights, ["self_attn", "mlp"])
            for i, layer in enumerate(self.transformer.decoder.layers):
                _fill(layer, f"decoder.{i}", weights, ["self_attn", "multihead_attn", "mlp"])

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The mean cross entropy of the next token, []; tokens [B, S] and [B, T]."""
        h = self.transformer(
            self._vectors(source),
            self._vectors(target),
            tgt_mask=torch.ones(2 * [target.shape[1]], dtype=torch.bool).triu(1),
            tgt_is_causal=True,
            src_key_padding_mask=source == 0,
            tgt_key_padding_mask=target == 0,
            memory_key_padding_mask=source == 0,
        )  # [B, T, D]
        logits = h @ self.embed.weight.T  # [B, T, vocab]
        return functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), target[:, 1:].flatten(), ignore_index=0
        )

    def _vectors(self, tokens: Tensor) -> Tensor:
        T, D = tokens.shape[1], self.embed.embedding_dim
        rates = 10_000 ** (-torch.arange(0, D, 2) / D)  # [D / 2]
        angles = torch.arange(T)[:, None] * rates  # [T, D / 2]
        positions = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)  # [T, D]
        return self.embed(tokens) * D**0.5 + positions


def _fill(layer: nn.Module, at: str, weights: Weights, sublayers: list[str]) -> None:
    """Copies the weights of a layer; each sublayer has its norm beside it."""
    for number, name in enumerate(sublayers, 1):
        place = f"{at}.post_norm" + (f"_{number}" if number > 1 else "")
        for kind in ("weight", "bias"):
            _copy(layer, f"norm{number}.{kind}", weights[f"{place}.norm.{kind}"])
            if name == "mlp":
                for i, linear in enumerate(("linear1", "linear2")):
                    _copy(layer, f"{linear}.{kind}", weights[f"{place}.mlp.{i}.{kind}"])
                continue
            qkv = [weights[f"{place}.attention.{each}.{kind}"] for each in "qkv"]
            _copy(layer, f"{name}.in_proj_{kind}", torch.cat(qkv))
            _copy(layer, f"{name}.out_proj.{kind}", weights[f"{place}.attention.out.{kind}"])


def _copy(module: nn.Module, name: str, value: Tensor) -> None:
    module.get_parameter(name).copy_(value)
