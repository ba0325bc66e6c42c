"""GPT-2 written by hand in tinygrad, with `nn` and `TinyJit`: the baseline."""

from __future__ import annotations

from typing import Any

from tinygrad import Tensor, TinyJit, UOp, nn
from tinygrad.helpers import DEV
from tinygrad.nn.state import load_state_dict, safe_load

from archdsl.backend.target import open_device
from archdsl.bench.candidates import Subject, last_position, random_prompt
from archdsl.bench.runner import Call


class Linear(nn.Linear):
    """A linear layer with the transposed weight of GPT-2's checkpoint."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.weight = Tensor.empty(inputs, outputs)

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Attention:
    def __init__(self, D: int, heads: int, context: int):
        self.c_attn, self.c_proj = Linear(D, 3 * D), Linear(D, D)
        self.heads, self.context = heads, context

    def __call__(self, x: Tensor, past: Any) -> Tensor:
        B, T, D = x.shape
        heads = (3, self.heads, D // self.heads)
        q, k, v = self.c_attn(x).reshape(B, T, *heads).permute(2, 0, 3, 1, 4)  # [B, H, T, h]
        if not hasattr(self, "_cache"):
            shape = (2, B, self.heads, self.context, D // self.heads)
            self._cache = Tensor.zeros(*shape).contiguous().realize()
        self._cache[:, :, :, past : past + T].assign(Tensor.stack(k, v)).realize()
        k, v = (self._cache[i, :, :, : past + T] for i in (0, 1))
        mask = None
        if T > 1:
            mask = Tensor.full((1, 1, T, past + T), float("-inf")).triu(past + 1)
        y = q.scaled_dot_product_attention(k, v, attn_mask=mask)  # [B, H, T, h]
        return self.c_proj(y.transpose(1, 2).reshape(B, T, D))


class MLP:
    def __init__(self, D: int):
        self.c_fc, self.c_proj = Linear(D, 4 * D), Linear(4 * D, D)

    def __call__(self, x: Tensor) -> Tensor:
        return self.c_proj(self.c_fc(x).gelu())


class Block:
    def __init__(self, D: int, heads: int, context: int):
        self.ln_1, self.ln_2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attn, self.mlp = Attention(D, heads, context), MLP(D)

    def __call__(self, x: Tensor, past: Any) -> Tensor:
        x = x + self.attn(self.ln_1(x), past)
        return (x + self.mlp(self.ln_2(x))).contiguous()


class GPT2:
    def __init__(self, vocab: int, context: int, D: int, heads: int, depth: int):
        self.wte, self.wpe = nn.Embedding(vocab, D), nn.Embedding(context, D)
        self.h = [Block(D, heads, context) for _ in range(depth)]
        self.ln_f = nn.LayerNorm(D)

    def __call__(self, tokens: Tensor, past: Any) -> Tensor:
        """Returns the logits [B, vocab] of the token after the tokens [B, T]."""
        places = Tensor.arange(self.wpe.weight.shape[0])[
            past : past + tokens.shape[1]
        ].unsqueeze(0)
        x = self.wte(tokens) + self.wpe(places)
        for block in self.h:
            x = block(x, past)
        return (self.ln_f(x[:, -1]) @ self.wte.weight.T).realize()


def prefill(subject: Subject, length: int) -> Call:
    """Plain tinygrad, from a prompt to the logits of its next token."""
    model = _model(subject)
    prompt = random_prompt(subject, length, 0)[0]
    step = TinyJit(lambda tokens: model(tokens, 0))
    return lambda: last_position(step(Tensor([prompt]).realize()).numpy())


def decode(subject: Subject, length: int, new: int) -> Call:
    """Plain tinygrad, `new` tokens one by one after a prompt of this length."""
    model = _model(subject)
    prompt, following = random_prompt(subject, length, new)
    model(Tensor([prompt]), 0)
    step = TinyJit(model.__call__)
    past = UOp.variable("past", 1, model.wpe.weight.shape[0] - 1)

    def once() -> Any:
        for place, token in enumerate(following, length):
            logits = step(Tensor([[token]]).realize(), past.bind(place)).numpy()
            logits.argmax()
        return last_position(logits)

    return once


def _model(subject: Subject) -> GPT2:
    DEV.value = open_device("CPU")  # also finds a compiler if clang is missing
    weights = {
        name.removeprefix("transformer."): tensor
        for name, tensor in safe_load(f"{subject.published}/model.safetensors").items()
    }
    vocab, D = weights["wte.weight"].shape
    depth = len({name.split(".")[1] for name in weights if name.startswith("h.")})
    heads = int(subject.settings.get("heads", 12))
    model = GPT2(vocab, weights["wpe.weight"].shape[0], D, heads, depth)
    load_state_dict(model, weights, strict=False, verbose=False)
    return model
