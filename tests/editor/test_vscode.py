"""The VS Code extension: its grammar agrees with the compiler, and npm packs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import pytest

from archdsl.graph.ops import CALLED
from archdsl.semantics.library import standard_library
from archdsl.syntax.parser import grammar
from editors import generate

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


@pytest.mark.slow
def test_npm_packs_the_extension(extension: Path) -> None:
    _run(extension, "node", "--check", "extension.js")
    _run(extension, "npm", "run", "package")
    (package,) = extension.glob("*.vsix")
    names = ZipFile(package).namelist()
    assert "extension/syntaxes/arch.tmLanguage.json" in names
    assert "extension/node_modules/vscode-languageclient/package.json" in names
    assert not any("vscode-textmate" in name for name in names)
