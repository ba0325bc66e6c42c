"""Settings of a run: one table of names, kinds and ranges."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import fields
from typing import Any

import pytest

from archdsl.backend import optimizers
from archdsl.diagnostics import ArchError
from archdsl.training import schedules
from archdsl.training.settings import (
    BY_NAME,
    DEFAULTS,
    OPTIMIZERS,
    ROWS,
    SCHEDULES,
    Settings,
    settings_from,
)


def test_every_setting_has_a_row() -> None:
    assert [row.name for row in ROWS] == list(BY_NAME)  # none twice
    assert set(BY_NAME) == {each.name for each in fields(Settings)}  # type: ignore[arg-type]


def test_the_docstring_has_the_settings_of_the_table() -> None:
    written, about = defaultdict(set), ""
    for first, second in re.findall(
        r"^    \| (.*?) ?\| (.*) \|$", Settings.__doc__ or "", re.M
    )[2:]:
        about = first.strip() or about
        written[about] |= set(re.findall("`(.*?)`", second)) & set(BY_NAME)
    table = defaultdict(set)
    for row in ROWS:
        table[row.about].add(row.name)
    assert dict(written) == dict(table)


def test_the_names_are_those_of_the_optimizers_and_schedules() -> None:
    assert OPTIMIZERS == optimizers.OPTIMIZERS
    assert tuple(schedules.SCHEDULES) == SCHEDULES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_default_is_a_value_that_the_row_accepts(row: Any) -> None:
    assert row.kind.read(row.default) == row.default
    assert settings_from({row.name: row.default}) == DEFAULTS


@pytest.mark.parametrize("name", [r.name for r in ROWS if isinstance(r.default, int | float)])
def test_text_of_an_option_is_the_same_value(name: str) -> None:
    row = BY_NAME[name]
    found = row.kind.parse(str(row.default).lower())
    assert (found, type(found)) == (row.default, type(row.default))


def test_values_by_kind() -> None:
    found = settings_from({"clip": "none", "length": 12, "freeze": ["a.*"], "recompute": True})
    assert (found.clip, found.length, found.freeze, found.recompute) == (
        None,
        12,
        ("a.*",),
        True,
    )
    assert BY_NAME["freeze"].kind.parse("b") == ("b",)
    assert BY_NAME["learning_rate"].kind.parse("1e-3") == 0.001


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", 0, "a whole number, at least 1"),
        ("steps", 2.5, "a whole number, at least 1"),
        ("steps", True, "a whole number, at least 1"),
        ("learning_rate", -1e-3, "a number above 0"),
        ("learning_rate", float("nan"), "a number above 0"),
        ("learning_rate", float("inf"), "a number above 0"),
        ("learning_rate", "1e-3", "a number above 0"),
        ("beta1", 1, "a number, at least 0 and below 1"),
        ("last_rate", 1.5, "a number, at least 0 and at most 1"),
        ("clip", 0, "a number above 0, or none"),
        ("warmup", -1, "a whole number, at least 0, or none"),
        ("recompute", 1, "true or false"),
        ("freeze", "layers.*", "a list of texts"),
        ("sample_prompt", 3, "a text"),
    ],
)
def test_a_value_outside_its_range_is_an_error(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ArchError) as error:
        settings_from({name: value})
    (found,) = error.value.diagnostics
    assert (found.code, found.expected) == ("argument-value", expected)
    assert found.message == f"`{name}` cannot be {value!r}"


def test_a_choice_has_a_suggestion() -> None:
    with pytest.raises(ArchError, match="expected: `adamw`, `sgd`, `muon` or `lamb`") as error:
        settings_from({"optimizer": "adam"})
    assert error.value.diagnostics[0].help == "did you mean `adamw`?"


def test_an_unknown_name_has_a_suggestion() -> None:
    with pytest.raises(ArchError) as error:
        settings_from({"learning_rat": 1e-3})
    (found,) = error.value.diagnostics
    assert (found.code, found.help) == ("unknown-argument", "did you mean `learning_rate`?")


def test_a_warmup_is_no_longer_than_the_run() -> None:
    assert settings_from({"steps": 5, "warmup": 5}).warmup == 5
    with pytest.raises(
        ArchError, match=r"the warmup is longer than the run(.|\n)*at most 5 steps"
    ):
        settings_from({"steps": 5, "warmup": 6})
