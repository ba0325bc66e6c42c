"""What the playground runs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.diagnostics import ArchError
from archdsl.formats import write_npz
from archdsl.play.arrays import summary
from archdsl.play.given import Given
from archdsl.play.protocol import GIVEN, RunRequest, read_run_request
from archdsl.play.runs import Runs

TINY = """use "blocks.arch"

model Tiny(vocab = 16, D = 16, heads = 2) {
  input tokens: int[T <= 32] < vocab
  x = tokens -> embed(vocab, D) -> self_attention_block(heads, causal)
  output logits: float[T, vocab] = x -> linear(vocab)
  loss next_token(logits, tokens)
}
"""
IMAGES = """
model Images(side = 4, classes = 3) {
  input image: float[3, side, side]
  output logits: float[classes] = image -> patches(side) -> mean -> linear(classes)
  loss cross_entropy(logits, label: int < classes)
}
"""
OTHER = """
model Other(D = 4) {
  input x: float[T <= 8, D]
  input scale: float[D] = 1.0
  output y: float[T, D] = x * scale -> linear(D)
}
"""
LETTERS = list(" abcdefghijklmno")  # as many as TINY has tokens


def runs(**given: Any) -> Runs:
    return Runs(Given(device="CPU", **given), 10**9)


def only(answers: Iterator[dict[str, Any]]) -> dict[str, Any]:
    (answer,) = answers
    return answer


def refused(answers: Iterator[dict[str, Any]]) -> str:
    with pytest.raises(ArchError) as error:
        list(answers)
    return str(error.value)


def test_the_inputs_of_a_model() -> None:
    tokens = only(runs().inputs(RunRequest(TINY)))
    assert tokens["inputs"] == [
        {"name": "tokens", "kind": "tokens", "type": "int[T] < 16", "optional": False}
    ]
    assert (tokens["tasks"], tokens["weights"]) == (["generate", "run"], ["random"])
    images = only(runs().inputs(RunRequest(IMAGES)))
    assert [each["kind"] for each in images["inputs"]] == ["image"]
    assert images["tasks"] == ["classify", "run"]
    other = only(runs().inputs(RunRequest(OTHER)))
    assert [each["kind"] for each in other["inputs"]] == ["numbers", "numbers"]
    assert [each["optional"] for each in other["inputs"]] == [False, True]
    assert other["tasks"] == ["run"]


def test_a_tokenizer_is_used_if_the_model_has_its_tokens(tmp_path: Path) -> None:
    path = tmp_path / "letters.txt"
    path.write_text("\n".join(LETTERS), encoding="utf-8")
    given = runs(tokenizer=str(path))
    assert only(given.inputs(RunRequest(TINY)))["inputs"][0]["kind"] == "text"
    smaller = RunRequest(TINY, values={"vocab": 8})
    assert only(given.inputs(smaller))["inputs"][0]["kind"] == "tokens"


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    found = only(runs(tokenizer=missing, needs_tokenizer=True).inputs(RunRequest(TINY)))
    assert found["inputs"][0]["kind"] == "tokens"
    assert "none" in found["notes"][0]


def test_a_model_that_needs_too_much_memory_is_refused() -> None:
    text = refused(
        runs().generate(RunRequest(TINY, inputs={"tokens": [1]}, values={"D": 2**16}))
    )
    assert "error[limit]: `Tiny` needs more memory than a run may take" in text
    assert "expected: at most 1 GB" in text
    assert "GB of weights" in text
    wide = RunRequest(OTHER, values={"D": 10**9})
    assert "error[limit]" in refused(runs().run(wide))


def test_wrong_requests_are_refused() -> None:
    assert "the text has mistakes" in refused(
        runs().run(RunRequest("model M { output y = z }"))
    )
    assert "the text has no model" in refused(runs().run(RunRequest("")))
    assert "cannot generate tokens" in refused(runs().generate(RunRequest(OTHER)))
    assert "no token to begin with" in refused(runs().generate(RunRequest(TINY)))
    for given_image in ({}, {"image": [1.0]}):
        request = RunRequest(IMAGES, inputs=given_image)
        assert "there is no image" in refused(runs().classify(request))
    assert "does not classify" in refused(runs().classify(RunRequest(TINY)))
    given = RunRequest(TINY, weights=GIVEN)
    assert "no weights are given" in refused(runs().run(given))
    wrong = {"tokens": [1, 99]}
    assert "numbers must be 0 to 15" in refused(runs().run(RunRequest(TINY, inputs=wrong)))
    ragged = {"x": [[1.0] * 4, [2.0]]}
    assert "rows have different lengths" in refused(
        runs().run(RunRequest(OTHER, inputs=ragged))
    )
    inputs = {"x": {"image": "aGVsbG8="}}
    assert "`x` is not an image" in refused(runs().run(RunRequest(OTHER, inputs=inputs)))


@pytest.mark.reference("PIL")
@pytest.mark.parametrize(
    ("image", "message"), [("%", "base64"), ("aGVsbG8=", "cannot read the image")]
)
def test_broken_images_are_refused(image: str, message: str) -> None:
    request = RunRequest(IMAGES, inputs={"image": {"image": image}})
    assert message in refused(runs().classify(request))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the request has no `text`"),
        ({"text": 1}, "`text` of a request cannot be 1"),
        ({"text": "", "sede": 1}, "did you mean `seed`?"),
        ({"text": "", "seed": True}, "`seed` of a request cannot be True"),
        ({"text": "", "seed": -1}, "expected: a whole number, at least 0"),
        ({"text": "", "weights": "/etc/passwd"}, "expected: `random` or `given`"),
        ({"text": "", "inputs": [1]}, "an object with a value for each name"),
    ],
)
def test_requests_of_another_form_are_refused(data: object, message: str) -> None:
    with pytest.raises(ArchError) as error:
        read_run_request(data)
    assert message in str(error.value)


def test_a_text_reads_no_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.arch"
    secret.write_text("block secret(x: float[D]): float[D] { x }", encoding="utf-8")
    model = "model M(D = 4) { input x: float[D]  output y: float[D] = x -> secret }"
    text = f'use "{secret}"\n{model}'
    assert "mistakes" in refused(runs().run(RunRequest(text)))
    beside = text.replace(str(secret), "secret.arch")
    assert "mistakes" in refused(runs().run(RunRequest(beside)))
    assert only(runs(folder=str(tmp_path)).inputs(RunRequest(beside)))["tasks"] == ["run"]


@pytest.mark.long
def test_a_model_runs_and_generates(tmp_path: Path) -> None:
    letters = tmp_path / "letters.txt"
    letters.write_text("\n".join(LETTERS), encoding="utf-8")
    given = runs(tokenizer=str(letters))
    *_, found = given.run(RunRequest(TINY, inputs={"tokens": "abc"}))
    (logits,) = found["outputs"]
    assert (logits["name"], logits["shape"], found["drawn"]) == ("logits", [3, 16], [])
    values = [each["value"] for each in logits["top"]]
    assert values == sorted(values, reverse=True)
    assert [each["text"] for each in logits["top"]] == [
        LETTERS[each["index"]] for each in logits["top"]
    ]

    def tokens(**options: Any) -> list[dict[str, Any]]:
        request = RunRequest(TINY, inputs={"tokens": "abc"}, max_new_tokens=6, **options)
        return [each for each in given.generate(request) if "token" in each]

    greedy = tokens(temperature=0)
    assert greedy[0]["token"] == logits["top"][0]["index"]
    assert [each["text"] for each in greedy] == [LETTERS[each["token"]] for each in greedy]
    assert [each["ended"] for each in greedy] == [None] * 5 + ["length"]
    assert tokens(temperature=5.0) == tokens(temperature=5.0) != greedy
    assert tokens(temperature=5.0, top_k=1) == greedy
    # Without its tokenizer, the same tokens are numbers.
    request = RunRequest(TINY, inputs={"tokens": [1, 2, 3]}, max_new_tokens=6, temperature=0)
    plain = [each for each in runs().generate(request) if "token" in each]
    assert [each["token"] for each in plain] == [each["token"] for each in greedy]


@pytest.mark.long
def test_the_weights_of_the_command_line_are_used(tmp_path: Path) -> None:
    bias = np.array([0.0, 2.0, 1.0], np.float32)
    weights = {"linear.weight": np.zeros((3, 48), np.float32), "linear.bias": bias}
    write_npz(tmp_path / "w.npz", weights)
    given = runs(weights=str(tmp_path / "w.npz"))
    assert only(given.inputs(RunRequest(IMAGES)))["weights"] == ["random", "given"]
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.new("RGB", (9, 7), "red").save(file, "PNG")
    inputs = {"image": {"image": base64.b64encode(file.getvalue()).decode()}}
    *_, found = given.classify(RunRequest(IMAGES, inputs=inputs, weights=GIVEN))
    assert [each["label"] for each in found["classes"]] == ["1", "2", "0"]
    expected = np.exp(bias) / np.exp(bias).sum()
    np.testing.assert_allclose(found["classes"][0]["probability"], expected[1], rtol=1e-5)
    # Another model does not fit the weights.
    other = IMAGES.replace("classes = 3", "classes = 4")
    assert "error[checkpoint]" in refused(given.run(RunRequest(other, weights=GIVEN)))


def test_json_has_no_infinity() -> None:
    found = summary(np.array([np.inf, 1.0, np.nan], np.float32), None)
    json.dumps(found, allow_nan=False)
    assert (found["mean"], found["top"][0]["value"]) == (None, None)


@pytest.mark.long
def test_missing_inputs_are_drawn() -> None:
    *_, found = runs().run(RunRequest(OTHER, seed=3))
    *_, again = runs().run(RunRequest(OTHER, seed=3))
    assert found == again
    assert found["drawn"] == ["x"]
    assert found["outputs"][0]["shape"] == [8, 4]
