"""The pages of the error codes: docs/errors/CODE.md.

A page shows a mistake under "Example" and the correction under "Fix". A spec (```arch) is
written to the file that the next command names. The output of a command (```console) or of
Python code (```python, then ```text) must be exactly the one shown. `pytest --update-golden`
writes it into the page.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

import archdsl
from archdsl import diagnostics
from archdsl.cli import main
from archdsl.diagnostics import CODES, ArchError

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "errors"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", CODES)
def test_the_page_of_each_code(
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    page = FOLDER / f"{code}.md"
    text = page.read_text(encoding="utf-8")
    introduction, example, fix = re.split(r"^## (?:Example|Fix)\n", text, flags=re.MULTILINE)

    monkeypatch.chdir(tmp_path)
    names = dict[str, object]()  # the fix may use what the example defines
    mistakes, corrections = list[str](), list[str]()
    printed = run_blocks(example, names, mistakes)
    fixed = run_blocks(fix, names, corrections)
    if request.config.getoption("--update-golden"):
        _, _, why = introduction.split("\n\n", 2)
        text = f"# {code}\n\n{CODES[code]}\n\n{why}## Example\n{printed}## Fix\n{fixed}"
        page.write_text(text, encoding="utf-8", newline="\n")
    else:
        assert introduction.startswith(f"# {code}\n\n{CODES[code]}\n\n")
        assert (printed, fixed) == (example, fix)
    assert set(re.findall(r"error\[(.*?)\]", "".join(mistakes))) == {code}
    assert "error[" not in "".join(corrections)
    specs = [block for kind, block in BLOCK.findall(fix) if kind == "arch"]
    assert specs or "```python" in fix or "```console" in fix
    for spec in specs:
        file = archdsl.parse(spec, "right.arch")
        assert [d.render() for d in archdsl.check(file)] == []
        assert archdsl.format(file) == spec


def run_blocks(part: str, names: dict[str, object], outputs: list[str]) -> str:
    """Runs the blocks of a part of a page; returns the part with what they print now.

    `names` are the global names of Python code; each output is appended to `outputs`.
    """
    spec = ""

    def run(match: re.Match[str]) -> str:
        nonlocal spec
        kind, block = match.groups()
        if kind == "arch":
            spec = block
        elif kind == "python":
            outputs.append(run_python(block, names))
        elif kind == "text":
            return f"```text\n{outputs[-1]}```"
        elif kind == "console":
            shown = ""
            for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
                outputs.append(run_command(command, spec))
                shown += f"$ {command}\n{outputs[-1]}"
            return f"```console\n{shown}```"
        return match[0]

    return BLOCK.sub(run, part)


def run_python(code: str, names: dict[str, object]) -> str:
    """Runs Python code; returns what it prints, with the message of an `ArchError`."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(code, names)
        except ArchError as error:
            out.write(f"{error}\n")
    return out.getvalue().replace(f"{ROOT}/", "")


def run_command(command: str, spec: str) -> str:
    """Runs a command; its second word is a file that holds the spec if it does not exist."""
    program, *arguments = shlex.split(command)
    assert program == "archdsl"
    file = Path(arguments[1].partition(":")[0])
    if spec and file.suffix == ".arch":
        file.write_text(spec, encoding="utf-8")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main(arguments)
    return out.getvalue() + err.getvalue()


def test_each_page_has_a_code() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} == {*CODES, "README"}


def test_each_code_is_used_in_the_sources() -> None:
    sources = [p for p in (ROOT / "archdsl").rglob("*.py") if p.name != "diagnostics.py"]
    text = "\n".join(p.read_text(encoding="utf-8") for p in sources)
    assert [code for code in CODES if f'"{code}"' not in text] == []


def test_explain_prints_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "not-causal"]) == 0
    assert capsys.readouterr().out == (FOLDER / "not-causal.md").read_text(encoding="utf-8")


def test_explain_lists_the_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    listed = re.findall(r"^\S+", capsys.readouterr().out, re.MULTILINE)
    assert listed == [*CODES]


def test_explain_of_an_unknown_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "not-casual"]) == 1
    assert capsys.readouterr().err == (
        "error[argument-value]: there is no error code `not-casual`\n"
        "  = help: did you mean `not-causal`?\n"
    )


def test_an_installed_package_has_the_pages_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "errors").mkdir()
    monkeypatch.setattr(diagnostics, "__file__", str(tmp_path / "diagnostics.py"))
    assert diagnostics.page("axis") == tmp_path / "errors" / "axis.md"
