"""The grammar of tree-sitter reads what the compiler reads, and its queries colour it."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from archdsl.graph.ops import CALLED
from archdsl.semantics.library import standard_library
from archdsl.syntax import ast
from archdsl.syntax.parser import grammar, parse
from archdsl.syntax.traversal import walk

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "editors" / "tree-sitter-arch"
SPECS = sorted(standard_library().glob("*.arch"))
# The files there without a mistake.
CASES = [
    ROOT / "tests" / "cases" / "syntax" / name for name in ("everything.arch", "messy.arch")
]

# The classes of the compiler's tree that are nodes of tree-sitter's, by the names of rules.
KINDS = [ast.Use, ast.Block, ast.Model, ast.Variant, ast.Weights, ast.SharedLines, ast.Param]
KINDS += [ast.Input, ast.Weight, ast.Edge, ast.Edges, ast.State, ast.Output, ast.Loss, ast.Init]
KINDS += [ast.Expect, ast.ExpectType, ast.Result, ast.Type, ast.Axis, ast.Call, ast.Chain]
KINDS += [ast.Lambda, ast.Labeled, ast.When, ast.Compare, ast.Binary, ast.Repeat, ast.Negate]
KINDS += [ast.Not, ast.Several, ast.Int, ast.Float, ast.Bool, ast.Rule, ast.Setting]
KINDS += [ast.Include, ast.Only, ast.Ignore, ast.Optional, ast.Rename, ast.Conversion]


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The language, generated and compiled."""
    tree_sitter = pytest.importorskip("tree_sitter")
    if not shutil.which("tree-sitter") or not shutil.which("cc"):
        pytest.skip("tree-sitter, of the npm package tree-sitter-cli, or cc is not installed")
    folder = tmp_path_factory.mktemp("grammar") / "tree-sitter-arch"
    shutil.copytree(SOURCES, folder)
    subprocess.run(["tree-sitter", "generate"], cwd=folder, check=True)
    compiled = folder / "arch.so"
    command = ["cc", "-shared", "-fPIC", "-Isrc", "src/parser.c", "-o", str(compiled)]
    subprocess.run(command, cwd=folder, check=True)
    function = ctypes.CDLL(str(compiled)).tree_sitter_arch
    function.restype = ctypes.c_void_p
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype = ctypes.py_object
    capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return tree_sitter.Language(capsule(function(), b"tree_sitter.Language", None))


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in node.children:
        yield from nodes(child)


def rule(kind: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


@pytest.mark.slow
@pytest.mark.parametrize("path", [*SPECS, *CASES], ids=lambda path: path.stem)
def test_the_nodes_are_those_of_the_compiler(language: Any, path: Path) -> None:
    from tree_sitter import Parser

    text = path.read_text("utf-8")
    root = Parser(language).parse(text.encode()).root_node
    wrong = [each for each in nodes(root) if each.is_error or each.is_missing]
    assert [each.start_point for each in wrong] == []
    found = Counter(each.type for each in nodes(root) if each.is_named)
    expected = Counter(type(each) for each in walk(parse(text)))
    assert {rule(kind): found[rule(kind)] for kind in KINDS} == {
        rule(kind): expected[kind] for kind in KINDS
    }


def captured(type: str, text: str) -> str:
    """A pattern of the captures of a token of the compiler."""
    pattern = str(grammar().get_terminal(type).pattern.value)
    match type:
        case "STRING":
            return "string$"
        case "INT" | "FLOAT":
            return "number"
        case "TRUE" | "FALSE":
            return "boolean"
        case "PATH":
            return "string.special"
        case "PLACE":
            return "label|property"
        case "CALLEE":
            return "function.builtin" if text in CALLED else "function|type"
        case "NAME":
            return "variable|constant|function|type|label|property"
        case _ if re.match("[a-z]{2}", pattern):
            return "keyword|type.builtin"
        case _ if re.fullmatch(r"[()\[\]{}]", text):
            return "punctuation.bracket"
        case _ if text in ",:":
            return "punctuation.delimiter"
        case _:
            return "operator"


@pytest.mark.slow
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_queries_agree_with_the_compiler(language: Any, path: Path) -> None:
    from tree_sitter import Parser, Query, QueryCursor

    query = Query(language, (SOURCES / "queries" / "highlights.scm").read_text("utf-8"))
    text = path.read_text("utf-8")
    root = Parser(language).parse(text.encode()).root_node
    last: dict[int, tuple[int, str]] = {}
    for number, captures in QueryCursor(query).matches(root):
        for name, found in captures.items():
            for each in found:
                last[each.start_byte] = max(last.get(each.start_byte, (-1, "")), (number, name))
    places = list(accumulate((len(each.encode()) for each in text), initial=0))
    wrong: Counter[tuple[str, str, str]] = Counter()
    for token in grammar().parse_interactive(text).iter_parse():
        assert token.start_pos is not None
        if str(token) != "...":
            name = last.get(places[token.start_pos], (-1, "nothing"))[1]
            if not re.match(captured(token.type, str(token)), name):
                wrong[token.type, str(token), name] += 1
    assert not wrong
