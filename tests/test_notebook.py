"""In a notebook: the magic, and what models, graphs and mistakes look like."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.describe.breakdown import breakdown
from archdsl.graph.cost import parameter_count
from archdsl.graph.printer import show
from archdsl.model import Model
from archdsl.notebook import graph_table
from archdsl.semantics.library import standard_library

ROOT = Path(__file__).parents[1]

SPEC = """use "blocks.arch"

model Tiny(vocab = 50, context = 8, D = 32, depth = 1) {
  input tokens: int[T <= context] < vocab

  output logits: float[T, vocab] = tokens
    -> embed(vocab, D)
    -> self_attention_block(heads = 2, causal) * depth
    -> linear(vocab)

  loss next_token(logits, tokens)
}

variant deep = Tiny(depth = 3)
"""


@pytest.fixture(scope="module")
def shell() -> Iterator[Any]:
    interactiveshell = pytest.importorskip("IPython.core.interactiveshell")
    found = interactiveshell.InteractiveShell()
    found.display_formatter.active_types = ["text/plain", "text/html", "image/svg+xml"]
    found.run_line_magic("load_ext", "archdsl")
    yield found
    found.run_line_magic("unload_ext", "archdsl")


def words(text: str) -> list[str]:
    """The words of a figure, whose places may change; of other texts, all lines."""
    return re.findall(r">([^<>]+)</text>", text) or text.splitlines()


def shown(shell: Any, name: str) -> dict[str, str]:
    data, _ = shell.display_formatter.format(shell.user_ns[name])
    return dict(data)


def test_a_cell_is_a_spec(shell: Any) -> None:
    assert shell.run_cell(f"%%arch tiny D=16 depth=2\n{SPEC}").success
    tiny = shell.user_ns["tiny"]
    assert isinstance(tiny, Model)
    expected = analyse(archdsl.parse(SPEC), settings={"D": 16, "depth": 2}).graph
    assert tiny.graph == expected
    assert shell.run_cell(f"%%arch tiny:deep\n{SPEC}").result.graph.name == "Tiny"
    assert shell.user_ns["tiny"].graph == analyse(archdsl.parse(SPEC), "deep").graph


def test_a_model_is_its_figure_and_a_graph_a_table(shell: Any) -> None:
    shell.run_cell(f"%%arch tiny\n{SPEC}")
    assert "Embedding" in shown(shell, "tiny")["image/svg+xml"]
    graph = shell.user_ns["graph"] = shell.user_ns["tiny"].graph
    found = shown(shell, "graph")
    assert found["text/plain"] == show(graph)
    assert found["text/html"] == graph_table(graph)
    assert f"{parameter_count(graph):,}" not in found["text/html"]  # the parts, not the sum
    assert "attention" in found["text/html"]


def test_mistakes_have_no_traceback(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell(f"%%arch tiny\n{SPEC.replace(', causal', '')}")
    assert isinstance(result.error_in_exec, archdsl.ArchError)
    out = "".join(capsys.readouterr())
    assert "tiny.arch:11:19: error[not-causal]" in out
    assert "Traceback" not in out
    shell.run_cell("%%arch\nmodel")
    assert "expected: %%arch NAME[:VARIANT]" in "".join(capsys.readouterr())


def test_a_diagnostic_has_its_source(shell: Any) -> None:
    (found,) = archdsl.check(archdsl.parse(SPEC.replace("linear", "lnear")))
    shell.user_ns["found"] = [found]
    assert found.render() in shown(shell, "found")["text/plain"]


@pytest.mark.long
def test_the_notebook_prints_what_is_shown(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads((ROOT / "examples" / "tour.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        result = shell.run_cell("".join(cell["source"]))
        printed = "".join(capsys.readouterr()).replace(str(standard_library()), "specs")
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                assert "\n".join(output["traceback"]) in printed
                continue
            data, _ = shell.display_formatter.format(result.result)
            for kind, lines in output["data"].items():
                assert words(data[kind]) == words("".join(lines))
    assert {
        kind for cell in cells for each in cell["outputs"] for kind in each.get("data", ())
    } == {
        "text/plain",
        "text/html",
        "image/svg+xml",
    }


def test_a_table_has_a_row_for_each_part() -> None:
    graph = analyse(archdsl.parse(SPEC)).graph
    assert graph_table(graph).count("<tr>") == 1 + len(breakdown(graph, 3))
