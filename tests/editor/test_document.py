"""A document finds the mistakes that `archdsl.check` finds, however its text came about."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

import archdsl
from archdsl.diagnostics import Diagnostic
from archdsl.editor.document import Document
from archdsl.editor.places import Lines, Position
from archdsl.editor.problems import problems
from archdsl.semantics.library import standard_library
from tests.suite import mostly_long

SPECS = sorted(standard_library().glob("*.arch"))
CASES = sorted((Path(__file__).parents[1] / "cases" / "semantics").glob("*.arch"))


def last(document: Document) -> list[Diagnostic]:
    *_, found = document.check()
    return found


def shown(found: Iterable[Diagnostic], document: Document) -> set[tuple[str, ...]]:
    """Mistakes by code, message and place."""
    return {
        (
            each.code,
            each.message,
            document.version.span_of(each.span).place if each.span else "",
        )
        for each in found
    }


@pytest.mark.few(3)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_document_has_the_mistakes_that_check_finds(path: Path) -> None:
    document = Document(path, path.read_text("utf-8"))
    assert shown(last(document), document) == shown(archdsl.check(str(path)), document)


@pytest.mark.parametrize("path", mostly_long(SPECS), ids=lambda path: path.stem)
@pytest.mark.slow
def test_no_spec_has_a_mistake(path: Path) -> None:
    assert last(Document(path, path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=() if n < 1 else pytest.mark.long) for n in range(4)]
)
def test_edits_in_steps_give_what_the_last_text_gives(seed: int) -> None:
    """Lines are removed, doubled and moved, and words are changed."""
    path = standard_library() / "vit.arch"
    lines = path.read_text("utf-8").split("\n")
    document = Document(path, "\n".join(lines))
    numbers = random.Random(seed)
    for _ in range(6):
        at = numbers.randrange(len(lines))
        match numbers.randrange(4):
            case 0:
                lines[at] = lines[at].replace("norm", "nrom").replace("D", "E")
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines.insert(numbers.randrange(len(lines)), lines.pop(at))
            case _:
                lines[at] = ""
        text = "\n".join(lines)
        document.update(text)
        fresh = Document(path, text)
        assert shown(last(document), document) == shown(last(fresh), fresh)


def test_before_a_model_is_built_its_old_mistakes_stay() -> None:
    text = (
        "model A(D = 4) {\n  input x: float[D]\n  output y: float[3] = x\n}\n\n"
        "model B(D = 4) {\n  input x: float[D]\n  output y: float[D] = x -> norm\n}\n"
    )
    document = Document(Path("a.arch"), text)
    assert [each.code for each in last(document)] == ["shape-mismatch"]
    document.update(text.replace("norm", "relu"))
    first, *_ = document.check()
    assert [each.code for each in first] == ["shape-mismatch"]


def test_a_mistake_in_a_used_file_is_shown_where_the_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "b.arch").write_text("block f(x: float[D]): float[D] {\n  x -> nrom\n}\n")
    path = tmp_path / "a.arch"
    text = 'use "b.arch"\n\nmodel M(D = 2) {\n  input x: float[D]\n'
    text += "  output y: float[D] = x -> f\n}\n"
    document = Document(path, text)
    (found,) = problems(document.version, last(document))
    assert found.range == Lines(text).range(4, 12)
    assert [where.path.name for where, _ in found.others] == ["b.arch"]
    assert found.message == "there is no block `nrom`\nhelp: did you mean `norm`?"


def test_columns_count_utf_16_units() -> None:
    text = "# 𝄞\nmodel M() { x }  # é"
    lines = Lines(text)
    for offset in range(len(text) + 1):
        assert lines.offset(lines.position(offset)) == offset
    assert lines.position(3) == Position(0, 4)
    assert lines.offset(Position(0, 99)) == 3
    assert lines.offset(Position(9, 0)) == len(text)


@pytest.mark.slow
def test_a_keystroke_gives_mistakes_in_100_ms() -> None:
    """Of names, and of types in the model that is changed, in the largest spec."""
    path = max(SPECS, key=lambda each: each.stat().st_size)
    text = path.read_text("utf-8")
    document = Document(path, text)
    last(document)
    times = []
    for number in range(5):
        start = time.process_time()
        document.update(text.replace("depth = 32", f"depth = 3{number}"))
        checks = document.check()
        next(checks)  # those of names
        next(checks)  # those of the first model
        times.append(time.process_time() - start)
        for _ in checks:
            pass
    assert min(times) <= 0.1, times
