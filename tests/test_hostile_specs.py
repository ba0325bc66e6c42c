"""Specs that are made to take long, to fail without a message, or to show other files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import archdsl
from archdsl.analysis import analyse, analyse_all, check
from archdsl.diagnostics import MOST, ArchError, Diagnostic, escape
from archdsl.graph.cost import cost

HEAD = "model M(D = 8) {\n  input x: float[T <= 4, D]\n"
TAIL = "  output y: float[T, D] = x\n}\n"


def problems(path: Path, text: str) -> list[Diagnostic]:
    (path / "a.arch").write_text(text)
    return check(str(path / "a.arch"))


def test_nested_stacks_are_checked_in_linear_time() -> None:
    blocks = "block s0(x: float[T, D]): float[T, D] { x -> linear(D) }\n" + "".join(
        f"block s{i}(x: float[T, D]): float[T, D] {{ x -> s{i - 1} * 1000 }}\n"
        for i in range(1, 20)
    )
    text = f"{blocks}{HEAD}  output y: float[T, D] = x -> s19\n}}\n"
    start = time.process_time()
    found = cost(analyse(archdsl.parse(text)).graph)
    assert time.process_time() - start < 5
    assert found.params == 72 * 1000**19
    assert found.activation_bytes == 4 * 2 * 4 * 8


def test_more_layers_than_a_range_can_count() -> None:
    text = f"{HEAD}  output y: float[T, D] = x -> h: {{ linear(D) }} * {10**29}\n}}\n"
    assert cost(analyse(archdsl.parse(text)).graph).params == 72 * 10**29


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD + "".join(f"  a{i} = x -> relu\n" for i in range(2000)) + TAIL, "unused-name"),
        (HEAD + "".join(f"  a{i} = b{i} -> relu\n" for i in range(900)) + TAIL, "unknown-name"),
        (HEAD + "".join(f"  a{i} = x -> rleu\n" for i in range(900)) + TAIL, "unknown-name"),
        ("model \n" * 3000, "syntax"),
        ("block a(x: float[D]): float[D] { x -> -> b }\n" * 900, "syntax"),
        ("block a(x: float[D]): float[D] { x -> relu }\n" * 900, "duplicate-name"),
    ],
    ids=["unused", "unknown", "misspelt", "items", "steps", "twice"],
)
def test_many_mistakes_are_reported_up_to_a_limit(text: str, code: str) -> None:
    start = time.process_time()
    try:
        found, _ = analyse_all(archdsl.parse(text))
    except ArchError as error:
        found = list(error.diagnostics)
    str(ArchError(found))
    assert time.process_time() - start < 5
    assert {each.code for each in found[:MOST]} == {code}
    assert len(found) == MOST
    assert found[-1].notes[-1].message == f"checking stops after {MOST} mistakes"


@pytest.mark.parametrize("text", ["x" + " -> relu" * 100_000, " + ".join("x" * 100_000)])
def test_a_file_that_no_one_writes_is_refused(text: str) -> None:
    with pytest.raises(ArchError, match="the file has more than 20,000 words"):
        archdsl.parse(f"{HEAD}  output y: float[T, D] = {text}\n}}\n")


def test_comments_are_not_counted() -> None:
    assert archdsl.check(archdsl.parse("# note\n" * 30_000 + HEAD + TAIL)) == []


@pytest.mark.long
def test_a_long_chain_of_files(tmp_path: Path) -> None:
    for i in range(500):
        use = f'use "u{i + 1}.arch"\n' if i < 499 else ""
        block = f"block k{i}(x: float[T, D]): float[T, D] {{ x -> relu }}\n"
        (tmp_path / f"u{i}.arch").write_text(use + block)
    text = f'use "u0.arch"\n{HEAD}  output y: float[T, D] = x -> k0 -> k499\n}}\n'
    assert problems(tmp_path, text) == []


def test_a_file_outside_of_the_folder_is_not_shown(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("root:password")
    (inside / "link.arch").symlink_to("../secret")
    for name in ("../secret", str(tmp_path / "secret"), "link.arch"):
        (found,) = problems(inside, f'use "{name}"\n{HEAD}{TAIL}')
        assert (found.code, found.message) == (
            "file",
            f"`{name}` is outside of the folder of the spec",
        )
        assert "password" not in found.render()


def test_a_file_below_the_folder_can_use_one_above_it(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "b.arch").write_text("block b(x: float[T, D]): float[T, D] { x -> relu }\n")
    (tmp_path / "parts" / "a.arch").write_text('use "../b.arch"\n')
    text = f'use "parts/a.arch"\n{HEAD}  output y: float[T, D] = x -> b\n}}\n'
    assert problems(tmp_path, text) == []


def test_what_a_terminal_obeys_is_shown_escaped(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f"{HEAD}  a = \x1b]0;title\x07 \u202e x\n{TAIL}")
    shown = found.render()
    assert escape(shown) == shown
    assert "\\x1b]0;title\\x07 \\u202e x" in shown
    line, marks = shown.splitlines()[2:4]
    assert line[marks.index("^") :].startswith("\\x1b]0;")
    with pytest.raises(ArchError, match=r"there is no file `a\\x1b\[31m.arch`"):
        analyse("a\x1b[31m.arch")


def test_a_long_line_is_cut_around_the_mistake(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f"{HEAD}{' ' * 3000}a = @ x{' ' * 3000}\n{TAIL}")
    line, marks = found.render().splitlines()[2:4]
    assert line[marks.index("^")] == "@"
    assert len(line) < 500
