"""Values that do not fit an input's type are refused before anything runs, and told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

import archdsl
from archdsl.backend.tensors import copy_in, to_device
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs

SPEC = """\
model Two(vocab = 9, context = 4) {
  input tokens: int[T <= context] < vocab pad 0
  input kinds: int[T] < 3 pad 2
  input table: float[S <= 5, 2]
  input longer: float[S + 1]
  input both: float[S + T]
  input marks: bool[T]
  input count: int
  h = tokens -> embed(vocab, 3)
  output y: float[T, 3] = h
  output z: float[3] = h -> mean(T)
  loss cross_entropy(z, label: int < 3)
}
"""

MODEL = archdsl.compile(archdsl.parse(SPEC, "two.arch"), device="CPU")

# Each has its own line of SPEC, which stands in every message about it.
LINES = {line.split()[1][:-1]: line for line in SPEC.splitlines() if "input" in line}


def good() -> dict[str, Any]:
    return {
        "tokens": [[1, 2, 8], [3, 0, 0]],
        "kinds": [[0, 1, 0], [1, 2, 2]],
        "table": np.ones((2, 5, 2)),
        "longer": np.ones((2, 6)),
        "both": np.ones((2, 8)),
        "marks": np.ones((2, 3), bool),
        "count": [2**31 - 1, -(2**31)],
    }


def told(given: dict[str, Any], labels: bool = False) -> str:
    with pytest.raises(ArchError) as caught:
        inputs.check(MODEL.graph, given, labels)
    return str(caught.value)


def message(name: str, said: str, *rest: str) -> str:
    """A whole message about an input of SPEC."""
    line = LINES[name]
    number = SPEC.splitlines().index(line) + 1
    bar = " " * len(str(number)) + " |"
    mark = " " * line.index(f"{name}:") + "^" * len(name)
    head = [
        f"two.arch:{number}:9: error[input]: {said}",
        bar,
        f"{number} | {line}",
        f"{bar} {mark}",
    ]
    return "\n".join(head + [f"  = {each}" for each in rest])


def test_what_fits_comes_out_in_the_dtypes_of_the_language() -> None:
    found = inputs.check(MODEL.graph, good())
    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "tokens": ("int32", (2, 3)),
        "kinds": ("int32", (2, 3)),
        "table": ("float32", (2, 5, 2)),
        "longer": ("float32", (2, 6)),
        "both": ("float32", (2, 8)),
        "marks": ("bool", (2, 3)),
        "count": ("int32", (2,)),
    }


@pytest.mark.parametrize(
    "value",
    [
        np.array([[1, 2], [3, 4]], np.uint8),
        np.array([[1, 2], [3, 4]], ">i8"),
        np.array([[1, 3], [2, 4]]).T,
        np.array([[1, 9, 2, 9], [3, 9, 4, 9]])[:, ::2],
        ((1, 2), (3, 4)),
        [np.array([1, 2]), np.array([3, 4])],
        Tensor([[1, 2], [3, 4]], device="CPU"),
    ],
)
def test_tokens_of_every_kind(value: Any) -> None:
    model = archdsl.compile("gpt.arch", vocab=9, context=4, D=4, heads=1, depth=1, device="CPU")
    found = inputs.check(model.graph, {"tokens": value})["tokens"]
    np.testing.assert_array_equal(found, [[1, 2], [3, 4]])


def test_real_numbers_may_be_whole_or_half() -> None:
    for value in (
        np.ones((2, 5, 2), np.int64),
        np.ones((2, 5, 2), np.float16),
        Tensor.ones(2, 5, 2, device="CPU", dtype=dtypes.bfloat16),
    ):
        table = inputs.check(MODEL.graph, good() | {"table": value})["table"]
        np.testing.assert_array_equal(table, np.ones((2, 5, 2), np.float32))


WRONG = {
    "ragged": (
        {"tokens": [[1, 2, 3], [4]]},
        message(
            "tokens",
            "`tokens` is not an array of numbers",
            "expected: int[B, T] < 9",
            "found: a list whose rows have different lengths",
            "help: pad shorter rows with 0",
        ),
    ),
    "ragged without padding": (
        {"table": [[[1, 2]], [[1, 2], [3, 4]]]},
        message(
            "table",
            "`table` is not an array of numbers",
            "expected: float[B, S, 2]",
            "found: a list whose rows have different lengths",
        ),
    ),
    "empty": (
        {"tokens": []},
        message(
            "tokens",
            "`tokens`: it is empty",
            "expected: int[B, T] < 9",
            "found: shape [0]",
        ),
    ),
    "no position": (
        {"tokens": np.zeros((2, 0), int)},
        message(
            "tokens",
            "`tokens`: it is empty",
            "expected: int[B, T] < 9",
            "found: shape [2, 0]",
        ),
    ),
    "reals for tokens": (
        {"tokens": np.ones((2, 3))},
        message(
            "tokens",
            "`tokens`: int values are needed",
            "expected: int[B, T] < 9",
            "found: dtype float64",
        ),
    ),
    "truths for tokens": (
        {"tokens": np.ones((2, 3), bool)},
        message(
            "tokens",
            "`tokens`: int values are needed",
            "expected: int[B, T] < 9",
            "found: dtype bool",
        ),
    ),
    "text": (
        {"tokens": [["a", "b", "c"]] * 2},
        message(
            "tokens",
            "`tokens`: int values are needed",
            "expected: int[B, T] < 9",
            "found: dtype <U1",
        ),
    ),
    "nothing": (
        {"tokens": None},
        message(
            "tokens",
            "`tokens`: int values are needed",
            "expected: int[B, T] < 9",
            "found: dtype object",
        ),
    ),
    "truths for reals": (
        {"table": np.ones((2, 5, 2), bool)},
        message(
            "table",
            "`table`: float values are needed",
            "expected: float[B, S, 2]",
            "found: dtype bool",
        ),
    ),
    "complex": (
        {"table": np.ones((2, 5, 2), complex)},
        message(
            "table",
            "`table`: float values are needed",
            "expected: float[B, S, 2]",
            "found: dtype complex128",
        ),
    ),
    "numbers for truths": (
        {"marks": np.ones((2, 3), int)},
        message(
            "marks",
            "`marks`: bool values are needed",
            "expected: bool[B, T]",
            "found: dtype int64",
        ),
    ),
    "no batch": (
        {"tokens": [1, 2, 3]},
        message(
            "tokens",
            "`tokens`: 2 axes are needed",
            "expected: int[B, T] < 9",
            "found: shape [3]",
            "help: the batch axis comes first: give `x[None]` for a batch of one",
        ),
    ),
    "too many axes": (
        {"count": [[1], [2]]},
        message(
            "count", "`count`: 1 axes are needed", "expected: int[B]", "found: shape [2, 1]"
        ),
    ),
    "another batch": (
        {"table": np.ones((3, 5, 2))},
        message(
            "table",
            "`table`: the batch is 3, and `tokens` has 2",
            "expected: float[B, S, 2]",
            "found: shape [3, 5, 2]",
        ),
    ),
    "another size": (
        {"table": np.ones((2, 5, 3))},
        message(
            "table",
            "`table`: axis 2 must be 2",
            "expected: float[B, S, 2]",
            "found: shape [2, 5, 3]",
        ),
    ),
    "too long": (
        {"tokens": np.ones((2, 5), int)},
        message(
            "tokens",
            "`tokens`: axis 1 is `T`, which is 1 to 4",
            "expected: int[B, T] < 9",
            "found: shape [2, 5]",
        ),
    ),
    "another length": (
        {"marks": np.ones((2, 4), bool)},
        message(
            "marks",
            "`marks`: `T` is 4 here and 3 in `tokens`",
            "expected: bool[B, T]",
            "found: shape [2, 4]",
        ),
    ),
    "another length but one": (
        {"longer": np.ones((2, 5))},
        message(
            "longer",
            "`longer`: axis 1 must be S + 1 = 6",
            "expected: float[B, S + 1]",
            "found: shape [2, 5]",
        ),
    ),
    "another sum of lengths": (
        {"both": np.ones((2, 7))},
        message(
            "both",
            "`both`: axis 1 must be S + T = 8",
            "expected: float[B, S + T]",
            "found: shape [2, 7]",
        ),
    ),
    "beyond the vocabulary": (
        {"tokens": [[1, 2, 9], [3, 4, 5]]},
        message(
            "tokens",
            "`tokens`: numbers must be 0 to 8",
            "expected: int[B, T] < 9",
            "found: 9 at [0, 2], shape [2, 3]",
        ),
    ),
    "below zero": (
        {"tokens": [[1, 2, 3], [3, -1, 5]]},
        message(
            "tokens",
            "`tokens`: numbers must be 0 to 8",
            "expected: int[B, T] < 9",
            "found: -1 at [1, 1], shape [2, 3]",
        ),
    ),
    "beyond 32 bits": (
        {"count": [1, 2**31]},
        message(
            "count",
            "`count`: numbers must be -2147483648 to 2147483647",
            "expected: int[B]",
            "found: 2147483648 at [1], shape [2]",
        ),
    ),
    "infinite": (
        {"longer": [[1, 1, 1, 1, 1, 1], [1, 1, -np.inf, 1, 1, 1]]},
        message(
            "longer",
            "`longer`: all numbers must be finite",
            "expected: float[B, S + 1]",
            "found: -inf at [1, 2]",
        ),
    ),
    "no number": (
        {"longer": [[np.nan] + [1] * 5] * 2},
        message(
            "longer",
            "`longer`: all numbers must be finite",
            "expected: float[B, S + 1]",
            "found: nan at [0, 0]",
        ),
    ),
    "too large for float32": (
        {"longer": [[1e39] + [1] * 5] * 2},
        message(
            "longer",
            "`longer`: all numbers must be finite",
            "expected: float[B, S + 1]",
            "found: inf at [0, 0]",
        ),
    ),
    "padding alone": (
        {"tokens": [[1, 2, 3], [0, 0, 0]]},
        message(
            "tokens",
            "`tokens`: row 1 begins with padding, which is only allowed at the end",
            "expected: int[B, T] < 9",
            "found: 0 before other numbers",
        ),
    ),
    "padding before the end": (
        {"tokens": [[1, 2, 3], [1, 0, 2]]},
        message(
            "tokens",
            "`tokens`: row 1 has padding before its end",
            "expected: int[B, T] < 9",
            "found: 0 before other numbers",
        ),
    ),
    "padded otherwise": (
        {"kinds": [[0, 1, 0], [1, 1, 2]]},
        message(
            "kinds",
            "`kinds` and `tokens` have different lengths along `T`",
            "expected: length 1 in row 1",
            "found: length 2 in row 1",
        ),
    ),
    "misspelt": (
        {"token": [[1]]},
        "error[input]: `Two` has no input `token`\n"
        "  = expected: `tokens`, `kinds`, `table`, `longer`, `both`, `marks` and `count`\n"
        "  = help: did you mean `tokens`?",
    ),
    "a label": (
        {"label": [1, 2]},
        "error[input]: `Two` has no input `label`\n"
        "  = expected: `tokens`, `kinds`, `table`, `longer`, `both`, `marks` and `count`\n"
        "  = help: labels are for `model.loss` only",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_told(case: str) -> None:
    given, expected = WRONG[case]
    assert told(good() | given) == expected


def test_what_is_missing_is_told() -> None:
    given = good()
    del given["table"]
    expected = message("table", "the input `table` is missing", "expected: float[B, S, 2]")
    assert told(given) == expected


def test_labels_are_inputs_of_the_loss_alone() -> None:
    assert inputs.check(MODEL.graph, good() | {"label": [0, 2]}, labels=True)[
        "label"
    ].shape == (2,)
    line = "  loss cross_entropy(z, label: int < 3)"
    expected = (
        "two.arch:12:25: error[input]: the input `label` is missing\n"
        f"   |\n12 | {line}\n   | {' ' * 24}^^^^^\n  = expected: int[B] < 3"
    )
    assert told(good(), labels=True) == expected


def test_all_mistakes_are_told_at_once() -> None:
    given = good() | {"tokens": [[9, 1, 1]] * 2, "marks": np.ones((2, 4), bool), "more": 1}
    text = told(given)
    assert text.count("error[input]") == 3
    assert "no input `more`" in text
    assert "9 at [0, 0]" in text
    assert "`T` is 4 here" in text


GOOD = np.array([[1, 2, 8], [3, 0, 0]])
LAYOUTS = {
    "big endian": GOOD.astype(">i4"),
    "column-major": np.asfortranarray(GOOD),
    "strided": np.repeat(GOOD, 2, axis=1)[:, ::2],
    "reversed strides": GOOD[:, ::-1].copy()[:, ::-1],
    "unsigned": GOOD.astype(np.uint64),
    "matrix": GOOD.view(np.matrix),
    "rows": list(GOOD),
}


@pytest.mark.parametrize("tokens", LAYOUTS.values(), ids=LAYOUTS)
def test_arrays_of_every_layout_are_read(tokens: Any) -> None:
    assert inputs.check(MODEL.graph, {**good(), "tokens": tokens})["tokens"].tolist() == (
        GOOD.tolist()
    )


def test_a_read_only_array_is_copied_to_the_device() -> None:
    place, values = to_device(np.zeros(3, np.float32), "CPU"), np.ones(3, np.float32)
    values.setflags(write=False)
    copy_in(place, values)
    assert place.tolist() == [1, 1, 1]


def test_inputs_without_a_name_are_refused() -> None:
    with pytest.raises(ArchError, match=r"by name[\s\S]*model\(tokens=…, kinds=…"):
        MODEL(good()["tokens"])


def test_a_read_only_array_is_read() -> None:
    table = np.ones((2, 5, 2), ">f8")
    table.setflags(write=False)
    assert inputs.check(MODEL.graph, {**good(), "table": table})["table"].dtype == np.float32


@pytest.mark.reference("torch")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_tensors_of_torch_are_read(dtype: str) -> None:
    import torch

    table = torch.full((2, 5, 2), 0.5, dtype=getattr(torch, dtype), requires_grad=True)
    tokens = torch.tensor(GOOD.T.copy()).T  # not contiguous
    found = inputs.check(MODEL.graph, {**good(), "table": table, "tokens": tokens})
    assert (found["table"] == 0.5).all()
    assert found["tokens"].tolist() == GOOD.tolist()


class Broken:
    def numpy(self) -> Any:
        raise KeyError("broken")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Broken(), "Broken: 'broken'"),
        (np.ma.masked_array(GOOD, GOOD == 8), "masked elements"),
        (np.broadcast_to(np.int64(1), (10**12, 3)), "Unable to allocate"),
    ],
    ids=["raises", "masked", "larger than memory"],
)
def test_what_is_no_array_is_refused(value: Any, reason: str) -> None:
    others = {name: each for name, each in good().items() if name != "tokens"}
    assert reason in told({"tokens": value} | others)


DEFAULTS = """
model Defaults(vocab = 9) {
  input kinds: int[T <= 6] < 2 = 1
  input tokens: int[T <= 6] < vocab pad 0
  input scale: float = 0.5
  output y: float[T, 3] = (tokens -> embed(vocab, 3)) + (kinds -> kinds: embed(2, 3))
  output z: float = scale
}
"""


def test_an_input_with_a_default_may_be_left_out() -> None:
    model = archdsl.compile(archdsl.parse(DEFAULTS), device="CPU")
    tokens = [[1, 2, 3], [4, 5, 0]]
    found, right = model(tokens=tokens), model(tokens=tokens, kinds=np.ones((2, 3), int))
    np.testing.assert_array_equal(found["y"].numpy(), right["y"].numpy())
    np.testing.assert_array_equal(found["z"].numpy(), [0.5, 0.5])
    with pytest.raises(ArchError, match="the input `tokens` is missing"):
        model(kinds=[[1]])
    with pytest.raises(ArchError, match=r"`kinds`: axis 1 is `T`|`T` is"):
        model(tokens=tokens, kinds=[[1], [1]])
