"""Lines that several `weights` blocks share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archdsl.analysis import analyse, check
from archdsl.diagnostics import ArchError
from archdsl.published.configs import write_config
from archdsl.published.recognise import Recognised, recognise
from archdsl.published.specialise_spec import specialise_spec
from archdsl.syntax.printer import format

SHARED = """\
weights "scaled"(low = 1.0) {
  config {
    rope.factor | factor = factor default low
    rope.kind = any
  }
}

weights "stem"(name, inside = "model", D = D) {
  config {
    architectures = list(name + "LM")
    size = D
    act = names(act, gelu = "gelu", silu = "silu")
    if factor != 1.0 { include "scaled" }
  }
  embed.* = {inside}.wte.*
  norm.* = {inside}.ln.*
}
"""
SPEC = """\
use "shared.arch"

model One(D = 6, act = gelu, factor = 1.0, window = none) {
  input tokens: int[T <= 4] < 11
  h = tokens -> embed(11, D) -> norm -> act
  output y: float[T, 3] = h -> head: linear(3)
}

weights "huggingface" for One {
  include "stem"("One", inside = "m")

  config {
    model_type = one_of("one", "uno")
    factor = factor
    window = window default 4096 null none
  }

  norm.* = m.norm.*
  head.* = head.*
}
"""
CONFIG: dict[str, Any] = {
    "model_type": "uno",
    "architectures": ["OneLM"],
    "size": 8,
    "act": "silu",
}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("shared.arch").write_text(SHARED, encoding="utf-8")
    Path("one.arch").write_text(SPEC, encoding="utf-8")
    return "one.arch"


def read(spec: str, **more: Any) -> Recognised:
    return recognise("config.json", {**CONFIG, "factor": 1.0, **more}, spec)


def test_included_lines_are_read_and_written(spec: str) -> None:
    known = read(spec, window=7)
    assert known.settings == {"D": 8, "act": "silu", "factor": 1.0, "window": 7}
    analysis = analyse(spec, settings=known.settings)
    found = analysis.maps["huggingface"]
    assert found.config is not None
    assert write_config(found.config, analysis.elaborator, analysis.env) == {
        **CONFIG,
        "model_type": "one",
        "factor": 1.0,
        "window": 7,
    }
    # The block's own line replaces the included one.
    assert [pairing.theirs[0][0] for pairing in found.pairings] == [
        "m.wte.weight",
        "m.norm.weight",
        "m.norm.bias",
        "head.weight",
        "head.bias",
    ]


def test_a_null_field_is_not_a_missing_one(spec: str) -> None:
    assert read(spec).settings["window"] == 4096
    assert read(spec, window=None).settings["window"] == "none"


def test_any_of_several_values_is_accepted_and_no_other(spec: str) -> None:
    assert read(spec, model_type="one").model.name.id == "One"
    with pytest.raises(ArchError, match="does not support the model type `due`"):
        read(spec, model_type="due")
    Path("one.arch").write_text(
        SPEC.replace("factor = factor", 'factor = factor\nlayout = one_of("a", "b")'),
        encoding="utf-8",
    )
    assert read(spec, layout="b").settings["D"] == 8
    with pytest.raises(ArchError) as error:
        read(spec, layout="c")
    assert error.value.diagnostics[0].expected == '"a" or "b"'


def test_an_own_line_replaces_an_included_one_under_a_condition(spec: str) -> None:
    # `rope.factor | factor` of "scaled" would be needed here.
    assert read(spec, factor=2.0).settings["factor"] == 2.0


def test_the_spec_of_a_checkpoint_includes_the_same_lines(spec: str) -> None:
    text = format(specialise_spec(read(spec), 3, ["huggingface"]))
    assert 'include "stem"("One", inside = "m")' in text
    known = recognise("config.json", {**CONFIG, "factor": 1.0, "more": 1}, spec, None, ["more"])
    text = format(specialise_spec(known, 3, ["huggingface"]))
    assert "include" not in text
    assert "more = any  # ignored by the import" in text


# What follows the line that is replaced, and the code and place of the mistake.
WRONG = [
    ('"stem"("One", inside = "m")', '"stam"', "unknown-name", "did you mean `stem`?"),
    ('"stem"("One", inside = "m")', '"stem"', "missing-argument", None),
    ("inside =", "insid =", "unknown-argument", "did you mean `inside`?"),
    ('"One", inside', '"One", name', "duplicate-name", None),
    ('"One", inside = "m"', '"One", "m", D, 4', "unknown-argument", None),
    ("factor = factor", 'include "plain"', "weights-map", "move the `include` out"),
    ("factor = factor", 'include "loop"', "cycle", None),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "help"), WRONG)
def test_wrong_includes(spec: str, old: str, new: str, code: str, help: str | None) -> None:
    more = 'weights "plain" { a = b }\nweights "loop" { include "loop" }\n'
    Path("shared.arch").write_text(SHARED + more, encoding="utf-8")
    text = SPEC.replace(old, new)
    assert text != SPEC
    Path("one.arch").write_text(text, encoding="utf-8")
    found = [each for each in check(spec) if each.code == code]
    assert [(each.help or "")[: len(help or "")] for each in found] == [help or ""]


def test_two_items_with_one_title(spec: str) -> None:
    Path("one.arch").write_text(SPEC + 'weights "scaled" {}\n', encoding="utf-8")
    (found,) = check(spec)
    assert found.code == "duplicate-name"
    assert found.notes[0].span is not None
