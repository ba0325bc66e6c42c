"""generate, score and chat as a user types them, with a tiny checkpoint of random weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.cli import checkpoints, main, parse_arguments
from archdsl.cli.generation_options import buffer_first
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.execution.decoder import CHUNK, Decoder
from archdsl.generation import text_stream as generation
from archdsl.text.tokenizer import TextTokenizer
from tests.cli.tiny import gpt2

pytestmark = pytest.mark.reference("tokenizers")

TEXT = "the cat sat on the mat and the dog sat on the log. " * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return gpt2(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV", "CPU")


def run_ok(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_generate_prints_text_json_and_log_probabilities(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    greedy = ("--max-new-tokens", "6", "--temperature", "0")
    one = run_ok(capsys, "generate", folder, "the cat", *greedy)
    assert len(one) <= 7
    two = run_ok(capsys, "generate", folder, "the cat", "a", *greedy).splitlines()
    assert two[0] == "the cat" + one.rstrip("\n")
    assert two[1].startswith("a")
    data = run_ok(capsys, "generate", folder, "the cat", "a", *greedy, "--json", "--log-probs")
    first, second = map(json.loads, data.splitlines())
    assert (first["prompt"], second["prompt"]) == ("the cat", "a")
    assert first["text"] == one.rstrip("\n")
    assert first["ended"] in ("length", "stop token")
    assert len(first["tokens"]) == len(first["log_probs"])
    assert all(p < 0 for p in first["log_probs"])
    table = run_ok(capsys, "generate", folder, "the cat", *greedy, "--log-probs").splitlines()
    assert table[0] == one.rstrip("\n")
    assert float(table[1].split()[0]) == pytest.approx(first["log_probs"][0], abs=1e-4)
    assert int(table[1].split()[1]) == first["tokens"][0]


def test_generate_takes_a_spec_with_its_weights_and_prompts_from_lines(
    folder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = ["the cat\n", "\n", "a\n"]
    monkeypatch.setattr(sys, "stdin", iter(lines))
    spec, weights = str(tmp_path / "my.arch"), str(tmp_path / "my.safetensors")
    assert main(["import", folder, "-o", spec, "--weights", weights]) == 0
    capsys.readouterr()
    args = ["--seed", "4", "--max-new-tokens", "5"]
    # The import has copied the tokenizer and the other files beside the weights.
    own = ["--weights", weights]
    out = run_ok(capsys, "generate", spec, "-", *own, *args)
    assert out == run_ok(capsys, "generate", folder, "the cat", "a", *args)
    monkeypatch.setattr(sys, "stdin", iter(lines))
    both = run_ok(capsys, "generate", folder, "a", "-", *args).splitlines()
    assert [each[:1] for each in both] == ["a", "t", "a"]
    (tmp_path / "my.files").rename(tmp_path / "moved")
    assert main(["generate", spec, "a", "--weights", weights]) == 1
    assert "`my.files` beside `my.safetensors`" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", iter(lines))
    moved = ["--tokenizer", str(tmp_path / "moved")]
    assert out == run_ok(capsys, "generate", spec, "-", *own, *moved, *args)
    assert main(["generate", spec, "a"]) == 1
    assert "is a spec, which has no tokenizer" in capsys.readouterr().err


def test_the_default_dtype_is_the_checkpoints(tmp_path: Path) -> None:
    half = gpt2(tmp_path / "half", dtype="float16")
    for asked, dtype in (((), "float16"), (("--dtype", "float32"), "float32")):
        model = checkpoints.load_model(parse_arguments(["generate", half, "a", *asked]))
        assert model.dtype == dtype


def test_generate_stops_and_slides(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("generate", folder, "a", "--seed", "1", "--max-new-tokens", "40")
    assert main(list(args)) == 1
    out, err = capsys.readouterr()
    assert len(out) >= 20  # the text so far
    assert "at most 32 tokens" in err
    text = run_ok(capsys, *args, "--slide").rstrip("\n")
    assert len(text) == 40
    stop = text[20:22]
    assert run_ok(capsys, *args, "--stop", stop) == text[: text.index(stop)] + "\n"
    token = text[20]
    before = text[: text.index(token)] + "\n"
    assert run_ok(capsys, *args, "--slide", "--stop-token", token) == before
    assert main([*args, "--stop-token", "<end>"]) == 1
    assert "has the name '<end>'" in capsys.readouterr().err


def test_generate_uses_the_generation_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gpt2(tmp_path / "tiny")

    def configure(**fields: Any) -> None:
        path = tmp_path / "tiny" / "generation_config.json"
        path.write_text(json.dumps(fields), encoding="utf-8")

    args = ("generate", folder, "the cat")
    greedy = run_ok(capsys, *args, "--max-new-tokens", "12", "--temperature", "0").rstrip("\n")
    configure(max_new_tokens=12)
    assert run_ok(capsys, *args).rstrip("\n") == greedy
    configure(max_new_tokens=12, stop_strings=greedy[5:7])
    assert run_ok(capsys, *args).rstrip("\n") == greedy[: greedy.index(greedy[5:7])]
    configure(max_length=12)
    assert run_ok(capsys, *args).rstrip("\n") == greedy[: 12 - 7]
    assert len(run_ok(capsys, *args, "--max-new-tokens", "9").rstrip("\n")) == 9
    configure(max_length=999)  # more than the context
    assert len(run_ok(capsys, *args).rstrip("\n")) == 32 - 7
    configure(max_length=7)
    assert main(list(args)) == 1
    assert "a prompt is as long as max_length" in capsys.readouterr().err
    configure(max_length=8, num_beams=4)
    assert main(list(args)) == 1
    err = capsys.readouterr().err
    assert "num_beams is 4, which is not supported" in err
    assert "--ignore-generation-config" in err
    drawn = run_ok(capsys, *args, "--max-new-tokens", "9", "--ignore-generation-config")
    (tmp_path / "tiny" / "generation_config.json").unlink()
    assert drawn == run_ok(capsys, *args, "--max-new-tokens", "9") != greedy[:9]

    # Tokens beyond the tokenizer, and beyond the model, never occur.
    configure(max_length=30, eos_token_id=[0, 63, 500], pad_token_id=500)
    type_in(monkeypatch, "hi", end=EOFError)
    answer = run_ok(capsys, "chat", folder).rstrip("\n")
    assert len(answer) == 30 - len("u:hi.a:")


def test_items_before_an_error_are_yielded() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ArchError(Diagnostic("generation", "there is no more"))

    items = buffer_first(failing(), 2)
    assert next(items) == 1
    with pytest.raises(ArchError):
        next(items)


def test_score_prints_the_perplexity(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.txt"
    path.write_text(TEXT, encoding="utf-8")
    out = run_ok(capsys, "score", folder, str(path), "--window", "17", "--json")
    found = json.loads(out)
    assert (found["tokens"], found["predicted"], found["windows"]) == (len(TEXT), 96, 6)
    assert found["perplexity"] == pytest.approx(np.exp(found["nats_per_token"]))
    text = run_ok(capsys, "score", folder, str(path), "--window", "17")
    assert text.splitlines()[0].split() == ["perplexity", f"{found['perplexity']:.4f}"]
    assert main(["score", folder, str(tmp_path / "none.txt")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str, end: type[BaseException]) -> None:
    """Makes `input` return these lines, and then raise."""
    left = list(lines)

    def typed(_: str) -> str:
        if left:
            return left.pop(0)
        raise end

    monkeypatch.setattr("builtins.input", typed)


def test_chat_answers_with_the_history(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[dict[str, str]]] = []
    chat = TextTokenizer.chat

    def noted(tokenizer: TextTokenizer, messages: list[dict[str, str]]) -> str:
        asked.append(messages)
        return chat(tokenizer, messages)

    monkeypatch.setattr(TextTokenizer, "chat", noted)
    type_in(monkeypatch, "hi", "", "so", end=EOFError)
    out = run_ok(capsys, "chat", folder, "--system", "b", "--max-new-tokens", "4")
    first, _ = out.splitlines()
    assert asked[-1] == [
        {"role": "system", "content": "b"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "so"},
    ]


def test_a_chat_reuses_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[int] = []  # tokens, answer by answer
    step = Decoder._step
    chat = TextTokenizer.chat

    def counted(decoder: Decoder, columns: Any, count: int, last: bool) -> Any:
        fed[-1] += count
        return step(decoder, columns, count, last)

    def asked(tokenizer: TextTokenizer, messages: list[dict[str, str]]) -> str:
        fed.append(0)
        return chat(tokenizer, messages)

    monkeypatch.setattr(Decoder, "_step", counted)
    monkeypatch.setattr(TextTokenizer, "chat", asked)
    type_in(monkeypatch, "a" * 90, "b", "c", end=EOFError)
    folder = gpt2(tmp_path / "long", context=192)
    greedy = ("--temperature", "0", "--max-new-tokens", "4", "--repetition-penalty", "9")
    run_ok(capsys, "chat", folder, *greedy)
    _, first, second, third = fed  # the first call only checks the template
    # u:aaa…aaa.a: is 95 tokens, and the last token of an answer is not fed.
    assert first == 96 + 3
    # A chunk at most, for the last token of the answer and `.u:b.a:`.
    assert second <= CHUNK + 3
    assert third <= CHUNK + 3


def test_ctrl_c_stops_the_answer_then_the_chat(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_text, calls = generation.stream_text, []

    def interrupted(*args: Any, **given: Any) -> Iterator[Any]:
        calls.append(args)
        for number, each in enumerate(stream_text(*args, **given)):
            if len(calls) == 1 and number == 2:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(generation, "stream_text", interrupted)
    type_in(monkeypatch, "hi", "so", end=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        main(["chat", folder, "--max-new-tokens", "4", "--seed", "1"])
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert (len(first), len(second), len(calls), err) == (2, 4, 2, "")


def test_a_full_context_drops_the_oldest_exchange(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "first line", "second line", "x" * 40, "third", end=EOFError)
    assert main(["chat", folder, "--max-new-tokens", "4"]) == 0
    out, err = capsys.readouterr()
    assert "dropped the oldest question and its answer" in err
    assert "at most 32 tokens" in err  # a single message that is too long
    assert len(out.splitlines()) == 4


def test_without_a_template_there_is_no_chat(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", folder, "--tokenizer", f"{folder}/tokenizer.json"]) == 1
    assert "has no chat template" in capsys.readouterr().err
