"""`archdsl expand` and `archdsl diff` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import archdsl
from archdsl.cli import main

TINY = [p for s in ("vocab=11", "context=7", "D=8", "heads=2", "depth=1") for p in ("--set", s)]
PAIRS = (
    ("gpt.arch", "transformer.arch"),
    ("vaswani2017.arch:base", "vaswani2017.arch:big"),
    ("gpt2.arch:small", "gpt2.arch:xl"),
    ("gpt2.arch", "llama.arch:smollm2_135M"),
    ("bert.arch:Bert", "gpt2.arch:small"),
)


def test_expand_prints_a_file_that_is_formatted_and_compiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["expand", "gpt.arch", *TINY]) == 0
    text, err = capsys.readouterr()
    assert err == ""
    assert archdsl.format(archdsl.parse(text)) == text
    path = tmp_path / "gpt.arch"
    path.write_text(text)
    assert archdsl.check(str(path)) == []
    assert main(["expand", str(path)]) == 0
    assert capsys.readouterr().out == text


def test_expand_of_a_wrong_spec_is_a_diagnostic(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["expand", "gpt.arch", "--set", "heads=5"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "error[divisibility]" in err


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_diff_prints_features(
    left: str,
    right: str,
    golden: Callable[[str, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["diff", left, right]) == 0
    name = f"{left} {right}".replace(".arch", "").replace(":", "_").replace(" ", "-")
    golden(f"diff/{name}.txt", capsys.readouterr().out)


def test_equal_models_have_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "same.arch"
    assert main(["expand", "gpt.arch"]) == 0
    path.write_text(capsys.readouterr().out)
    assert main(["diff", "gpt.arch", str(path)]) == 0
    assert capsys.readouterr().out == "no differences\n"
    assert main(["diff", "gpt.arch", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"] == {}


def test_a_difference_without_a_feature_is_printed_from_the_graphs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "model A(n = 3) { input x: float[n] output y: float[n] = x -> scale(2) -> relu }"
    one, two, three = (tmp_path / name for name in ("one.arch", "two.arch", "three.arch"))
    one.write_text(text)
    two.write_text(text.replace("2", "3"))
    three.write_text(text.replace("relu", "gelu"))
    assert main(["diff", str(one), str(two)]) == 0
    assert capsys.readouterr().out == (
        "  the graphs differ in  scale(by = 2.0): float[n = 3]\n"
        "                        -> scale(by = 3.0): float[n = 3]\n"
    )
    assert main(["diff", str(one), str(three)]) == 0
    assert capsys.readouterr().out == (
        "  operators             1 relu more          -> 1 gelu more\n"
        "  the graphs differ in  relu(): float[n = 3] -> gelu(): float[n = 3]\n"
    )


def test_diff_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "vaswani2017.arch:base", "vaswani2017.arch:big", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["left"], data["right"]) == ("vaswani2017.arch:base", "vaswani2017.arch:big")
    assert data["differences"]["dropout"] == {"left": "0.1", "right": "0.3"}
    assert data["differences"]["parameters"]["right"] == "214,245,376"


def test_diff_with_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "gpt.arch", "gpt0.arch"]) == 1
    assert "there is no file `gpt0.arch`" in capsys.readouterr().err
