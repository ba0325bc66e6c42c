"""The rows and programs of docs/coming_from.md give the numbers of PyTorch and transformers."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import archdsl
from tests.reference.test_nanogpt import LETTERS, save

PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"
ROWS = re.findall(
    r"^\| `((?:nn|F|x|torch)\b.*)` \| `(.* .*|concat\(.*)` \|$", PAGE.read_text(), re.M
)
B, T, S, D = 2, 5, 7, 8

pytestmark = pytest.mark.reference("torch", "transformers", "safetensors")


class Modules(SimpleNamespace):
    """`torch.nn`, whose last new module is kept."""

    def __getattr__(self, name: str) -> Any:
        from torch import nn

        def build(*args: Any, **settings: Any) -> Any:
            self.last = getattr(nn, name)(*args, **settings)
            return self.last

        return build


@pytest.mark.long
def test_each_row_gives_the_same_numbers(tmp_path: Path) -> None:
    import torch
    from torch.nn import functional

    assert len(ROWS) > 20
    torch.manual_seed(0)
    heads = {name: torch.randn(B, T, 2, D // 2) for name in "qkv"}
    given = {"x": torch.randn(B, T, D), "y": torch.randn(B, T, D), "s": torch.randn(B, S, D)}
    given |= heads | {"tokens": torch.randint(9, (B, T))}
    expected, outputs, weights = {}, [], list[Any]()
    for i, (there, here) in enumerate(ROWS):
        nn = Modules(last=None)
        names = {"nn": nn, "F": functional, "torch": torch, "D": D}
        expected[f"out{i}"] = found = eval(there, names | given)
        sizes = ", ".join({T: "T", S: "S", D: "D"}.get(n, str(n)) for n in found.shape[1:])
        if nn.last is not None:
            weights += nn.last.parameters()
            here = here.replace("-> ", f"-> part{i}: ", 1)
        outputs.append(f"  output out{i}: float[{sizes}] = {here}")
    inputs = [f"  input {name}: float[T <= 9, D]" for name in "xy"]
    inputs += ["  input s: float[S <= 9, D]", "  input tokens: int[T] < 9"]
    inputs += [f"  input {name}: float[T, 2, D // 2]" for name in "qkv"]
    text = "\n".join([f"model Rows(D = {D}) {{", *inputs, *outputs, "}"])
    model = archdsl.compile(archdsl.parse(text, "rows.arch"), device="CPU")
    paths = list(model.parameters)
    assert len(paths) == len(weights)
    arrays = {path: each.detach().numpy() for path, each in zip(paths, weights, strict=True)}
    np.savez(tmp_path / "weights.npz", **arrays)
    model.load(tmp_path / "weights.npz")
    for name, out in model(**given).items():
        there, here = ROWS[int(name[3:])]
        right = expected[name].detach().numpy()
        np.testing.assert_allclose(out.numpy(), right, atol=1e-5, err_msg=f"{there} {here}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*reading the weights under")
def test_the_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    save(tmp_path / "out" / "ckpt.pt", bias=True, compiled=False)
    numbers = {c: i for i, c in enumerate(LETTERS)}
    table = {"vocab_size": 26, "itos": dict(enumerate(LETTERS)), "stoi": numbers}
    (tmp_path / "out" / "meta.pkl").write_bytes(pickle.dumps(table))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    names: dict[str, Any] = {}
    for file, kind, text in re.findall(
        r"(?:^`(\w+\.arch)`:\n\n)?^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S
    ):
        match kind:
            case "arch":
                Path(file).write_text(text, encoding="utf-8")
            case "python":
                exec(compile(text, PAGE.name, "exec"), names)
            case "sh":
                there = os.environ | {"PATH": path, "DEV": "CPU"}
                subprocess.run(["bash", "-euc", text], env=there, check=True)
