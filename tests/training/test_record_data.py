"""Records: JSON lines and TSV as padded rows, pairs of texts, and joined texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs
from archdsl.graph.nodes import Graph
from archdsl.syntax.parser import parse
from archdsl.text.tokenizer import read_tokenizer
from archdsl.training.data import Data, open_data
from archdsl.training.order import lengths_of

PAIRS = """\
model Pairs(vocab = 40, context = 32, D = 4) {
  input source: int[S <= context] < vocab pad 0
  input target: int[T <= context] < vocab pad 0
  z = source -> embed(vocab, D)
  h = target -> embed(vocab, D) -> attention(1, over = z)
  output logits: float[T, vocab] = h -> linear(vocab)
  loss next_token(logits, target)
}
"""
NEXT = """\
model Next(vocab = 40, context = 32) {
  input tokens: int[T <= context] < vocab pad 3
  output logits: float[T, vocab] = tokens -> embed(vocab, 4) -> linear(vocab)
  loss next_token(logits, tokens)
}
"""
SENTIMENT = """\
model Sentiment(vocab = 40, classes = 3) {
  input tokens: int[T <= 32] < vocab pad 0
  input weight: float
  input near: float[2]
  output logits: float[classes] = tokens -> embed(vocab, 4) -> mean(T) -> linear(classes)
  output other: float[2] = near -> scale(2)
  output same: float = weight
  loss cross_entropy(logits, label: int < classes)
}
"""
WORDS = ["cat", "horse", "ant", "bumblebee", "dog"] * 8


def graph_of(spec: str) -> Graph:
    return analyse(parse(spec, "spec.arch"), None, {}).graph


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


def rows(data: Data, which: str = "train") -> dict[str, np.ndarray[Any, Any]]:
    found = getattr(data, which)
    return found.batch(np.arange(len(found)))  # type: ignore[no-any-return]


def pairs_file(path: Path, header: str = "") -> Path:
    lines = (f"{word}\t{word[::-1].upper()}\n" for word in WORDS)
    path.write_text(header + "".join(lines))
    return path


def test_pairs_have_start_and_end_tokens(tmp_path: Path) -> None:
    graph = graph_of(PAIRS)
    data = open_data(pairs_file(tmp_path / "pairs.tsv"), graph)
    assert data.tokenizer
    assert (len(data.train), len(data.valid or ())) == (36, 4)
    found, known = rows(data), set()
    inputs.check(graph, found, labels=True)
    assert found["source"].shape == (36, 16)
    for source, target in zip(found["source"], found["target"], strict=True):
        n, text = np.count_nonzero(source), data.tokenizer.decode(source)
        assert data.tokenizer.decode(target) == text[::-1].upper()
        assert (source[0], source[n - 1]) == (data.tokenizer.bos, data.tokenizer.eos[0])
        known.add(text)
    assert known == {*WORDS}


@pytest.mark.parametrize("kind", ["header", "jsonl"])
def test_fields_have_the_names_of_inputs(tmp_path: Path, kind: str) -> None:
    records = [{"target": w.upper(), "note": "", "source": w} for w in WORDS]
    path = write(tmp_path / "pairs.jsonl", records)
    if kind == "header":
        path = tmp_path / "pairs.tsv"
        lines = ["target\tnote\tsource", *(f"{w.upper()}\tx\t{w}" for w in WORDS)]
        path.write_text("\n".join(lines))
    data = open_data(path, graph_of(PAIRS), seed=5)
    assert data.tokenizer
    for source, target in zip(*rows(data).values(), strict=True):
        assert data.tokenizer.decode(target) == data.tokenizer.decode(source).upper()


@pytest.mark.reference("tokenizers")
def test_pairs_with_byte_pairs(tmp_path: Path) -> None:
    spec = PAIRS.replace("vocab = 40", "vocab = 280")
    data = open_data(pairs_file(tmp_path / "a.tsv"), graph_of(spec), tokenizer="bpe:270")
    saved = data.save_tokenizer(tmp_path)
    assert saved
    found = read_tokenizer(saved)
    (source, *_), (target, *_) = rows(data).values()
    text = found.decode(source)
    assert text in WORDS
    assert found.encode(text) == [n for n in source if n]  # as for a translation
    assert found.decode(target) == text[::-1].upper()
    assert (found.pad, target[0], target[target > 0][-1]) == (0, found.bos, found.eos[0])


def test_the_parts_are_drawn_with_the_seed(tmp_path: Path) -> None:
    path = pairs_file(tmp_path / "pairs.tsv")
    graph = graph_of(PAIRS)
    first, again, other = (open_data(path, graph, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(rows(first)["source"], rows(again)["source"])
    assert not np.array_equal(rows(first)["source"], rows(other)["source"])
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_batches_have_few_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = [{"text": "ab" * int(n)} for n in rng.integers(1, 15, 100)]
    graph = graph_of(NEXT)
    data = open_data(write(tmp_path / "a.jsonl", records), graph)
    shapes = set()
    for number in range(len(data.train)):
        found = data.train.batch(np.array([number]))["tokens"]
        shapes.add(found.shape[1])
        text = data.tokenizer.decode(found[0])  # type: ignore[union-attr]
        assert 2 * text.count("ab") == len(text) < found.shape[1]
        assert (found[0] == 3).sum() == found.shape[1] - len(text) - 1
    assert shapes == {16, 32}


def test_lengths_order_examples_by_their_padding(tmp_path: Path) -> None:
    """A batch of 24 positions for a short pair with a long text comes after one of 12."""
    pairs = {"ab": "cd", "abcdefghij": "cdefghijkl", "a": "b" * 9, "b": "a" * 18, "c": "c" * 17}
    lines = [f"{source}\t{target}\n" for source, target in pairs.items()]
    (tmp_path / "train.tsv").write_text("".join(lines))
    (tmp_path / "valid.tsv").write_text(lines[0])
    rows = open_data(tmp_path, graph_of(PAIRS)).train
    lengths = lengths_of(rows)
    assert lengths is not None
    assert lengths.argsort().tolist() == [0, 2, 1, 4, 3]
    width = [rows.batch(np.array([n]))["target"].shape[1] for n in lengths.argsort()]
    assert width == sorted(width)


def test_texts_without_padding_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": word} for word in WORDS])
    data = open_data(path, graph_of(NEXT.replace(" pad 3", "")), length=8)
    assert data.tokenizer
    text = data.tokenizer.decode(data.train.tokens, skip_special=False)  # type: ignore[attr-defined]
    assert text.startswith("cat<eos>horse<eos>ant<eos>")
    assert data.notes[1] == "the texts are joined: a window may have parts of several"


def test_numbers_and_lists(tmp_path: Path) -> None:
    graph = graph_of(SENTIMENT)
    records = [
        {"text": w, "label": i % 3, "weight": i / 2, "near": [i, -i]}
        for i, w in enumerate(WORDS)
    ]
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "train.jsonl", records)
    write(tmp_path / "d" / "valid.jsonl", records[:3])
    data = open_data(tmp_path / "d", graph)
    found = rows(data, "valid")
    assert found["label"].tolist() == [0, 1, 2]
    assert found["weight"].tolist() == [0, 0.5, 1]
    assert found["near"].tolist() == [[0, 0], [1, -1], [2, -2]]
    assert data.tokenizer
    assert [data.tokenizer.decode(row) for row in found["tokens"]] == WORDS[:3]
    inputs.check(graph, found, labels=True)
    assert len(data.train) == len(WORDS)


def test_records_are_stored_once(tmp_path: Path, own_cache: Path) -> None:
    path = pairs_file(tmp_path / "pairs.tsv")
    first = open_data(path, graph_of(PAIRS))
    stored = {each: each.stat().st_ino for each in own_cache.rglob("*.*")}
    assert open_data(path, graph_of(PAIRS)).fingerprint == first.fingerprint
    assert {each: each.stat().st_ino for each in own_cache.rglob("*.*")} == stored


GOOD = {"text": "cat", "label": 1, "weight": 0.5, "near": [1, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 3}, ":2: a number of `label` is out of range"),
        ({"label": "one"}, ":2: the field `label` does not fit `label`"),
        ({"label": 1.5}, "expected: a value of int"),
        ({"near": [1]}, ":2: `near` has a wrong length"),
        ({"near": 1}, "expected: a list of float"),
        ({"near": [[1], [1, 2]]}, "expected: a list of float"),
        ({"weight": float("nan")}, "found: NaN is not a finite number"),
        ({"text": ["c"]}, "expected: a text"),
        ({"text": "cat" * 20}, "expected: 1 to 32, for the axis `T`"),
    ],
)
def test_wrong_values(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD, GOOD | change])
    with pytest.raises(ArchError) as caught:
        open_data(path, graph_of(SENTIMENT))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\n", ":1: the line has 1 cells"),
        ("a\tb\nc\td\te\n", ":2: the line has 3 cells"),
        ("", "there are no examples in"),
        ("\n\n", "there are no examples in"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(ArchError) as caught:
        open_data(tmp_path / "a.tsv", graph_of(PAIRS))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ":1: the line is not an object in JSON"),
        ("[1]", "found: a list instead of an object"),
        ('{"source": "a", "source": "b"}', "found: `source` appears twice"),
        ('{"source": "a", "targets": "b"}', "help: did you mean `targets`?"),
        ('{"source": "a"}', ":1: there is no field `target`"),
    ],
)
def test_wrong_lines(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ArchError) as caught:
        open_data(tmp_path / "a.jsonl", graph_of(PAIRS))
    assert message in str(caught.value)


def test_rows_of_different_lengths_need_padding(tmp_path: Path) -> None:
    graph = graph_of(PAIRS.replace("context] < vocab pad 0\n  z", "context] < vocab\n  z"))
    with pytest.raises(ArchError) as caught:
        open_data(pairs_file(tmp_path / "a.tsv"), graph)
    assert "`target` has no padding" in str(caught.value)
    assert "found: 5 to 11 positions" in str(caught.value)
    assert "write `pad 0` at `target` in the spec" in str(caught.value)
    (tmp_path / "b.tsv").write_text("cat\tTAC\nant\tTNA\n" * 8)
    assert rows(open_data(tmp_path / "b.tsv", graph))["target"].shape == (15, 5)


def test_options_of_other_data_are_refused(tmp_path: Path) -> None:
    path = pairs_file(tmp_path / "a.tsv")
    with pytest.raises(ArchError, match="a length is for windows of a text"):
        open_data(path, graph_of(PAIRS), length=8)
    write(tmp_path / "a.jsonl", [GOOD])
    graph = graph_of(SENTIMENT.replace("float[2]", "float[2, 2]"))
    with pytest.raises(ArchError, match="`near` cannot be a field of a record"):
        open_data(tmp_path / "a.jsonl", graph)


def save(path: Path, records: list[Any]) -> None:
    """Writes what `datasets.Dataset.save_to_disk` writes."""
    import pyarrow
    from pyarrow import ipc

    path.mkdir(parents=True)
    table = pyarrow.Table.from_pylist(records)
    half = len(records) // 2
    names = [f"data-0000{i}-of-00002.arrow" for i in (0, 1)]
    for name, part in zip(names, (table[:half], table[half:]), strict=True):
        with ipc.new_stream(str(path / name), table.schema) as writer:
            writer.write_table(part)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (path / "state.json").write_text(json.dumps(state))
    (path / "dataset_info.json").write_text("{}")


@pytest.mark.reference("pyarrow")
def test_a_saved_dataset(tmp_path: Path) -> None:
    records = [GOOD | {"text": word, "label": i % 3} for i, word in enumerate(WORDS)]
    lines = open_data(write(tmp_path / "a.jsonl", records), graph_of(SENTIMENT))
    save(tmp_path / "one", records)
    data = open_data(tmp_path / "one", graph_of(SENTIMENT))
    for name, array in rows(lines).items():
        assert np.array_equal(rows(data)[name], array)
    parts = {"train": records, "validation": records[:3], "test": records[:4]}
    for name, part in parts.items():
        save(tmp_path / "parts" / name, part)
    (tmp_path / "parts" / "dataset_dict.json").write_text(json.dumps({"splits": [*parts]}))
    data = open_data(tmp_path / "parts", graph_of(SENTIMENT))
    assert rows(data, "valid")["label"].tolist() == [0, 1, 2]
    assert len(data.train) == len(WORDS)
    first = tmp_path / "one" / "data-00000-of-00002.arrow"
    first.write_bytes(first.read_bytes()[:100])
    with pytest.raises(ArchError, match="cannot read"):
        open_data(tmp_path / "one", graph_of(SENTIMENT))
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(ArchError, match="lists no files"):
        open_data(tmp_path / "one", graph_of(SENTIMENT))


MASKED = """\
model Masked(vocab = 40) {
  input tokens: int[T <= 16] < vocab pad 0
  output logits: float[T, vocab] = tokens -> embed(vocab, 4) -> linear(vocab)
  loss cross_entropy(logits, label: int[T] < vocab, where = masked: bool[T])
}
"""


def test_texts_for_a_masked_model_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": word} for word in WORDS])
    graph = graph_of(MASKED)
    data = open_data(path, graph, length=16)
    found = data.train.batch(np.arange(8))
    inputs.check(graph, found, labels=True)
    assert data.tokenizer
    text = data.tokenizer.decode(found["label"][0], skip_special=False)
    assert text == "cat<eos>horse<eos>ant<eos>bu"
    changed = found["tokens"] != found["label"]
    assert changed.any()
    assert not changed[~found["masked"]].any()
