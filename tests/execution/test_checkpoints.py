"""Weights come from and go to files exactly, all of them or none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import dtypes

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.formats import read_weights, write_safetensors
from archdsl.formats.host import dtype_name
from archdsl.model import Model

SPEC = """\
model Tiny(D = 3, depth = 2) {
  input x: float[D]
  output y: float[D] = x -> layer: { linear(D) } * depth -> out: linear(D, bias = false)
}

weights "published" for Tiny {
  layer.{i}.linear.weight = h.{i}.w
  layer.{i}.linear.bias = h.{i}.b
  out.* = head.*
  ignore h.{i}.mask
}

weights "older" for Tiny {
  layer.{i}.linear.* = l{i}.*
  out.weight = out
}
"""

SHAPES = {
    "layer.0.linear.weight": (3, 3),
    "layer.0.linear.bias": (3,),
    "layer.1.linear.weight": (3, 3),
    "layer.1.linear.bias": (3,),
    "out.weight": (3, 3),
}
PUBLISHED = dict(zip(SHAPES, ["h.0.w", "h.0.b", "h.1.w", "h.1.b", "head.weight"], strict=True))
OLDER = dict(zip(SHAPES, ["l0.weight", "l0.bias", "l1.weight", "l1.bias", "out"], strict=True))

# Zeros of both signs, the least and the largest numbers, and those that are none.
UNUSUAL = [0.0, -0.0, 1e-45, -1.1754944e-38, 3.4028235e38, np.inf, -np.inf, np.nan, 1 / 3]


def tiny(**options: Any) -> Model:
    return archdsl.compile(archdsl.parse(SPEC, "tiny.arch"), device="CPU", **options)


def drawn(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {path: random.standard_normal(s, np.float32) for path, s in SHAPES.items()}


def bits(model: Model) -> dict[str, NDArray[Any]]:
    """The model's weights as whole numbers of their size, so that -0.0 and NaN compare."""
    whole = {4: dtypes.uint32, 2: dtypes.uint16}
    return {
        path: tensor.bitcast(whole[tensor.dtype.itemsize]).numpy()
        for path, tensor in model.parameters.items()
    }


def assert_same(ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]]) -> None:
    assert list(ours) == list(theirs)
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [
        ("float32", "safetensors"),
        ("float16", "safetensors"),
        ("bfloat16", "safetensors"),
        ("float32", "npz"),
        ("float16", "npz"),  # npz has no bfloat16; tests/formats reads the message
    ],
)
@pytest.mark.filterwarnings("ignore:.*beyond 65504")  # the largest float32 is among them
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path, dtype: str, suffix: str) -> None:
    unusual = drawn()
    unusual["out.weight"] = np.array(UNUSUAL, np.float32).reshape(3, 3)
    write_safetensors(tmp_path / "given.safetensors", unusual)
    one, other = tiny(dtype=dtype), tiny(dtype=dtype, seed=1)
    one.load(tmp_path / "given.safetensors")
    one.save(tmp_path / f"saved.{suffix}")
    other.load(tmp_path / f"saved.{suffix}")
    assert_same(bits(other), bits(one))
    assert {dtype_name(tensor) for tensor in other.parameters.values()} == {dtype}
    if dtype == "float32":
        given = {path: array.view(np.uint32) for path, array in unusual.items()}
        assert_same(bits(one), given)
    saved = read_weights(tmp_path / f"saved.{suffix}")
    assert list(saved) == list(SHAPES)


@pytest.mark.parametrize("stored", ["float64", "float32", "float16"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_file_of_other_precision_is_rounded_once(
    tmp_path: Path, stored: str, dtype: str
) -> None:
    weights = {path: array.astype(stored) for path, array in drawn().items()}
    np.savez(tmp_path / "w.npz", **weights)
    model = tiny(dtype=dtype)
    model.load(tmp_path / "w.npz")
    expected = {path: array.astype(dtype) for path, array in weights.items()}
    assert_same({path: t.numpy() for path, t in model.parameters.items()}, expected)


@pytest.mark.parametrize(
    ("names", "map"),
    [
        (dict(zip(SHAPES, SHAPES, strict=True)), None),
        (PUBLISHED, None),
        (PUBLISHED, "published"),
        (OLDER, None),
        (OLDER, "older"),
    ],
)
def test_the_names_of_a_file_choose_the_map(
    tmp_path: Path, names: dict[str, str], map: str | None
) -> None:
    weights = drawn()
    named = {names[path]: weights[path] for path in reversed(SHAPES)}
    if names is PUBLISHED:
        named |= {"h.0.mask": np.ones(4, np.float32), "h.1.mask": np.ones(4, np.float32)}
    np.savez(tmp_path / "w.npz", **named)
    model = tiny()
    model.load(tmp_path / "w.npz", map=map)
    assert_same({path: t.numpy() for path, t in model.parameters.items()}, weights)


def refused(model: Model, path: Path, map: str | None = None) -> str:
    """The message, without the folder; nothing of the model may have changed."""
    before = bits(model)
    with pytest.raises(ArchError) as caught:
        model.load(path, map=map)
    assert_same(bits(model), before)
    return str(caught.value).replace(f"{path.parent}/", "")


OWN = (
    "error[checkpoint]: `w.npz` does not have the weights of this model "
    "under the model's own names"
)


def changed(**changes: Any) -> dict[str, Any]:
    """The weights with some replaced, or left out where None is given."""
    weights: dict[str, Any] = drawn() | changes
    return {name: array for name, array in weights.items() if array is not None}


@pytest.mark.parametrize(
    ("weights", "rest"),
    [
        (
            changed(**{"out.weight": None, "layer.0.linear.bias": None}),
            ["found: 3 tensors; 2 missing: layer.0.linear.bias, out.weight"],
        ),
        (
            changed(**{"out.bias": np.ones(3, np.float32)}),
            ["found: 6 tensors; 1 unexpected: out.bias"],
        ),
        (
            changed(**{"out.weight": None, "out.wait": np.ones((3, 3), np.float32)}),
            ["found: 5 tensors; 1 missing: out.weight; 1 unexpected: out.wait"],
        ),
        (
            changed(**{"out.weight": np.ones((3, 4)), "layer.1.linear.bias": np.ones((1, 3))}),
            [
                "found: 5 tensors; 2 with a wrong shape: "
                "layer.1.linear.bias is [1, 3], not [3], "
                "out.weight is [3, 4], not [3, 3]",
                "help: the model's sizes differ from the checkpoint's",
            ],
        ),
        (
            changed(**{"out.weight": np.ones((3, 3), np.int8)}),
            ["found: 5 tensors; 1 not floating point: out.weight is int8"],
        ),
        (
            changed(**{f"extra.{i}": np.ones(1, np.float32) for i in range(10)}),
            [
                "found: 15 tensors; 10 unexpected: "
                + ", ".join(f"extra.{i}" for i in range(8))
                + " and 2 more"
            ],
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole(
    tmp_path: Path, weights: dict[str, Any], rest: list[str]
) -> None:
    np.savez(tmp_path / "w.npz", **weights)
    expected = "\n  = ".join([OWN, "expected: 5 tensors", *rest])
    assert refused(tiny(seed=3), tmp_path / "w.npz") == expected


def test_a_file_that_fits_a_map_best_is_held_against_it(tmp_path: Path) -> None:
    weights = drawn()
    named = {PUBLISHED[path]: weights[path] for path in SHAPES}
    del named["h.1.b"]
    np.savez(tmp_path / "w.npz", **named, **{"h.1.masks": np.ones(1)})
    assert refused(tiny(), tmp_path / "w.npz") == (
        "error[checkpoint]: `w.npz` does not have the weights of this model "
        "under the names of `weights 'published'`\n"
        "  = expected: 5 tensors\n"
        "  = found: 5 tensors; 1 missing: h.1.b; 1 unexpected: h.1.masks"
    )


def test_a_named_map_is_used_and_no_other(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **drawn())
    text = refused(tiny(), tmp_path / "w.npz", map="older")
    assert "under the names of `weights 'older'`" in text
    assert "found: 5 tensors; 5 missing: " in text


def test_a_map_that_the_spec_has_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **drawn())
    assert refused(tiny(), tmp_path / "w.npz", map="publisht") == (
        "error[weights-map]: the spec has no `weights` block 'publisht'\n"
        "  = expected: `published` or `older`\n"
        "  = help: did you mean `published`?"
    )
    plain = archdsl.compile("gpt.arch", vocab=5, context=2, D=2, heads=1, depth=1, device="CPU")
    with pytest.raises(ArchError) as caught:
        plain.load(tmp_path / "w.npz", map="any")
    assert str(caught.value) == (
        "error[weights-map]: the spec has no `weights` block 'any'\n"
        "  = expected: a `weights` block in the spec"
    )


@pytest.mark.parametrize(("name", "found"), [("w.bin", "`.bin`"), ("w", "no suffix")])
def test_weights_are_written_in_two_formats(tmp_path: Path, name: str, found: str) -> None:
    with pytest.raises(ArchError) as caught:
        tiny().save(tmp_path / name)
    assert str(caught.value) == (
        f"error[file]: `{tmp_path / name}`: the suffix does not name a format for weights\n"
        "  = expected: `.safetensors` or `.npz`\n"
        f"  = found: {found}"
    )
    assert not list(tmp_path.iterdir())


PEAK = """
import sys
from pathlib import Path
import numpy
import archdsl
from archdsl.formats.host import LazyTensor

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

sizes = {"vocab": 64, "context": 4096, "D": 512, "heads": 8, "depth": 8}
model = archdsl.compile("gpt.arch", **sizes, device="CPU")
# What programs are made with is imported when the first one is.
small = archdsl.compile("gpt.arch", vocab=64, context=64, D=32, heads=2, depth=8, device="CPU")
small.decoder(1).prefill([list(range(8))])
before = peak()
if sys.argv[1] == "write":
    zeros = {n: numpy.zeros(p.weight.shape, "float32") for n, p in model.weights.items()}
    archdsl.formats.write_safetensors(sys.argv[2], zeros)
else:
    model.load(sys.argv[2])
    model.decoder(1).prefill([list(range(8))])
    weights = sum(int(numpy.prod(p.weight.shape)) * 4 for p in model.weights.values())
    print((peak() - before) / weights)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_neither_a_file_that_is_read_nor_room_that_is_left_takes_memory(tmp_path: Path) -> None:
    def told(what: str) -> str:
        command = [sys.executable, "-c", PEAK, what, str(tmp_path / "w.safetensors")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    told("write")
    # 109 MB of weights, the largest of them 8; the rest is the program's.
    # Keys and values would take 135, but take what has been fed.
    assert float(told("load")) < 1.35
