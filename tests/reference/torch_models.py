"""The models of specs/ built from modules of PyTorch and transformers, as references.

Each model is seeded, in evaluation mode, and has weights far from their usual first values,
so that a bias left out or two matrices exchanged show. `our_names.py` has their weights under
the names of our specs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor, nn

torch = pytest.importorskip("torch", reason="torch is not installed; CONTRIBUTING.md says how")
nn = torch.nn


def settled(model: Any, seed: int) -> Any:
    """The model with all weights drawn anew from a seed, and in evaluation mode."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=random)
            if weight.ndim > 1:
                weight.copy_(noise * weight[0].numel() ** -0.5)
            else:
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                weight.copy_(centre + 0.3 * noise)
    return model.eval()


def sinusoids(positions: int, width: int) -> Tensor:
    """[T, D]: the encodings of Vaswani et al. 2017, section 3.5, written as there."""
    encoding = torch.zeros(positions, width, dtype=torch.float64)
    for pos in range(positions):
        for i in range(width // 2):
            angle = torch.tensor(pos / 10000 ** (2 * i / width), dtype=torch.float64)
            encoding[pos, 2 * i] = angle.sin()
            encoding[pos, 2 * i + 1] = angle.cos()
    return encoding.float()


def causal(positions: int) -> Tensor:
    """[T, T] True at what may not be seen, as torch wants it."""
    return torch.ones(positions, positions, dtype=torch.bool).triu(1)


class Block(nn.Module):
    """Both blocks of Figure 5.6: attention to x itself or to a memory, then an MLP."""

    def __init__(self, D: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(D)
        self.attention = nn.MultiheadAttention(D, heads, batch_first=True)
        self.norm_2 = nn.LayerNorm(D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(
        self,
        x: Tensor,  # [B, T, D]
        memory: Tensor | None = None,  # [B, S, D]
        mask: Tensor | None = None,
        padding: Tensor | None = None,
    ) -> Tensor:
        queries = self.norm(x)
        keys = queries if memory is None else memory
        seen = {"attn_mask": mask, "key_padding_mask": padding, "need_weights": False}
        a = x + self.attention(queries, keys, keys, **seen)[0]
        return a + self.mlp(self.norm_2(a))


class GPT(nn.Module):
    """specs/gpt.arch."""

    def __init__(self, vocab: int, context: int, D: int, heads: int, depth: int):
        super().__init__()
        self.embed = nn.Embedding(vocab, D)
        self.posenc = nn.Embedding(context, D)
        self.blocks = nn.ModuleList(Block(D, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(D)
        self.linear = nn.Linear(D, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        T = tokens.shape[1]
        h = self.embed(tokens) + self.posenc(torch.arange(T))
        for block in self.blocks:
            h = block(h, mask=causal(T))
        return self.linear(self.norm(h))  # [B, T, vocab]


class FigureDecoder(nn.Module):
    """The decoder of Figure 5.7, whose self- and cross-attention have an MLP each."""

    def __init__(self, D: int, heads: int, depth: int):
        super().__init__()
        self.self_blocks = nn.ModuleList(Block(D, heads) for _ in range(depth))
        self.cross_blocks = nn.ModuleList(Block(D, heads) for _ in range(depth))

    def forward(self, tgt: Tensor, memory: Tensor, **masks: Any) -> Tensor:
        for one, other in zip(self.self_blocks, self.cross_blocks, strict=True):
            tgt = one(tgt, None, masks["tgt_mask"], masks["tgt_key_padding_mask"])
            tgt = other(tgt, memory, None, masks["memory_key_padding_mask"])
        return tgt


class Translator(nn.Module):
    """Two embeddings, sinusoidal positions, `torch.nn.Transformer`, and logits.

    `embed_2` and `linear` are absent where the embedding of the source is used for all three
    (`tied`), which is then multiplied by sqrt(D) on its way in.
    """

    def __init__(self, vocab: int, D: int, transformer: nn.Transformer, tied: bool = False):
        super().__init__()
        self.embed = nn.Embedding(vocab, D)
        self.embed_2 = None if tied else nn.Embedding(vocab, D)
        self.transformer = transformer
        self.linear = None if tied else nn.Linear(D, vocab)
        self.factor = D**0.5 if tied else 1.0

    def _vectors(self, embed: nn.Embedding, tokens: Tensor) -> Tensor:
        T, D = tokens.shape[1], embed.embedding_dim
        return embed(tokens) * self.factor + sinusoids(T, D)  # [B, T, D]

    def forward(self, source: Tensor, target: Tensor, pad: int = 0) -> Tensor:
        h = self.transformer(
            self._vectors(self.embed, source),
            self._vectors(self.embed_2 or self.embed, target),
            tgt_mask=causal(target.shape[1]),
            src_key_padding_mask=source == pad,
            tgt_key_padding_mask=target == pad,
            memory_key_padding_mask=source == pad,
        )  # [B, T, D]
        return self.linear(h) if self.linear else h @ self.embed.weight.T  # [B, T, vocab]


def figure_translator(vocab: int, D: int, heads: int, depth: int) -> Translator:
    """specs/transformer.arch: PyTorch's encoder without its last norm, the figure's decoder."""
    parts = {
        "custom_encoder": _encoder(D, heads, 4 * D, depth, activation="gelu", norm_first=True),
        "custom_decoder": FigureDecoder(D, heads, depth),
    }
    return Translator(vocab, D, nn.Transformer(D, heads, batch_first=True, **parts))


def published_translator(vocab: int, D: int, heads: int, hidden: int, depth: int) -> Translator:
    """specs/vaswani2017.arch: PyTorch's stacks without the last norms, which it added."""
    layer = nn.TransformerDecoderLayer(D, heads, hidden, dropout=0.0, batch_first=True)
    parts = {
        "custom_encoder": _encoder(D, heads, hidden, depth, activation="relu"),
        "custom_decoder": nn.TransformerDecoder(layer, depth),
    }
    return Translator(vocab, D, nn.Transformer(D, heads, batch_first=True, **parts), tied=True)


def whole_translator(
    vocab: int, D: int, heads: int, hidden: int, depth: int, norm_first: bool
) -> Translator:
    """`torch.nn.Transformer` as it comes, with a norm behind each stack in both orders."""
    activation = "gelu" if norm_first else "relu"
    made = nn.Transformer(
        D, heads, depth, depth, hidden, 0.0, activation, batch_first=True, norm_first=norm_first
    )
    return Translator(vocab, D, made)


def _encoder(D: int, heads: int, hidden: int, depth: int, **options: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        D, heads, hidden, dropout=0.0, batch_first=True, **options
    )
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


class ViT(nn.Module):
    """specs/vit.arch: the patches and blocks of transformers' ViT, and Figure 5.9's readout.

    transformers' model normalises what its blocks return; the figure's does not. So
    `hidden` is what comes out of the last block, before that norm.
    """

    def __init__(self, image: int, patch: int, classes: int, D: int, heads: int, depth: int):
        super().__init__()
        from transformers import ViTConfig, ViTModel

        config = ViTConfig(
            hidden_size=D,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * D,
            hidden_act="gelu",
            layer_norm_eps=1e-5,
            image_size=image,
            patch_size=patch,
        )
        self.vit = ViTModel(config, add_pooling_layer=False)
        linears = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, classes)
        self.mlp = nn.Sequential(linears[0], nn.GELU(), linears[1], nn.GELU(), linears[2])

    def hidden(self, pixels: Tensor) -> Tensor:
        states: Tensor = self.vit(pixels, output_hidden_states=True).hidden_states[-1]
        return states  # [B, 1 + M, D]

    def forward(self, pixels: Tensor) -> Tensor:
        return self.mlp(self.hidden(pixels)[:, 0])  # [B, classes]
