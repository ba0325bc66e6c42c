"""Text: tokens on disk, windows, the split for validation, and vocabularies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs
from archdsl.graph.nodes import Graph
from archdsl.syntax.parser import parse
from archdsl.text.tokenizer import read_tokenizer
from archdsl.training import files, token_file
from archdsl.training.data import Data, open_data
from archdsl.training.order import Order

SPEC = """\
model Next(vocab = 300, context = 16) {
  input tokens: int[T <= context] < vocab
  output logits: float[T, vocab] = tokens -> embed(vocab, 4) -> linear(vocab)
  loss next_token(logits, tokens)
}
"""
TEXT = "the quick brown fox jumps over the lazy dog\n" * 20


def graph_of(spec: str = SPEC, **settings: int) -> Graph:
    return analyse(parse(spec, "next.arch"), None, settings).graph


GRAPH = graph_of()


def folder_of(path: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (path / f"{name}.txt").write_text(text, encoding="utf-8")
    return path


def texts_of(data: Data, numbers: list[int], which: str = "train") -> list[str]:
    assert data.tokenizer
    rows = getattr(data, which).batch(np.array(numbers))["tokens"]
    return [data.tokenizer.decode(row) for row in rows]


def test_windows_start_at_each_character(tmp_path: Path) -> None:
    data = open_data(folder_of(tmp_path, a=TEXT), GRAPH, length=8)
    cut = len(TEXT) - len(TEXT) // 10
    assert len(data.train) == cut - 8 + 1
    assert texts_of(data, [0, 5, len(data.train) - 1]) == [
        TEXT[:8],
        TEXT[5:13],
        TEXT[cut - 8 : cut],
    ]
    assert data.valid
    assert len(data.valid) == (len(TEXT) - cut) // 8
    assert texts_of(data, [0, 1], "valid") == [TEXT[cut : cut + 8], TEXT[cut + 8 : cut + 16]]


def test_a_batch_is_one_that_the_model_takes(tmp_path: Path) -> None:
    data = open_data(folder_of(tmp_path, a=TEXT), GRAPH)
    batch = data.train.batch(Order(len(data.train), 4, 0).numbers(3))
    checked = inputs.check(GRAPH, batch, labels=True)
    assert checked["tokens"].shape == (4, 16)
    assert np.array_equal(checked["tokens"], batch["tokens"])


def test_files_are_for_validation_by_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, train=TEXT, valid="dog " * 30, test="fox " * 30)
    data = open_data(folder, GRAPH, length=4)
    assert len(data.train) == len(TEXT) - 3
    assert texts_of(data, [0], "valid") == ["dog "]
    assert "not used: `test.txt`, for a test" in data.notes
    assert "files: 1 for training, 1 for validation" in data.notes


def test_the_test_files_are_for_validation_if_no_other_is(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    folder_of(tmp_path / "test", a="dog " * 30)
    data = open_data(folder_of(tmp_path, b=TEXT), GRAPH, length=4)
    assert texts_of(data, [0], "valid") == ["dog "]


def test_the_vocabulary_is_a_file_that_read_tokenizer_reads(tmp_path: Path) -> None:
    data = open_data(folder_of(tmp_path, a="zébra 🦓\n" * 40), GRAPH)
    saved = data.save_tokenizer(tmp_path)
    assert saved
    assert json.loads(saved.read_text()) == sorted(set("zébra 🦓\n"))
    assert read_tokenizer(saved).encode("bar") == data.tokenizer.encode("bar")  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["bytes", "bpe:264"])
@pytest.mark.reference("tokenizers")
def test_byte_level_vocabularies(tmp_path: Path, name: str) -> None:
    text = "naïve café 🦓\r\nnaïve café\n" * 20
    (tmp_path / "a.txt").write_bytes(text.encode())
    data = open_data(tmp_path, GRAPH, length=16, tokenizer=name)
    saved = data.save_tokenizer(tmp_path)
    assert saved
    found = read_tokenizer(saved)
    tokens = data.train.tokens  # type: ignore[attr-defined]
    plain = text.replace("\r\n", "\n")
    assert plain.startswith(found.decode(tokens[:100]).rstrip("\N{REPLACEMENT CHARACTER}"))
    assert found.vocabulary == {"bytes": 256, "bpe:264": 264}[name]
    if name == "bytes":
        assert bytes(tokens[:20].astype(np.uint8)) == plain.encode()[:20]
    else:
        assert len(found.encode(plain)) < len(plain)


def test_a_given_tokenizer(tmp_path: Path) -> None:
    vocabulary = tmp_path / "letters.json"
    vocabulary.write_text(json.dumps(["<eos>", "a", "b", "ab", " "]))
    folder = tmp_path / "texts"
    folder.mkdir()
    folder_of(folder, a="ab ba " * 30, b="aab" * 30)
    for given in (str(vocabulary), read_tokenizer(vocabulary)):
        data = open_data(folder, GRAPH, length=4, tokenizer=given)
        tokens = data.train.tokens  # type: ignore[attr-defined]
        assert tokens[:5].tolist() == [3, 4, 2, 1, 4]
        assert tokens[30 * 5] == 0  # the end token, after the first file


def test_tokens_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path, a=TEXT)
    first = open_data(folder, GRAPH)

    def again(*given: object) -> None:
        raise AssertionError("written again")

    with monkeypatch.context() as patched:
        patched.setattr(token_file, "write", again)
        assert open_data(folder, GRAPH).fingerprint == first.fingerprint
        os.utime(folder / "a.txt", ns=(1, 1))
        with pytest.raises(AssertionError, match="written again"):
            open_data(folder, GRAPH)
    folder_of(tmp_path, a=TEXT.replace("fox", "cat"))
    assert open_data(folder, GRAPH).fingerprint != first.fingerprint


def test_the_fingerprint_does_not_depend_on_the_place(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one = open_data(folder_of(tmp_path, a=TEXT) / "a.txt", GRAPH)
    other = open_data(folder_of(tmp_path / "b", c=TEXT), GRAPH)
    assert one.fingerprint == other.fingerprint
    assert open_data(tmp_path / "a.txt", GRAPH, length=8).fingerprint != one.fingerprint


def test_a_damaged_token_file_is_written_again(tmp_path: Path, own_cache: Path) -> None:
    folder = folder_of(tmp_path, a=TEXT)
    expected = texts_of(open_data(folder, GRAPH), [3])
    (stored,) = own_cache.rglob("*.tokens")
    for damaged in (b"", stored.read_bytes()[:-1], b"x" * 5000):
        stored.write_bytes(damaged)
        assert texts_of(open_data(folder, GRAPH), [3]) == expected


def test_old_tokens_are_deleted(tmp_path: Path, own_cache: Path) -> None:
    open_data(folder_of(tmp_path, a=TEXT), GRAPH)
    old = {*own_cache.rglob("*.*")}
    for each in old:
        os.utime(each, (1, 1))
    folder_of(tmp_path, a=TEXT * 2)
    open_data(tmp_path, GRAPH)
    assert not any(each.exists() for each in old)
    assert len({*own_cache.rglob("*.*")}) == len(old)


def test_texts_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CHARACTERS", 10)
    (tmp_path / "a.txt").write_text("one\n  two\n\nthree four five six\nseven\n")
    parts = list(files.texts(tmp_path / "a.txt"))
    assert "".join(parts) == (tmp_path / "a.txt").read_text()
    assert len(parts) > 2
    assert all(not part[0].isspace() and part.endswith("\n") for part in parts)


def test_notes_say_what_is_not_used(tmp_path: Path) -> None:
    data = open_data(folder_of(tmp_path, a=TEXT), GRAPH)
    size = len(set(TEXT))
    assert data.describe() == [
        "training: 792 tokens, in windows of 16",
        "validation: 88 tokens, in windows of 16",
        "the last 10 % of the text are for validation",
        f"{size} characters",
        f"the tokenizer has {size} tokens, the model 300; "
        f"`--set vocab={size}` makes it smaller",
    ]


def test_a_short_text_has_no_validation(tmp_path: Path) -> None:
    data = open_data(folder_of(tmp_path, a="abcdefghij" * 4), GRAPH)
    assert data.valid is None
    assert data.notes[0].startswith("no validation: the last 10 % of the text are 4 tokens")


LARGE = """\
next.arch:2:9: error[tokenizer]: the vocabulary is too large for `tokens`
  |
2 |   input tokens: int[T <= context] < vocab
  |         ^^^^^^
  = expected: at most 5 tokens
  = found: 28 characters
  = help: `--set vocab=28`"""


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("abc", {}, "the text for training is shorter than a window"),
        (TEXT, {"length": 17}, "`tokens` cannot have 17 positions"),
        (TEXT, {"length": 1}, "`tokens` cannot have 1 positions"),
        (TEXT, {"tokenizer": "letters"}, "there is no tokenizer `letters`"),
        pytest.param(
            TEXT,
            {"tokenizer": "bpe:100"},
            "`bpe:100` is too small: each byte is a token",
            marks=pytest.mark.reference("tokenizers"),
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, given: dict[str, int | str], message: str) -> None:
    with pytest.raises(ArchError) as caught:
        open_data(folder_of(tmp_path, a=text), GRAPH, **given)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_vocabulary_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(ArchError) as caught:
        open_data(folder_of(tmp_path, a=TEXT), graph_of(vocab=5))
    assert str(caught.value) == LARGE


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ArchError, match="there are no data at"):
        open_data(tmp_path / "missing", GRAPH)
    with pytest.raises(ArchError, match="there are no data for `Next` in"):
        open_data(tmp_path, GRAPH)
    (tmp_path / "valid.txt").write_text(TEXT)
    with pytest.raises(ArchError, match="are for validation, because of their names"):
        open_data(tmp_path, GRAPH)
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ArchError, match=r"is not UTF-8 text[\s\S]*iconv"):
        open_data(tmp_path / "a.txt", GRAPH)


def test_padding_is_no_character(tmp_path: Path) -> None:
    graph = graph_of(SPEC.replace("< vocab\n", "< vocab pad 2\n"))
    folder = folder_of(tmp_path, a=TEXT)
    data = open_data(folder, graph)
    assert data.tokenizer
    assert data.tokenizer.pad == 2
    assert 2 not in data.train.batch(np.arange(len(data.train)))["tokens"]
    (tmp_path / "v.json").write_text(json.dumps(sorted(set(TEXT))))
    with pytest.raises(ArchError, match="token 2 is in the text, but `tokens` has it as pad"):
        open_data(folder, graph, tokenizer=tmp_path / "v.json")


def test_labels_that_mark_what_counts_are_true(tmp_path: Path) -> None:
    graph = graph_of(SPEC.replace("(logits, tokens)", "(logits, tokens, where = ok: bool[T])"))
    data = open_data(folder_of(tmp_path, a=TEXT), graph)
    assert data.train.batch(np.array([1, 2]))["ok"].all()
