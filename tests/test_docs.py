"""The documentation: every spec in it checks, and what is generated is up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import archdsl
from archdsl.diagnostics import CODES
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Kind, Param

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
