"""The answers of the playground."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.play import browser
from archdsl.play.inspect import Inspector, Request, inspect, read_request
from archdsl.semantics.library import standard_library

SPECS = sorted(standard_library().glob("*.arch"))
CASES = sorted((Path(__file__).parents[1] / "cases" / "semantics").glob("*.arch"))
TINY = """use "blocks.arch"

model Tiny(D = 8, depth = 2) {
  input x: float[T <= 32, D]
  output y: float[T, D] = x -> self_attention_block(2, causal) * depth
}
"""


def codes(answer: dict[str, Any]) -> list[str]:
    return [each["code"] for each in answer["problems"]]


def test_a_model_has_facts_and_a_figure() -> None:
    answer = inspect(TINY, sizes={"T": 16}, batch=3, theme="dark")
    assert answer["model"] == "Tiny"
    assert not answer["problems"]
    assert answer["axes"] == [{"name": "T", "least": 1, "most": 32}]
    assert answer["outputs"] == {"y": "float[T, D = 8]"}
    parameters, *_ = answer["cost"]
    assert (parameters["value"], parameters["note"]) == ("1.744 k", "1,744; 6.976 kB")
    assert sum(each["params"] for each in answer["blocks"] if not each["level"]) == 1744
    assert answer["figure"].startswith("<svg")
    assert json.loads(json.dumps(answer)) == answer


def test_flops_are_those_of_the_batch() -> None:
    one, three = (inspect(TINY, batch=n, figure=False)["blocks"][0]["flops"] for n in (1, 3))
    assert three == 3 * one > 0


def test_the_lines_of_a_figure_are_those_of_the_text() -> None:
    lines = f"# a comment\n\n{TINY}".split("\n")
    figure = inspect("\n".join(lines))["figure"]
    found = {
        int(each) for each in re.findall(r'data-file="spec.arch" data-line="(\d+)"', figure)
    }
    assert found
    assert all("input" in lines[n - 1] or "output" in lines[n - 1] for n in found)


def test_a_mistake_has_its_place_and_its_fix() -> None:
    answer = inspect(TINY.replace("causal", "casual"))
    (problem,) = answer["problems"]
    (fix,) = problem["fixes"]
    (edit,) = fix["edits"]
    lines = TINY.replace("causal", "casual").split("\n")
    (line, start), (_, end) = edit["start"], edit["end"]
    assert lines[line][start:end] == "casual"
    assert edit["text"] == "causal"
    assert "figure" not in answer


def test_a_model_without_mistakes_is_drawn_beside_one_with_some() -> None:
    text = f"{TINY}\nmodel Bad(D = 8) {{\n  output y: float[D] = 1 -> nrom\n}}\n"
    answer = inspect(text)
    assert answer["model"] == "Tiny"
    assert "unknown-name" in codes(answer)
    assert "figure" in answer
    assert "figure" not in inspect(text, model="Bad")


def test_values_replace_defaults() -> None:
    answer = inspect(TINY, values={"D": 16}, figure=False)
    assert answer["outputs"] == {"y": "float[T, D = 16]"}
    answer = inspect(TINY, values={"D": 9})
    (refused,) = answer["refused"]
    assert refused.startswith("attention: D = 9 cannot be divided into 2 heads")
    assert "figure" not in answer


def test_a_variant_has_the_parameters_of_its_model() -> None:
    answer = inspect(f"{TINY}\nvariant wide = Tiny(D = 16)\n", model="wide", figure=False)
    (wide,) = (each for each in answer["models"] if each["kind"] == "variant")
    assert {each["name"]: each["default"] for each in wide["parameters"]} == {
        "D": "16",
        "depth": "2",
    }


def test_sizes_of_other_axes_are_refused() -> None:
    assert inspect(TINY, sizes={"S": 2})["refused"] == [
        "no axis `S` of `Tiny` varies\nexpected: `T`"
    ]
    (refused,) = inspect(TINY, sizes={"T": 33})["refused"]
    assert refused == "`T` cannot be 33\nexpected: 1 to 32"


def test_a_block_is_drawn_alone() -> None:
    text = "block half(x: float[T, D]): float[T, D] {\n  x -> linear(D)\n}\n"
    answer = inspect(text)
    assert (answer["model"], codes(answer)) == ("half", [])
    assert "linear" in answer["figure"].lower()
    text = TINY + text.replace("half", "other")
    assert inspect(text, model="other")["model"] == "other"


def test_an_inspector_builds_again_what_changed() -> None:
    inspector = Inspector()
    for text in (
        TINY,
        TINY.replace("D = 8", "D = 16"),
        TINY.replace("x ->", "x -> nrom ->"),
        TINY,
    ):
        answers = list(inspector.answers(Request(text)))
        assert answers[-1] == inspect(text)
        assert [each["complete"] for each in answers][-1]
    first, *_ = inspector.answers(Request(TINY.replace("D = 8", "D = 4")))
    assert first["outputs"] == {"y": "float[T, D = 4]"}


def test_the_chosen_model_is_answered_first() -> None:
    text = f"{TINY}\nvariant a = Tiny(D = 16)\n\nvariant b = Tiny(D = 32)\n"
    answers = list(Inspector().answers(Request(text, model="b")))
    assert [each["complete"] for each in answers] == [False, True]
    assert answers[0]["outputs"] == {"y": "float[T, D = 32]"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the request has no `text`"),
        ({"text": 1}, "`text` of a request cannot be 1"),
        ({"text": "", "modle": "a"}, "did you mean `model`?"),
        ({"text": "", "batch": 0}, "`batch` of a request cannot be 0"),
        ({"text": "", "batch": True}, "`batch` of a request cannot be True"),
        ({"text": "", "sizes": {"T": -1}}, "`sizes` of a request cannot be {'T': -1}"),
        ({"text": "", "level": []}, "`level` of a request cannot be []"),
    ],
)
def test_a_request_is_checked(data: object, message: str) -> None:
    with pytest.raises(ArchError, match=re.escape(message)):
        read_request(data)


def test_the_browser_has_answers_as_text() -> None:
    (answer,) = map(json.loads, browser.answers(json.dumps({"text": "", "level": "x"})))
    assert answer["refused"][0].startswith("error[argument-value]: `level` of a request")
    *_, answer = map(json.loads, browser.answers(json.dumps({"text": TINY})))
    assert answer == inspect(TINY)


def test_no_file_beside_the_text_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.arch").write_text("block secret(x: float[D]): float[D] { x }\n")
    monkeypatch.chdir(tmp_path)
    assert "file" in codes(inspect(f'use "secret.arch"\nuse "{tmp_path}/secret.arch"\n{TINY}'))


def test_no_text_raises() -> None:
    rng, inspector = random.Random(0), Inspector()
    texts = [
        "",
        "\n",
        "model",
        'use "',
        TINY.replace("\n", "\r\n"),
        "model M() {" * 50,
        "𝄞" * 9,
    ]
    for _ in range(8):
        cut = sorted(rng.choices(range(len(TINY)), k=2))
        texts.append(TINY[: cut[0]] + TINY[cut[1] :])
    for text in texts:
        json.dumps(inspector.answer(Request(text)))


@pytest.mark.few(2)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_mistake_has_an_answer(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(inspect(text)["problems"]) >= bool(archdsl.check(str(path)))


@pytest.mark.slow
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_model_of_the_library_is_drawn(path: Path) -> None:
    inspector, text = Inspector(), path.read_text("utf-8")
    for each in inspector.answer(Request(text, figure=False))["models"]:
        if each["ready"]:
            answer = inspector.answer(Request(text, model=each["name"]))
            assert not answer["problems"]
            assert "figure" in answer, each["name"]
