"""Marian's tokenizer gives the tokens and texts that transformers' `MarianTokenizer` gave.

`cases/text/marian.json` has two models that SentencePiece trained on a few sentences, with some
replaced characters, and what transformers 5.23 makes of some texts and ids with them.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from archdsl.text.sentencepiece_file import read_sentencepiece
from archdsl.text.tokenizer import read_tokenizer
from tests.text.tokenizer_files import refusal

CASES = json.loads(
    (Path(__file__).parents[1] / "cases" / "text" / "marian.json").read_text(encoding="utf-8")
)
KINDS = ("one vocabulary", "two vocabularies")


def folder(path: Path, kind: str, **more: Any) -> Path:
    path.mkdir(exist_ok=True)
    for name, model in CASES["models"].items():
        (path / f"{name}.spm").write_bytes(base64.b64decode(model))
    for name, content in (CASES[kind]["files"] | more).items():
        (path / name).write_text(json.dumps(content))
    return path


@pytest.mark.reference("tokenizers")
@pytest.mark.parametrize("kind", KINDS)
def test_texts_and_ids(tmp_path: Path, kind: str) -> None:
    tokenizer = read_tokenizer(folder(tmp_path, kind))
    assert [tokenizer.encode(text) for text in CASES["texts"]] == CASES[kind]["encoded"]
    found = [[tokenizer.decode(ids, skip) for ids in CASES["ids"]] for skip in (True, False)]
    assert found == CASES[kind]["decoded"]


@pytest.mark.reference("tokenizers")
def test_special_tokens(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(folder(tmp_path, "two vocabularies"))
    files = CASES["two vocabularies"]["files"]
    source, target = files["vocab.json"], files["target_vocab.json"]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (None, (0,), target["<pad>"])
    assert tokenizer.vocabulary == len(target)
    assert tokenizer.number(">>fr<<") == source[">>fr<<"]
    names = ("</s>", "<pad>", "<unk>")
    assert tokenizer.special() == {source[name]: name for name in names}
    assert tokenizer.encode("the", add_special=False) == tokenizer.encode("the")[:-1]
    assert tokenizer.without_token(len(target) + 2) == [len(target), len(target) + 1]
    stream = tokenizer.stream()
    ids = CASES["ids"][1]
    assert "".join([*map(stream.push, ids), stream.flush()]) == tokenizer.decode(ids)


def test_damaged_files(tmp_path: Path) -> None:
    place = folder(tmp_path, "one vocabulary")
    whole = (place / "source.spm").read_bytes()
    (place / "source.spm").write_bytes(whole[:-5])
    assert "source.spm` is damaged" in refusal(lambda: read_tokenizer(place)).message
    for size in range(0, len(whole), 97):  # none is a traceback
        (place / "source.spm").write_bytes(whole[:size])
        refusal(lambda: read_sentencepiece(place / "source.spm"))
    (place / "source.spm").write_bytes(whole)
    folder(place, "one vocabulary", **{"vocab.json": {"a": "b"}})
    assert "does not map tokens to ids" in refusal(lambda: read_tokenizer(place)).message
    folder(place, "one vocabulary", **{"vocab.json": {"a": 0}})
    assert "has no token '</s>'" in refusal(lambda: read_tokenizer(place)).message


def test_other_models_are_refused(tmp_path: Path) -> None:
    """A BPE model: field 3 of the trainer's settings, field 2 of the file, is 2."""
    place = folder(tmp_path, "one vocabulary")
    path = place / "source.spm"
    path.write_bytes(path.read_bytes() + bytes([0x12, 2, 0x18, 2]))
    assert "this kind of SentencePiece model" in refusal(lambda: read_tokenizer(place)).message
