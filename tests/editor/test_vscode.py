"""The VS Code extension: its grammar agrees with the compiler, and npm packs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from html import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from zipfile import ZipFile

import pytest

from archdsl.graph.ops import CALLED
from archdsl.semantics.library import standard_library
from archdsl.syntax.parser import grammar
from editors import generate
from tests.browser import open_page, screenshot

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "editors" / "vscode"


@pytest.mark.parametrize("path", generate.files(), ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path, request: pytest.FixtureRequest) -> None:
    text = generate.files()[path]
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text("utf-8") == text, "run `python -m editors.generate`"


def test_the_grammar_has_every_operator() -> None:
    names = re.search(
        r"\\b\(([\w|]+)\)", generate.textmate()["repository"]["call"]["patterns"][0]["match"]
    )
    assert names is not None
    assert set(CALLED) <= set(names[1].split("|"))


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the extension with the packages that it needs."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("vscode")
    for path in SOURCES.iterdir():
        if path.is_dir() and path.name != "node_modules":
            shutil.copytree(path, folder / path.name)
        elif path.is_file():
            shutil.copy(path, folder)
    _run(folder, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts")
    return folder


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expected(type: str, text: str) -> str:
    """A pattern of the scopes of a token of the compiler."""
    pattern = str(grammar().get_terminal(type).pattern.value)
    match type:
        case "STRING":
            return "string.quoted.double"
        case "INT" | "FLOAT":
            return "constant.numeric"
        case "TRUE" | "FALSE":
            return "constant.language"
        case "PATH" | "PLACE":
            return "variable.other.path"
        case "ARROW":
            return "keyword.operator.arrow"
        case "CALLEE":
            operator = "support.function.(operator|conversion)"
            named = "entity.name.(function|type)|support.function|storage.type"  # `one_of(…)`
            return operator if text in CALLED else named
        case "NAME":
            # Not as a keyword.
            return "source|constant.language|entity.name|variable|support.function"
        case _ if re.match("[a-z]{2}", pattern):
            return "keyword.(control|other|declaration)|storage.type"
        case _ if re.fullmatch(r"[()\[\]{}.]+", text):
            return "source"
        case _:
            return "keyword.operator|punctuation"


@pytest.mark.slow
def test_scopes_agree_with_the_compiler(extension: Path) -> None:
    paths = sorted(map(str, standard_library().glob("*.arch")))
    found = json.loads(_run(extension, "node", "tokens.js", *paths))
    wrong: Counter[tuple[str, ...]] = Counter()
    for path in paths:
        text = Path(path).read_text("utf-8")
        scopes = [""] * len(text)
        for start, end, scope in found[path]:
            scopes[start:end] = [scope] * (min(end, len(text)) - start)
        for token in grammar().parse_interactive(text).iter_parse():
            assert token.start_pos is not None
            here = set(scopes[token.start_pos : token.end_pos])
            want = expected(token.type, str(token))
            if not all(re.match(want, scope) for scope in here):
                wrong[token.type, str(token), *here] += 1
    assert not wrong


# The colours of scopes in VS Code's themes Light+ and Dark+, of other text, and of the page.
THEMES = {
    "light": {
        "": "#000000",
        "comment": "#008000",
        "string": "#a31515",
        "constant.numeric": "#098658",
        "constant.language": "#0000ff",
        "keyword": "#0000ff",
        "keyword.control": "#af00db",
        "keyword.operator": "#000000",
        "storage.type": "#0000ff",
        "entity.name.function": "#795e26",
        "support.function": "#795e26",
        "entity.name.type": "#267f99",
        "entity.name.tag": "#800000",
        "variable": "#001080",
        "ground": "#ffffff",
    },
    "dark": {
        "": "#d4d4d4",
        "comment": "#6a9955",
        "string": "#ce9178",
        "constant.numeric": "#b5cea8",
        "constant.language": "#569cd6",
        "keyword": "#569cd6",
        "keyword.control": "#c586c0",
        "keyword.operator": "#d4d4d4",
        "storage.type": "#569cd6",
        "entity.name.function": "#dcdcaa",
        "support.function": "#dcdcaa",
        "entity.name.type": "#4ec9b0",
        "entity.name.tag": "#569cd6",
        "variable": "#9cdcfe",
        "ground": "#1e1e1e",
    },
}
BRACKETS = frozenset("()[]{}.,:")
SAMPLES = ("gpt2.arch", "mamba.arch", "mistral.arch")


@pytest.mark.slow
@pytest.mark.parametrize("theme", list(THEMES))
@pytest.mark.parametrize("name", SAMPLES)
def test_a_spec_in_the_colours_of_vscode(extension: Path, name: str, theme: str) -> None:
    """Only names of values and brackets have no colour of their own."""
    path = standard_library() / name
    text = path.read_text("utf-8")
    scopes = json.loads(_run(extension, "node", "tokens.js", str(path)))[str(path)]
    colours = THEMES[theme]
    found = ["source.arch"] * len(text)
    for start, end, scope in scopes:
        found[start:end] = [scope] * (min(end, len(text)) - start)
    shown, plain = "", set[str]()
    for scope, group in groupby(zip(found, text, strict=True), key=itemgetter(0)):
        part = "".join(character for _, character in group)
        fitting = [each for each in colours if each and f"{scope}.".startswith(f"{each}.")]
        plain |= set() if fitting else set(re.findall(r"\w+|[^\s\w]", part))
        colour = colours[max(fitting, key=len, default="")]
        shown += f'<span style="color: {colour}">{escape(part)}</span>'
    style = f"background: {colours['ground']}; font: 14px/1.4 monospace; margin: 1em"
    with open_page(dark=theme == "dark", height=1200) as page:
        page.set_content(f'<body style="{style}"><pre>{shown}</pre>')
        assert page.inner_text("pre").rstrip() == text.rstrip()
        screenshot(page, f"vscode-{path.stem}-{theme}")
    keywords = {str(each.pattern.value) for each in grammar().terminals}
    assert {each for each in plain if not each.isidentifier()} <= BRACKETS
    assert not plain & (keywords - BRACKETS)


@pytest.mark.slow
def test_npm_packs_the_extension(extension: Path) -> None:
    _run(extension, "node", "--check", "extension.js")
    _run(extension, "npm", "run", "package")
    (package,) = extension.glob("*.vsix")
    names = ZipFile(package).namelist()
    assert "extension/syntaxes/arch.tmLanguage.json" in names
    assert "extension/node_modules/vscode-languageclient/package.json" in names
    assert not any("vscode-textmate" in name for name in names)
