"""The operator cases of the `onnx` package that our operators can say come out as expected."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.backend import rotary
from tests.reference.agreement import apart
from tests.reference.onnx_cases import (
    EXPANDED,
    MASK,
    NO_KEYS,
    NO_MORE_KEYS,
    SOFTCAP,
    WINDOW,
    Case,
    cases,
    left_out,
    turned,
    written,
)

pytestmark = pytest.mark.reference("onnx")

RUN = "run here"
COUNTS = {
    "softmax": {RUN: 7, EXPANDED: 14},
    "gelu": {RUN: 4, EXPANDED: 4},
    "layer_normalization": {RUN: 19, EXPANDED: 38},
    "rms_normalization": {RUN: 19, EXPANDED: 19},
    "attention": {
        RUN: 69,
        EXPANDED: 93,
        MASK: 7,
        SOFTCAP: 11,
        WINDOW: 1,
        NO_KEYS: 4,
        NO_MORE_KEYS: 1,
    },
    "rotary_embedding": {RUN: 8, EXPANDED: 8},
}

# onnx computes the cases of half numbers in those, we in float32 where we sum: what differs
# is one rounding to 11 or 8 bits, of numbers as large as the scale or half of it.
TOLERANCES = {"float32": 1e-6, "float16": 2**-10, "bfloat16": 2**-7}


@pytest.fixture(scope="module")
def every() -> list[Case]:
    return cases()


def test_the_cases_run_and_those_left_out_are_counted(every: list[Case]) -> None:
    counted: dict[str, Counter[str]] = {family: Counter() for family in COUNTS}
    for case in every:
        counted[case.family][left_out(case) or RUN] += 1
    assert counted == COUNTS


@pytest.mark.parametrize("family", sorted(COUNTS.keys() - {"rotary_embedding"}))
def test_cases(tmp_path: Path, every: list[Case], family: str) -> None:
    wrong = {}
    for case in every:
        if case.family == family and not left_out(case):
            program = written(case)
            model = archdsl.compile(
                archdsl.parse(program.spec), device="CPU", dtype=program.dtype
            )
            np.savez(tmp_path / "weights.npz", **program.weights)
            model.load(tmp_path / "weights.npz")
            found = program.result(model(**program.inputs)["y"].numpy())
            if (distance := apart(found, case.expected)) > TOLERANCES[program.dtype]:
                wrong[case.name] = distance
    assert not wrong


def test_rotations(every: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    for case in every:
        if case.family == "rotary_embedding" and not left_out(case):
            for program, table, expected in turned(case):
                monkeypatch.setattr(rotary, "rotations", lambda *_, t=table: t)
                model = archdsl.compile(archdsl.parse(program.spec), device="CPU")
                found = program.result(model(**program.inputs)["y"].numpy())
                assert apart(found, expected) < TOLERANCES["float32"], case.name
