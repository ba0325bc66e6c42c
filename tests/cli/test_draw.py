"""`archdsl draw` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from archdsl.cli import main


@pytest.mark.parametrize("suffix", [".svg", ".tex", ".html"])
def test_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"gpt{suffix}"
    assert main(["draw", "gpt.arch", "-o", str(path)]) == 0
    assert "Multi-Head" in path.read_text()


def test_svg_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "blocks.arch:self_attention_block", "--set", "causal=true"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("<svg")
    assert "Masked" in out


def test_json_is_the_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "gpt.arch", "--level", "model", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    steps = [step["item"] for step in tree["body"]["chain"]["steps"]]
    assert [item["node"] for item in steps] == [
        "text",
        "box",
        "sign",
        "box",
        "box",
        "box",
        "text",
    ]
    assert steps[3]["count"] == 12
    assert steps[3]["origin"]["line"] > 0


def test_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "gpt2.arch", "llama.arch:tiny", "--diff"]) == 0
    out = capsys.readouterr().out
    assert 'class="box norm left"' in out
    assert 'class="box norm right"' in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gpt.arch", "-o", "a.jpg"], ["`.png`", "expected: .svg"]),
        (["gpt.arch", "bert.arch:Bert"], ["2 specs", "add --diff"]),
        (["gpt.arch", "--diff"], ["1 specs", "expected: two specs"]),
        (["blocks.arch:pre_norm"], ["takes a block, `sublayer`"]),
        (["blocks.arch:self"], ["self"]),
        (["llama.arch:rms_layr"], ["has no variant `rms_layr`", "did you mean `rms_layer`?"]),
    ],
)
def test_mistakes(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    for word in words:
        assert word in err


@pytest.mark.parametrize("name", ["gpt", "vaswani2017", "vit"])
def test_figures_of_the_documentation(
    name: str, golden: Callable[[str, str], None], tmp_path: Path
) -> None:
    """The files that README.md and docs/figures.md show are those that the command writes."""
    path = tmp_path / f"{name}.svg"
    assert main(["draw", f"{name}.arch", "-o", str(path)]) == 0
    golden(f"../../docs/figures/{name}.svg", path.read_text())
