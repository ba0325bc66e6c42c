"""The help of the commands, tables of 80 columns, and JSON."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest

from archdsl.cli import COMMANDS, main, parse_arguments
from archdsl.cli.common import FIRST_STEPS
from archdsl.cli.table import WIDTH
from tests.suite import some

# Their results are files, a script, a conversation, or the text of a spec.
WITHOUT_JSON = {
    "chat",
    "completion",
    "expand",
    "export",
    "fmt",
    "import",
    "lsp",
    "mcp",
    "merge",
}
WITHOUT_JSON |= {"play"}

SHOW = [("show", "t5.arch:small", "--emit", stage) for stage in ("typed", "passes", "program")]
TABLES = [
    ("check", "gpt.arch"),
    ("check", "wav2vec2.arch"),
    ("check", "transformer.arch", "--blocks", "3"),
    ("check", "jamba.arch", "--blocks"),
    ("diff", "bert.arch", "t5.arch"),
    ("diff", "gpt2.arch:small", "llama.arch:smollm2_135M"),
    ("explain",),
    ("show", "gpt.arch", "--emit", "ast"),
    ("show", "gpt.arch", "--emit", "weights"),
]
DATA = [*TABLES, ("explain", "not-causal"), ("draw", "gpt.arch"), *SHOW]
QUICK = [TABLES[0], TABLES[6]]


def shown_help(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    return capsys.readouterr().out


def parse(command: str) -> argparse.Namespace:
    """Parses a command of a page or of a help, up to a redirection."""
    words = shlex.split(re.split(r" [<>|] ", command)[0], comments=True)
    assert words[0] == "archdsl"
    return parse_arguments(words[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_a_sentence_examples_that_parse_and_json_for_data(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    text = shown_help(name, capsys)
    _, about, *_ = text.split("\n\n")
    assert re.fullmatch(r"[A-Z][^\n]*\.", about)
    *_, examples = re.split(r"^examples?:\n", text, flags=re.MULTILINE)
    for example in examples.strip().splitlines():
        assert parse(example.strip()).run
    assert max(map(len, text.splitlines())) <= WIDTH
    assert ("--json" in text) == (name not in WITHOUT_JSON)


def test_the_first_steps_of_archdsl_alone_parse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    shown = capsys.readouterr().err
    assert len(FIRST_STEPS) == 3
    for command in FIRST_STEPS:
        assert f"\n  {command}\n" in shown
        assert parse(command).run
    assert max(map(len, shown.splitlines())) <= WIDTH


@pytest.mark.parametrize("command", some(TABLES, *QUICK), ids=" ".join)
def test_tables_fit_80_columns(
    command: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= WIDTH


def read_json(text: str) -> Any:
    """Reads JSON, which has no NaN and no infinity."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("command", some(DATA, *QUICK), ids=" ".join)
def test_json_is_strict(command: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--json"]) == 0
    assert read_json(capsys.readouterr().out)


def test_the_stages_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    def stage(name: str) -> Any:
        assert main(["show", "gpt.arch", "--set", "depth=1", "--emit", name, "--json"]) == 0
        return read_json(capsys.readouterr().out)

    tree = stage("ast")
    assert tree["node"] == "File"
    assert tree["children"][0]["children"][0]["fields"] == {"value": "blocks.arch"}
    assert stage("weights")[0] == {"path": "embed.weight", "shape": [50257, 768]}
    passes = {each["title"]: each["text"] for each in stage("passes")}
    assert passes["after eliminate_dead_code"] is None
    assert passes["after decompose"].startswith("graph GPT")
