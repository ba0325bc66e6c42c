"""The file that nanoGPT's training saves, read as it is.

The reference is a decoder in torch with the names, the settings and the arithmetic of nanoGPT.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.diagnostics import ArchError

pytestmark = [
    pytest.mark.reference("torch"),
    pytest.mark.filterwarnings("ignore:.*reading the weights under"),
]

SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12, "vocab_size": 26}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def weights(bias: bool) -> dict[str, Any]:
    import torch

    torch.manual_seed(1)
    D, found = SIZES["n_embd"], {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.weight"] = torch.randn(outputs, inputs) / 4
        if bias:
            found[f"{name}.bias"] = torch.randn(outputs) / 4

    def norm(name: str) -> None:
        found[f"{name}.weight"] = 1 + torch.randn(D) / 4
        if bias:
            found[f"{name}.bias"] = torch.randn(D) / 4

    found["transformer.wte.weight"] = torch.randn(SIZES["vocab_size"], D)
    found["transformer.wpe.weight"] = torch.randn(SIZES["block_size"], D)
    for i in range(SIZES["n_layer"]):
        at = f"transformer.h.{i}"
        norm(f"{at}.ln_1")
        linear(f"{at}.attn.c_attn", D, 3 * D)
        linear(f"{at}.attn.c_proj", D, D)
        norm(f"{at}.ln_2")
        linear(f"{at}.mlp.c_fc", D, 4 * D)
        linear(f"{at}.mlp.c_proj", 4 * D, D)
    norm("transformer.ln_f")
    found["lm_head.weight"] = found["transformer.wte.weight"]
    return found


def logits(w: dict[str, Any], tokens: list[int]) -> Any:
    import torch
    from torch.nn import functional

    def linear(name: str, x: Any) -> Any:
        return functional.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(name: str, x: Any) -> Any:
        scale = w[f"{name}.weight"]
        return functional.layer_norm(x, scale.shape, scale, w.get(f"{name}.bias"), 1e-5)

    def heads(x: Any) -> Any:
        return x.view(len(tokens), SIZES["n_head"], -1).transpose(0, 1)

    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][: len(tokens)]
    for i in range(SIZES["n_layer"]):
        at = f"transformer.h.{i}"
        qkv = linear(f"{at}.attn.c_attn", norm(f"{at}.ln_1", x)).split(SIZES["n_embd"], dim=-1)
        mixed = functional.scaled_dot_product_attention(*map(heads, qkv), is_causal=True)
        x = x + linear(f"{at}.attn.c_proj", mixed.transpose(0, 1).reshape(x.shape))
        inner = functional.gelu(linear(f"{at}.mlp.c_fc", norm(f"{at}.ln_2", x)))
        x = x + linear(f"{at}.mlp.c_proj", inner)
    with torch.no_grad():
        return norm("transformer.ln_f", x) @ w["lm_head.weight"].T


def save(path: Path, bias: bool, compiled: bool, **more: Any) -> dict[str, Any]:
    """Saves what nanoGPT saves; returns the weights."""
    import torch

    found = weights(bias)
    prefix = "_orig_mod." if compiled else ""
    parameters = [torch.nn.Parameter(found["transformer.wpe.weight"])]
    optimizer = torch.optim.AdamW(parameters)
    parameters[0].sum().backward()
    optimizer.step()
    saved = {
        "model": {prefix + name: tensor for name, tensor in found.items()},
        "optimizer": optimizer.state_dict(),
        "model_args": SIZES | {"bias": bias, "dropout": 0.25} | more,
        "iter_num": 250,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "letters", "compile": compiled, "betas": (0.9, 0.95), "seed": 1},
    }
    torch.save(saved, path)
    return found


@pytest.mark.few(1)
@pytest.mark.parametrize(("bias", "compiled"), [(False, True), (True, False)])
def test_the_logits_are_those_of_nanogpt(bias: bool, compiled: bool, tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    saved = save(path, bias, compiled)
    model = archdsl.from_pretrained(path, device="CPU")
    tokens = [3, 0, 25, 7, 7, 12]
    ours = model(tokens=[tokens])["logits"].numpy()[0]
    np.testing.assert_allclose(ours, logits(saved, tokens).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_text_is_generated_with_the_table_of_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ckpt.pt"
    saved = save(path, bias=True, compiled=True)
    itos = dict(enumerate(LETTERS))
    table = {"vocab_size": 26, "itos": itos, "stoi": {c: i for i, c in itos.items()}}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(table))
    given = ["generate", str(path), "hello", "--temperature", "0", "--max-new-tokens", "4"]
    assert main([*given, "--device", "CPU"]) == 0

    text = "hello"
    for _ in range(4):
        rows = logits(saved, [LETTERS.index(c) for c in text])
        text += LETTERS[int(rows[-1].argmax())]
    assert capsys.readouterr().out.strip() == text[5:]


@pytest.mark.long
def test_import_writes_the_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = save(tmp_path / "ckpt.pt", bias=False, compiled=True)
    spec, own = str(tmp_path / "my.arch"), str(tmp_path / "my.safetensors")
    assert main(["import", str(tmp_path / "ckpt.pt"), "-o", spec, "--weights", own]) == 0
    assert "ckpt.pt, such as its tokenizer" in capsys.readouterr().err
    model = archdsl.compile(spec, device="CPU")
    model.load(own)
    ours = model(tokens=[[4, 2]])["logits"].numpy()[0]
    np.testing.assert_allclose(ours, logits(saved, [4, 2]).detach(), rtol=1e-4, atol=1e-4)


def test_other_settings_are_an_error(tmp_path: Path) -> None:
    save(tmp_path / "ckpt.pt", bias=True, compiled=False, n_kv_head=1)
    with pytest.raises(ArchError, match=r"model_args\.n_kv_head is 1, but this spec"):
        archdsl.from_pretrained(tmp_path / "ckpt.pt", device="CPU")


def test_without_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "ckpt.pt", bias=True, compiled=False)
    assert main(["generate", str(tmp_path / "ckpt.pt"), "hello"]) == 1
    assert "tokenizer" in capsys.readouterr().err
