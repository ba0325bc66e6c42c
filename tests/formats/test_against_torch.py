"""Files that PyTorch itself writes are read as PyTorch reads them."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from tinygrad import dtypes

from archdsl.diagnostics import ArchError
from archdsl.formats import read_weights, resolve

torch = pytest.importorskip("torch", reason="torch is not installed")

STREAM = {"_use_new_zipfile_serialization": False}
LAYOUTS: list[dict[str, Any]] = [{}, {"pickle_protocol": 4}, {"pickle_protocol": 5}, STREAM]
CARRIERS = {1: (dtypes.uint8, torch.uint8), 2: (dtypes.uint16, torch.int16)}
CARRIERS |= {4: (dtypes.uint32, torch.int32), 8: (dtypes.uint64, torch.int64)}


def assert_same(path: Path) -> None:
    """We read the same bits as torch."""
    # weights_only=True would know pickle's protocol 2 alone.
    theirs = torch.load(path, map_location="cpu", weights_only=False)
    ours = read_weights(path)
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        carrier, torch_carrier = CARRIERS[tensor.element_size()]
        expected = tensor.detach().contiguous().view(torch_carrier).numpy()
        found = ours[name].bitcast(carrier).numpy()
        assert ours[name].shape == tuple(tensor.shape), name
        np.testing.assert_array_equal(found, expected.astype(found.dtype), err_msg=name)


@pytest.mark.parametrize("options", LAYOUTS)
def test_views_of_every_kind(tmp_path: Path, options: dict[str, Any]) -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    wide = torch.arange(12.0).reshape(3, 4)
    views = {
        "whole": x,
        "transposed": wide.t(),
        "permuted": x.permute(2, 0, 1),
        "half, transposed": wide.bfloat16().t(),
        "columns": wide[:, 1:3],
        "steps": wide[::2, ::2],
        "expanded": torch.ones(3, 1).expand(3, 5),
        "row": wide[1],
        "tied": wide,
        "channels last": torch.arange(16.0)
        .reshape(1, 2, 2, 4)
        .to(memory_format=torch.channels_last),
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "element": wide[2, 3],
        "parameter": torch.nn.Parameter(wide.clone().t()),
    }
    path = tmp_path / "a.pt"
    torch.save(views, path, **options)
    assert_same(path)


@pytest.mark.parametrize("options", LAYOUTS)
def test_every_dtype(tmp_path: Path, options: dict[str, Any]) -> None:
    names = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
    names += ["int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool"]
    if options == STREAM:  # here torch writes these dtypes and fails to read them
        names = [
            n for n in names if "float8" not in n and n not in ("uint16", "uint32", "uint64")
        ]
    path = tmp_path / "a.pt"
    values = torch.tensor([[0.0, 1.0, 2.0], [3.0, 100.0, 1.0]])
    torch.save({name: values.to(getattr(torch, name)) for name in names}, path, **options)
    assert_same(path)
    read = read_weights(path)
    ours = {"float8_e4m3fn": "fp8e4m3", "float8_e5m2": "fp8e5m2"}
    for name in names:
        assert read[name].dtype == getattr(dtypes, ours.get(name, name))


@pytest.mark.parametrize("options", LAYOUTS)
def test_the_state_dict_of_a_module(tmp_path: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    embed = torch.nn.Embedding(5, 4)
    head = torch.nn.Linear(4, 5, bias=False)
    head.weight = embed.weight
    module = torch.nn.Sequential(embed, torch.nn.BatchNorm1d(4), torch.nn.GRU(4, 3), head)
    path = tmp_path / "a.pt"
    torch.save(module.state_dict(), path, **options)
    assert_same(path)
    torch.save(dict(module.named_parameters()), path, **options)
    assert_same(path)


def test_a_training_checkpoint(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "a.ckpt"
    states = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({"step": 1, "loss": 0.5, **states}, path)
    with pytest.warns(UserWarning, match="the weights under `model`"):
        read = read_weights(path)
    np.testing.assert_array_equal(read["weight"].numpy(), module.weight.detach().numpy())


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"w": torch.ones(2), "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        ({"w": torch.eye(2).to_sparse()}, "torch._utils._rebuild_sparse_tensor"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "torch.ComplexFloatStorage"),
    ],
)
def test_more_than_tensors_is_refused_by_name(tmp_path: Path, value: Any, name: str) -> None:
    path = tmp_path / "a.pt"
    torch.save(value, path)
    with pytest.raises(ArchError, match="not allowed in a state dict") as raised:
        read_weights(path)
    assert f"`{name}`" in str(raised.value)


def test_a_torchscript_program(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(1)}, path)
    with ZipFile(path, "a") as file:  # as torch.jit.save does, which is deprecated and warns
        file.writestr("a/constants.pkl", b"")
    with pytest.raises(ArchError, match=r"torch\.jit\.save"):
        read_weights(path)


def test_every_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(2, 3).t(), "b": torch.zeros(3)}, path)
    content = path.read_bytes()
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ArchError):
            read_weights(path)


# Importing annalog takes packages that nothing else here needs; it is only looked for.
@pytest.mark.skipif(find_spec("annalog") is None, reason="annalog is not installed")
def test_the_trained_weights_of_annalog() -> None:
    assert_same(resolve("package:annalog/ckpt_and_vocab/Lev_extended.pt"))
    assert len(read_weights("package:annalog/ckpt_and_vocab/Lev_extended.pt")) == 132
