"""Correct specs: settings, files, facts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl.analysis import analyse, analyse_all, models
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from archdsl.graph.nodes import Graph, Stack
from archdsl.semantics.library import standard_library
from archdsl.semantics.models import ModelBuilder
from tests.semantics.small import graph, model, output
from tests.suite import mostly_long

CASES = Path(__file__).parent / "cases" / "semantics"
SETTINGS = str(CASES / "settings.arch")


# -- settings and variants --


def attributes(variant: str, **settings: int | float | bool | str) -> dict[str, object]:
    """The attributes of the operators in a model of settings.arch."""
    made = analyse(f"{SETTINGS}:{variant}", settings=settings).graph
    return {
        f"{n.op}.{k}": v for n in made.nodes if not isinstance(n, Stack) for k, v in n.attrs
    }


def test_defaults_follow_the_parameters_that_they_are_made_of() -> None:
    assert attributes("Chosen")["mlp.sizes"] == (128, 32)
    assert attributes("Chosen", D=16)["mlp.sizes"] == (64, 16)
    assert attributes("Chosen", D=16, wide=5)["mlp.sizes"] == (5, 16)


@pytest.mark.parametrize(
    ("setting", "value", "where", "meaning"),
    [
        ("act", "silu", "mlp.act", "silu"),
        ("bias", False, "mlp.bias", False),
        ("rate", 0.25, "dropout.rate", 0.25),
        ("rate", 0, "dropout.rate", 0.0),
        ("pattern", "a b -> a b", "reshape.pattern", "a b -> a b"),
    ],
)
def test_a_setting_is_of_its_defaults_kind(
    setting: str, value: int | float | bool | str, where: str, meaning: object
) -> None:
    found = attributes("Chosen", **{setting: value})[where]
    assert found == meaning
    assert type(found) is type(meaning)


def test_a_variant_gives_what_has_no_default_and_a_setting_comes_over_it() -> None:
    assert output(analyse(f"{SETTINGS}:small").graph, "y") == "float[T, D = 8]"
    made = analyse(f"{SETTINGS}:small", settings={"D": 4}).graph
    assert output(made, "y") == "float[T, D = 4]"
    made = analyse(f"{SETTINGS}:Required", settings={"D": 2}).graph
    assert output(made, "y") == "float[T, D = 2]"


def test_the_models_of_a_file() -> None:
    assert models(SETTINGS) == ["Chosen", "Required", "Turned"]
    assert models(f"{SETTINGS}:small") == ["small"]
    assert models("blocks.arch") == []


CHOOSING = """
block outer(x: float[T, D], act = relu, causal = false): float[T, D] {
  x -> inner(act, causal)
}

block inner(x: float[T, D], act, causal = false): float[T, D] {
  x -> mlp(2 * D, D, act) -> attention(2, causal)
}
"""


@pytest.mark.parametrize(
    ("call", "act", "causal"),
    [
        ("outer", "relu", False),
        ("outer(silu)", "silu", False),
        ("outer(silu, causal)", "silu", True),
        ("outer(causal, silu)", "silu", True),
        ("outer(causal = true)", "relu", True),
        ("outer(act = tanh, causal = false)", "tanh", False),
    ],
)
def test_choices_and_switches_go_down_through_blocks(call: str, act: str, causal: bool) -> None:
    made = graph(model(f"float[T, D] = x -> {call}", blocks=CHOOSING))
    found = {k: v for n in made.nodes for k, v in n.attrs if k in ("act", "mask")}  # type: ignore[union-attr]
    assert found == {"act": act, "mask": "causal" if causal else None}


def test_a_bare_name_is_the_switch_of_its_name_and_no_other() -> None:
    """Without that rule `attention(heads, bias)` would make attention causal."""
    block = "block f(x: float[T, D], bias = true): float[T, D] { x -> attention(2, bias) }"
    (node,) = graph(model("float[T, D] = x -> f", blocks=block)).nodes
    assert dict(node.attrs)["mask"] is None  # type: ignore[union-attr]
    assert dict(node.attrs)["bias"] is True  # type: ignore[union-attr]


# -- files --


def test_use_means_a_file_beside_this_one_and_then_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "model M(D = 8) { input x: float[4, D] output y: float[4, D] = x -> "
    (tmp_path / "lib").mkdir()
    (tmp_path / "blocks.arch").write_text("block elsewhere(x: float[T, D]): float[T, D] { x }")
    (tmp_path / "lib" / "own.arch").write_text(
        'use "blocks.arch"\nblock own(x: float[T, D]): float[T, D] { x -> pre_norm(norm) }'
    )
    (tmp_path / "library.arch").write_text(f'use "lib/own.arch"\n{body} own }}')
    (tmp_path / "beside.arch").write_text(f'use "blocks.arch"\n{body} elsewhere }}')
    # The current folder is not searched.
    monkeypatch.chdir(tmp_path)
    assert archdsl.check("library.arch") == []
    monkeypatch.chdir(tmp_path / "lib")
    assert archdsl.check(str(tmp_path / "beside.arch")) == []
    assert archdsl.check("../beside.arch") == []


def test_a_library_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert analyse("gpt.arch").graph.name == "GPT"


@pytest.mark.parametrize(
    "path", mostly_long(sorted(standard_library().glob("*.arch"))), ids=lambda p: p.name
)
def test_the_library_has_no_mistake(path: Path) -> None:
    assert archdsl.check(str(path)) == []


# -- facts and sizes --

FACTS = """
model Line(n = 3) {
  input x: float[n]
  output y: float[4] = x -> linear(4)
  expect params == 16
}

variant wide = Line(n = 30) {
  expect params == 124
}
"""


def test_facts_hold_for_the_sizes_that_they_were_written_for() -> None:
    file = archdsl.parse(FACTS)
    assert archdsl.check(file) == []
    analyse(file)
    analyse(file, "wide")
    analyse(file, settings={"n": 4})
    analyse(file, "wide", settings={"n": 4})


def test_a_fact_of_a_variant_is_checked_only_for_it() -> None:
    file = archdsl.parse(FACTS.replace("124", "125"))
    assert [d.code for d in archdsl.check(file)] == ["expect"]
    analyse(file)
    with pytest.raises(ArchError, match="params == 125"):
        analyse(file, "wide")


def test_a_mistake_in_one_model_does_not_hide_those_of_another() -> None:
    wrong = (
        "model Wrong(n = 3) {\n  input x: float[n]\n  output y: float[4] = x -> linear(n)\n}\n"
    )
    file = archdsl.parse(wrong + FACTS.replace("16", "17"))
    assert [d.code for d in archdsl.check(file)] == ["shape-mismatch", "expect"]


@pytest.mark.parametrize(
    ("spec", "settings", "expected"),
    [
        ("gpt.arch", {}, ["GPT"]),
        ("gpt.arch", {"depth": 6}, ["GPT"]),
        ("vaswani2017.arch:big", {"rate": 0.2}, ["Transformer"]),
    ],
)
def test_check_builds_each_model_once(
    spec: str,
    settings: dict[str, int | float | bool | str],
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[str] = []
    build = ModelBuilder.build

    def counted(builder: ModelBuilder, *arguments: Any) -> Graph | None:
        built.append(builder.model.name.id)
        return build(builder, *arguments)

    monkeypatch.setattr(ModelBuilder, "build", counted)
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert main(["check", spec, *flags]) == 0
    assert built == expected


def test_check_reports_mistakes_of_settings() -> None:
    problems, known = analyse_all("gpt.arch", {"heads": 5})
    assert [problem.code for problem in problems] == ["divisibility"]
    assert known == {}


def test_blocks_may_nest_deeply_but_not_endlessly() -> None:
    chain = "\n".join(
        f"block b{i}(x: float[T, D]): float[T, D] {{ x -> b{i + 1} }}" for i in range(400)
    )
    last = "block b400(x: float[T, D]): float[T, D] { x -> norm }"
    deep, shallow = (
        archdsl.parse(model(f"float[T, D] = x -> {name}", blocks=chain + last))
        for name in ("b0", "b370")
    )
    limit = sys.getrecursionlimit()  # importing tinygrad raises it
    try:
        sys.setrecursionlimit(1000)
        (found,) = archdsl.check(deep)
        assert archdsl.check(shallow) == []
    finally:
        sys.setrecursionlimit(limit)
    assert found.message == "the blocks of `M` are nested too deeply"


# -- imports --


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


LOADED = "; assert not [m for m in sys.modules if m.partition('.')[0] == 'tinygrad']"


def test_importing_archdsl_imports_no_tinygrad() -> None:
    ran = run("import sys, archdsl" + LOADED)
    assert ran.returncode == 0, ran.stderr


def test_a_model_of_175_billion_is_checked_and_costed_without_tinygrad() -> None:
    """GPT-3 175B (Brown et al. 2020, table 2.1), but for the head, which is not tied here."""
    vocab, context, D, depth = 50257, 2048, 12288, 96
    block = 12 * D**2 + 13 * D
    count = (vocab + context) * D + depth * block + 2 * D + (D + 1) * vocab
    sizes = (f"context={context}", f"D={D}", "heads=96", f"depth={depth}")
    settings = [word for size in sizes for word in ("--set", size)]
    code = "import sys; from archdsl.cli import main; status = main(['check', *sys.argv[1:]])"
    ran = run(f"{code}{LOADED}; sys.exit(status)", "gpt.arch", *settings)
    assert ran.returncode == 0, ran.stderr
    assert f"{count:,}" in ran.stdout


@pytest.mark.long
def test_blocks_that_double_at_every_level_are_refused() -> None:
    chain = "block b0(x: float[T, D]): float[T, D] { x -> norm -> norm }\n" + "\n".join(
        f"block b{i}(x: float[T, D]): float[T, D] {{ x -> b{i - 1} -> b{i - 1} }}"
        for i in range(1, 41)
    )
    (found,) = archdsl.check(archdsl.parse(model("float[T, D] = x -> b40", blocks=chain)))
    assert found.code == "cycle"
    assert found.message == "the model calls more than 10000 blocks"


def test_a_block_is_no_model() -> None:
    with pytest.raises(ArchError, match="a block, which only `archdsl draw` takes"):
        analyse("llama.arch:rms_layer")
