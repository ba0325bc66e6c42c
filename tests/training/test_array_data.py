"""Arrays of `.npz` files as examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs
from archdsl.syntax.parser import parse
from archdsl.training.data import open_data

SPEC = """\
model Grid(side = 3) {
  input x: float[side, side, 2]
  input count: int[4] < 9
  input extra: float = 1
  output y: float[side, side, 2] = x -> linear(2)
  output n: float[4, 2] = count -> embed(9, 2)
  output e: float = extra
  loss squared_error(y, target: float[side, side, 2])
}
"""
GRAPH = analyse(parse(SPEC, "grid.arch"), None, {}).graph


def arrays(count: int = 30) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(count, 3, 3, 2)).astype(np.float32),
        "count": np.arange(count * 4).reshape(count, 4) % 9,
        "target": np.full((count, 3, 3, 2), np.arange(count)[:, None, None, None], np.float32),
    }


def test_rows_of_arrays(tmp_path: Path) -> None:
    given = arrays()
    np.savez(tmp_path / "a.npz", **given)
    data = open_data(tmp_path / "a.npz", GRAPH)
    assert data.valid
    assert (len(data.train), len(data.valid)) == (27, 3)
    seen = []
    for part in (data.train, data.valid):
        found = part.batch(np.arange(len(part)))
        inputs.check(GRAPH, found, labels=True)
        numbers = found["target"][:, 0, 0, 0].astype(int)
        for name, array in given.items():
            assert np.array_equal(found[name], array[numbers])
        seen += numbers.tolist()
    assert sorted(seen) == list(range(30))


def test_a_folder_with_a_file_for_validation(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", **arrays(5), extra=np.ones(5))
    np.savez(tmp_path / "valid.npz", **arrays(2))
    data = open_data(tmp_path, GRAPH)
    assert data.valid
    assert (len(data.train), len(data.valid)) == (5, 2)
    assert data.train.batch(np.array([4]))["extra"].tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "the array `x` is missing"),
        ({"xs": np.ones(30)}, "`Grid` has no input or label `xs`"),
        ({"x": np.ones((29, 3, 3, 2))}, "different numbers of examples"),
        ({"x": np.ones((30, 3, 4, 2))}, "`x`: axis 2 must be side = 3"),
        ({"x": np.float32(1)}, "different numbers of examples, or none"),
        ({"count": np.ones((30, 4))}, "`count`: int values are needed"),
    ],
)
def test_wrong_arrays(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given = {name: each for name, each in (arrays() | change).items() if each is not None}
    np.savez(tmp_path / "a.npz", **given)
    with pytest.raises(ArchError) as caught:
        open_data(tmp_path / "a.npz", GRAPH)
    assert message in str(caught.value)


def test_other_mistakes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    for name, value in (("length", 3), ("tokenizer", "bytes")):
        with pytest.raises(ArchError, match=f"`{name}` is for texts"):
            open_data(tmp_path, GRAPH, **{name: value})  # type: ignore[arg-type]
    np.savez(tmp_path / "b.npz", **arrays())
    with pytest.raises(ArchError, match="has several files of arrays"):
        open_data(tmp_path, GRAPH)
    (tmp_path / "b.npz").write_bytes(b"PK\3\4 damaged")
    with pytest.raises(ArchError, match=r"b\.npz"):
        open_data(tmp_path / "b.npz", GRAPH)
