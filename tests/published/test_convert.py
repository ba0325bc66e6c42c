"""Conversions are exact, and undoing them gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.formats import LazyTensor
from archdsl.formats.host import Groups
from archdsl.published.conversions import CONVERSIONS, Conversion, ConversionError, Shapes
from archdsl.published.convert import from_checkpoint, to_checkpoint
from archdsl.syntax.parser import parse

# Conversions to our shapes, and the shapes of the checkpoint's tensors.
WAYS: list[tuple[list[Conversion], Shapes, Shapes]] = [
    ([], ((3, 5),), ((3, 5),)),
    ([Conversion("transpose")], ((3, 5),), ((5, 3),)),
    ([Conversion("split")], ((4, 5), (2, 5), (3, 5)), ((9, 5),)),
    ([Conversion("split")], ((4,), (2,)), ((6,),)),
    ([Conversion("concat")], ((6, 5),), ((2, 5),) * 3),
    ([Conversion("split", (2,))], ((4, 5), (2, 5), (6, 5)), ((12, 5),)),
    ([Conversion("concat", (2,))], ((12, 5),), ((4, 5),) * 3),
    ([Conversion("concat", (2,), 3)], ((12, 5),) * 2, ((4, 5),) * 6),
    ([Conversion("stacked"), Conversion("transpose"), Conversion("split", (2,), 2)],
     ((4, 5), (2, 5)) * 3, ((3, 5, 6),)),
    ([Conversion("stacked")], ((2, 5),) * 3, ((3, 2, 5),)),
    ([Conversion("shaped", (7, 1, 6))], ((7, 6),), ((7, 1, 6),)),
    ([Conversion("halves", (3,))], ((12, 5),), ((12, 5),)),
    ([Conversion("halves", (2,))], ((12,),), ((12,),)),
    ([Conversion("transpose"), Conversion("split")], ((4, 5), (2, 5)), ((5, 6),)),
    ([Conversion("concat"), Conversion("halves", (1,)), Conversion("transpose")],
     ((5, 8),), ((4, 5),) * 2),
]  # fmt: skip


def stored(shapes: Shapes, dtype: str = "float32") -> list[LazyTensor]:
    """Tensors in which every number occurs once."""
    carrier = {"float32": np.float32, "bfloat16": np.uint16}[dtype]
    start, found = 0, []
    for shape in shapes:
        array = np.arange(start, start + np.prod(shape)).astype(carrier).reshape(shape)
        found.append(LazyTensor(dtype, shape, lambda array=array: array))  # type: ignore[misc]
        start += array.size
    return found


@pytest.mark.parametrize(("way", "ours", "theirs"), WAYS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip(way: list[Conversion], ours: Shapes, theirs: Shapes, dtype: str) -> None:
    given = stored(theirs, dtype)
    made = from_checkpoint(given, way, ours)
    assert [(each.dtype, each.shape) for each in made] == [(dtype, shape) for shape in ours]
    numbers = np.concatenate([each.read().reshape(-1) for each in made])
    assert sorted(numbers) == list(range(len(numbers)))
    back = to_checkpoint(made, way, len(theirs))
    for each, right in zip(back, given, strict=True):
        np.testing.assert_array_equal(each.read(), right.read())


MATRICES = [way for way in WAYS if all(len(shape) == 2 for shape in way[2])]


@pytest.mark.parametrize(("way", "ours", "theirs"), MATRICES)
def test_quantized_rows_move_like_float_rows(
    way: list[Conversion], ours: Shapes, theirs: Shapes
) -> None:
    ours, theirs = (tuple((r, c * 32) for r, c in shapes) for shapes in (ours, theirs))
    random = np.random.default_rng(4)

    def quantized(rows: int, width: int, offsets: bool) -> LazyTensor:
        values = random.integers(-99, 99, (rows, width)).astype(np.int8)
        scales, least = random.standard_normal((2, rows, width // 32)).astype(np.float32)
        full = values * scales.repeat(32, 1) + offsets * least.repeat(32, 1)
        groups = Groups(values, scales, least if offsets else None)
        return LazyTensor("float32", (rows, width), lambda: full, lambda: groups)

    for offsets in (False, True):
        made = from_checkpoint([quantized(*shape, offsets) for shape in theirs], way, ours)
        kept = {each.name for each in way} <= {"split", "halves"}
        for each in made:
            assert (each.groups is not None) == kept
            if each.groups is not None:
                values, scales, least = each.groups()
                full = values * scales.repeat(32, 1)
                full = full if least is None else full + least.repeat(32, 1)
                np.testing.assert_array_equal(full, each.read())


def test_what_each_conversion_does() -> None:
    def first(name: str, theirs: Shapes, ours: Shapes, *numbers: int) -> list[list[float]]:
        made = from_checkpoint(stored(theirs), [Conversion(name, numbers)], ours)
        return [each.read().reshape(-1).tolist() for each in made]

    assert first("transpose", ((2, 3),), ((3, 2),)) == [[0, 3, 1, 4, 2, 5]]
    assert first("split", ((3, 2),), ((1, 2), (2, 2))) == [[0, 1], [2, 3, 4, 5]]
    assert first("concat", ((1, 2), (1, 2)), ((2, 2),)) == [[0, 1, 2, 3]]
    assert first("stacked", ((2, 1, 2),), ((1, 2), (1, 2))) == [[0, 1], [2, 3]]
    # Two heads of four rows: the first of every pair, then the second.
    assert first("halves", ((8,),), ((8,),), 2) == [[0, 2, 1, 3, 4, 6, 5, 7]]


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_part_of_zeros_is_dropped_and_restored(part: int) -> None:
    way = [Conversion("without", (part, 3)), Conversion("split")]
    theirs = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    theirs[2 * part - 2 : 2 * part] = 0
    made = from_checkpoint(
        [LazyTensor("float32", (6, 2), lambda: theirs)], way, ((2, 2), (2, 2))
    )
    assert [each.read().all() for each in made] == [True, True]
    (back,) = to_checkpoint(made, way)
    np.testing.assert_array_equal(back.read(), theirs)


def test_a_dropped_part_must_be_zero() -> None:
    given = stored(((6,),))
    (made,) = from_checkpoint(given, [Conversion("without", (2, 3))], ((4,),))
    with pytest.raises(ArchError, match=r"part 2 of 3 of a tensor \[6\]"):
        made.read()


def test_tensors_are_read_lazily() -> None:
    def refuse() -> np.ndarray:
        raise AssertionError("read")

    lazy = [LazyTensor("float32", (6, 2), refuse)]
    made = from_checkpoint(lazy, [Conversion("split")], ((2, 2), (4, 2)))
    assert [each.shape for each in made] == [(2, 2), (4, 2)]
    with pytest.raises(AssertionError, match="read"):
        made[1].read()


def test_a_tensor_of_many_parts_is_read_once() -> None:
    reads = 0

    def load() -> np.ndarray:
        nonlocal reads
        reads += 1
        return np.arange(12, dtype=np.float32).reshape(3, 2, 2)

    def groups() -> Groups:
        nonlocal reads
        reads += 1
        return Groups(load().astype(np.int8), np.ones((3, 2, 1), np.float32))

    lazy = [LazyTensor("float32", (3, 2, 2), load, groups)]
    made = from_checkpoint(lazy, [Conversion("stacked")], ((2, 2),) * 3)
    assert [each.read().tolist() for each in made][1] == [[4, 5], [6, 7]]
    assert reads == 1
    assert made[1].read().tolist() == [[4, 5], [6, 7]]  # and again after that
    assert reads == 2
    parts = [each.groups() for each in made if each.groups]
    assert [part.values.tolist() for part in parts][2] == [[8, 9], [10, 11]]
    assert [part.scales.shape for part in parts] == [(2, 1)] * 3
    assert reads == 4


def test_every_conversion_has_a_round_trip_test() -> None:
    tried = {each.name for way, _, _ in WAYS for each in way}
    assert tried | {"without", "plus", "weight_norm"} == CONVERSIONS.keys()


@pytest.mark.parametrize(
    ("name", "numbers", "ours"),
    [
        ("transpose", (), ((3,),)),
        ("split", (), ((3, 2), (3, 4))),
        ("concat", (), ((5, 2),)),
        ("shaped", (2, 2), ((3, 2),)),
        ("halves", (2,), ((6, 2),)),
        ("without", (1, 3), ((5,),)),
        ("without", (3, 2), ((4,),)),
        ("without", (1, 1), ((4,),)),
        ("weight_norm", (2,), ((4, 2),)),
        ("weight_norm", (0.5,), ((4, 2),)),
    ],
)
def test_impossible_shapes(name: str, numbers: tuple[int, ...], ours: Shapes) -> None:
    with pytest.raises(ConversionError):
        Conversion(name, numbers).before(ours, 2)


def test_a_split_into_groups() -> None:
    # Two groups, each with two rows of the first part and one of the second, as the heads of
    # GPT-NeoX and the groups of heads of Falcon have queries, keys and values.
    def rows(way: Conversion, theirs: Shapes, ours: Shapes) -> list[list[float]]:
        return [
            each.read().reshape(-1).tolist()
            for each in from_checkpoint(stored(theirs), [way], ours)
        ]

    assert rows(Conversion("split", (2,)), ((6,),), ((4,), (2,))) == [[0, 1, 3, 4], [2, 5]]
    assert rows(Conversion("concat", (2,)), ((2,), (2,)), ((4,),)) == [[0, 2, 1, 3]]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_plus_adds_in_float32(dtype: str) -> None:
    numbers = np.array([0.5, -1.0, 0.0], np.float32)
    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    held = {"float32": numbers, "float16": numbers.astype(np.float16), "bfloat16": bits}[dtype]
    way = [Conversion("plus", (1,))]
    (made,) = from_checkpoint([LazyTensor(dtype, (3,), lambda: held)], way, ((3,),))
    assert (made.dtype, made.read().tolist()) == ("float32", [1.5, 0.0, 1.0])
    (back,) = to_checkpoint([made], way)
    assert back.read().tolist() == numbers.tolist()
    with pytest.raises(ArchError, match="dtype int8"):
        from_checkpoint([LazyTensor("int8", (3,), lambda: held)], way, ((3,),))


@pytest.mark.parametrize("axis", [0, 2])
def test_weight_norm_multiplies_directions_by_lengths(axis: int) -> None:
    v = np.random.default_rng(0).standard_normal((4, 3, 5), np.float32)
    v[0], v[..., 1] = 0, 0
    g = np.arange(1, 1 + v.shape[axis], dtype=np.float32)
    g = g.reshape([-1 if i == axis else 1 for i in range(3)])
    theirs = [LazyTensor("float32", each.shape, lambda each=each: each) for each in (g, v)]
    way = [Conversion("weight_norm", (axis,))]
    (made,) = from_checkpoint(theirs, way, (v.shape,))
    length = np.sqrt((v.astype(float) ** 2).sum(tuple({0, 1, 2} - {axis}), keepdims=True))
    expected = np.where(length == 0, 0, v * g / np.where(length == 0, 1, length))
    np.testing.assert_allclose(made.read(), expected, rtol=1e-6)
    back = to_checkpoint([made], way, 2)
    assert [each.shape for each in back] == [g.shape, v.shape]
    (again,) = from_checkpoint(back, way, (v.shape,))
    assert np.array_equal(again.read(), made.read())  # with every bit


SPEC = """\
model Stacked(D = 8) {
  input x: float[T <= 4, D]
  output y: float[T, D] = x -> h: norm * 2
}

weights "stacks" for Stacked {
  h.{i}.{weight,bias} = norms -> stacked -> split
}
"""


def test_parts_of_stacked_tensors() -> None:
    pairings = analyse(parse(SPEC)).maps["stacks"].pairings
    (norms,) = (each for each in pairings if each.theirs == (("norms",),))
    assert norms.ours == tuple(f"h.{i}.{name}" for i in (0, 1) for name in ("weight", "bias"))
    assert norms.shapes == ((2, 16),)
    made = from_checkpoint(stored(norms.shapes), norms.conversions, ((8,),) * 4)
    assert [each.read()[0] for each in made] == [0, 8, 16, 24]
