"""Settings beside a `tokenizer.json`: the same tokens as in transformers, or an error."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from archdsl.text.tokenizer import read_tokenizer
from tests.text.tokenizer_files import BYTES, equal_variants, refusal, write

pytestmark = pytest.mark.reference("tokenizers")

TEXTS = [
    "Hello wörld, it's <X> [IMG]a <s> 12 hello</s>",
    "  HÉLLO  日本 b",
    "<X>hello [SEP] <|endoftext|>x",
]
IMAGE = {"content": "[IMG]", "lstrip": True, "rstrip": False, "single_word": False}
ADDED = {"content": "<X>", "rstrip": False, "single_word": False, "normalized": False}


def word_pieces(numbers: random.Random) -> Any:
    import tokenizers as tk

    letters = list("abcdehlorwist,'12<>[]/|日本ÉéöHX")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + letters + ["##" + letter for letter in letters]
    ids = {word: number for number, word in enumerate(words)}
    library = tk.Tokenizer(tk.models.WordPiece(ids, unk_token="[UNK]"))
    library.normalizer = tk.normalizers.BertNormalizer(
        lowercase=numbers.choice([True, False]),
        strip_accents=numbers.choice([None, True, False]),
        handle_chinese_chars=numbers.choice([True, False]),
    )
    library.pre_tokenizer = tk.pre_tokenizers.BertPreTokenizer()
    library.decoder = tk.decoders.WordPiece()
    library.add_special_tokens(special)
    library.post_processor = tk.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return library


def bytes_of_text(numbers: random.Random) -> Any:
    import tokenizers as tk

    words = [*BYTES, "<|endoftext|>", "he", "<s>", "</s>"]
    ids = {word: number for number, word in enumerate(words)}
    library = tk.Tokenizer(tk.models.BPE(ids, [("h", "e")]))
    space = numbers.choice([True, False])
    library.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=space)
    library.decoder = tk.decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>"])
    if numbers.random() < 0.4:
        library.post_processor = tk.processors.ByteLevel()
    return library


CHOICES: dict[str, list[Any]] = {
    "do_lower_case": [True, False],
    "strip_accents": [True, False, None],
    "tokenize_chinese_chars": [True, False],
    "add_prefix_space": [True, False],
    "additional_special_tokens": [["<X>"], ["<X>", "hello"]],
    "extra_special_tokens": [["<X>"], {"image_token": "[IMG]"}],
    "image_token": ["[IMG]", {"__type": "AddedToken", "normalized": False, **IMAGE}],
    "add_bos_token": [True, False, None],
    "add_eos_token": [True, False],
    "split_special_tokens": [True, False],
    "added_tokens_decoder": [
        {"300": {"lstrip": lstrip, "special": True, **ADDED}} for lstrip in (True, False)
    ],
}


def write_variant(seed: int, folder: Path) -> None:
    """Writes a tokenizer and settings that may disagree with it."""
    numbers = random.Random(seed)
    make, name = numbers.choice([(word_pieces, "Bert"), (bytes_of_text, "GPT2")])
    (folder / "tokenizer.json").write_text(make(numbers).to_str(), encoding="utf-8")
    own = f"{name}Tokenizer"
    settings = {
        "tokenizer_class": numbers.choice([own, f"{own}Fast", "PreTrainedTokenizerFast"])
    }
    for key, values in CHOICES.items():
        if numbers.random() < 0.3:
            settings[key] = numbers.choice(values)
    if name == "GPT2" and numbers.random() < 0.5:
        ends = numbers.choice(["</s>", "<|endoftext|>"])
        settings |= {"bos_token": "<s>", "eos_token": ends}
    write(folder, {"tokenizer_config.json": settings})
    if numbers.random() < 0.2:
        names = {"additional_special_tokens": ["[IMG]"]}
        write(folder, {"special_tokens_map.json": names})


@pytest.mark.few(4)
@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("start", range(0, 400, 20))
def test_no_other_tokens_than_transformers(tmp_path: Path, start: int) -> None:
    assert len(list(equal_variants(tmp_path, start, write_variant, TEXTS))) > 7


LETTERS = {letter: number for number, letter in enumerate([*BYTES, "<|endoftext|>"])}
WORDS = "\n".join(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abhelo<>x", "##e", "##l", "##o"]
)
VOCABULARIES: dict[str, dict[str, object]] = {
    "GPT2": {"vocab.json": LETTERS, "merges.txt": "#version: 0.2\n"},
    "Bert": {"vocab.txt": WORDS},
    "TokenizersBackend": {},
}
SPELLINGS: dict[str, dict[str, object]] = {
    "additional": {"tokenizer_config.json": {"additional_special_tokens": ["<X>"]}},
    "extra": {"tokenizer_config.json": {"extra_special_tokens": ["<X>"]}},
    "named": {"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<X>"}}},
    "both": {
        "tokenizer_config.json": {
            "extra_special_tokens": ["<X>"],
            "additional_special_tokens": ["hel"],
        }
    },
    "map": {
        "special_tokens_map.json": {"additional_special_tokens": ["<X>"]},
        "tokenizer_config.json": {"model_max_length": 9},
    },
}


@pytest.mark.few(4)
@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", VOCABULARIES)
def test_additional_tokens_in_each_spelling(tmp_path: Path, name: str, spelling: str) -> None:
    """Also beside a plain vocabulary, which has no tokenizer.json."""
    from transformers import AutoTokenizer

    files = VOCABULARIES[name] | SPELLINGS[spelling]
    if not VOCABULARIES[name]:
        files["tokenizer.json"] = bytes_of_text(random.Random(0)).to_str()
    settings = files["tokenizer_config.json"]
    assert isinstance(settings, dict)
    kind = name if name == "TokenizersBackend" else f"{name}Tokenizer"
    write(tmp_path, files | {"tokenizer_config.json": {**settings, "tokenizer_class": kind}})
    ours, theirs = read_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    (number,) = ours.encode("<X>", add_special=False)
    assert ours.encode("hello <X>") == theirs.encode("hello <X>")
    assert ours.encode("hello <X>", add_special=False)[-1] == number
    assert ours.decode([number]) == ""


@pytest.mark.parametrize("value", ["<X>", 5, True])
def test_additional_tokens_that_are_no_list(tmp_path: Path, value: object) -> None:
    settings = {"additional_special_tokens": value}
    write(tmp_path, VOCABULARIES["Bert"] | {"tokenizer_config.json": settings})
    found = refusal(lambda: read_tokenizer(tmp_path)).found
    assert found == "`extra_special_tokens` is neither a list nor an object of tokens"


def test_flags_change_nothing_of_a_generic_class(tmp_path: Path) -> None:
    library = bytes_of_text(random.Random(0))
    (tmp_path / "tokenizer.json").write_text(library.to_str(), encoding="utf-8")
    before = read_tokenizer(tmp_path).encode("Hé")
    settings = {"do_lower_case": True, "strip_accents": True, "add_prefix_space": True}
    write(tmp_path, {"tokenizer_config.json": settings})
    assert read_tokenizer(tmp_path).encode("Hé") == before


def test_a_chat_template_gets_the_tokens_of_the_settings(tmp_path: Path) -> None:
    """A start token that is known only by its id is not a variable, as in transformers."""
    pytest.importorskip("jinja2")
    library = bytes_of_text(random.Random(0))
    (tmp_path / "tokenizer.json").write_text(library.to_str(), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<s>",
        "chat_template": "[{{ bos_token }}{{ unk_token }}]",
    }
    config = {"bos_token_id": 256}
    write(tmp_path, {"tokenizer_config.json": settings, "config.json": config})
    assert read_tokenizer(tmp_path).chat([]) == "[<s>]"
