"""Diagnostics have colours on a terminal and nowhere else."""

from __future__ import annotations

import io
import re

import pytest

from archdsl.cli import main
from archdsl.cli.colour import coloured, shows_colours
from archdsl.diagnostics import Diagnostic, Note, Source, Span

SPEC = Source("a.arch", "= help: | ^^^\nh = tokens -> nrom\n")
TEXT = Diagnostic(
    "unknown-name",
    "`nrom` is not defined here",
    Span(SPEC, 28, 32),
    notes=(Note("error[file]: a note", Span(SPEC, 0, 1)),),
    expected="a block",
    help="did you mean `norm`?",
).render()
ENVIRONMENT = ("NO_COLOR", "FORCE_COLOR", "TERM")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def test_each_part_has_its_colour() -> None:
    red, blue, bold, green, cyan = (f"\x1b[{n}m" for n in ("1;31", "34", "1", "32", "36"))
    end = "\x1b[0m"
    assert coloured(TEXT, Terminal()).splitlines() == [
        f"{bold}a.arch:2:15: {end}{red}error[unknown-name]:{end}"
        f"{bold} `nrom` is not defined here{end}",
        f"{blue}  |{end}",
        f"{blue}2 |{end} h = tokens -> nrom",
        f"{blue}  |{end}               {red}^^^^{end}",
        f"  = {cyan}expected:{end} a block",
        f"  = {cyan}note:{end} error[file]: a note",
        f"{blue} --> a.arch:1:1{end}",
        f"{blue}  |{end}",
        f"{blue}1 |{end} = help: | ^^^",
        f"{blue}  |{end} \x1b[1;34m-{end}",
        f"  = {green}help: did you mean `norm`?{end}",
    ]


def test_colours_add_nothing_else() -> None:
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured(TEXT, Terminal())) == TEXT
    assert coloured(TEXT, io.StringIO()) == TEXT


@pytest.mark.parametrize(
    ("variables", "terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_when_there_are_colours(
    variables: dict[str, str],
    terminal: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert shows_colours(Terminal() if terminal else io.StringIO()) == expected


@pytest.mark.parametrize("command", [["check", "nowhere.arch"], ["expand", "nowhere.arch"]])
def test_commands_colour_their_errors(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(command) == 1
    assert capsys.readouterr().err.startswith("\x1b[1;31merror[file]:\x1b[0m")
