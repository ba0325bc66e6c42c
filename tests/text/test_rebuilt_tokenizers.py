"""Classes that build their tokenizer from the vocabulary of a `tokenizer.json`: the same tokens
as in transformers, or an error."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from archdsl.text.tokenizer import read_tokenizer
from archdsl.text.tokenizer_classes import UNKNOWN, tokenizer_class
from archdsl.text.tokenizer_recipes import RECIPES
from tests.text.tokenizer_files import BYTES, equal_variants, refusal, write

pytestmark = pytest.mark.reference("tokenizers")

TEXTS = [
    "Hello wörld, it's 1234 <X> he <s>a </s> <mask>x",
    "  HÉLLO  ''日本'' h",
    "<|endoftext|>hello\n\n [SEP]  <extra_id_1> ``e\u0301",
    "",
]
LETTERS = [*"abcdehlorwistHELOW,'`1234<>[]/|_日本Éé\u0301"]
SPECIAL = {
    "Albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
    "Bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "CLIP": ["<|startoftext|>", "<|endoftext|>"],
    "Cohere": ["<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>"],
    "GPT2": ["<|endoftext|>"],
    "GPTNeoX": ["<|endoftext|>", "<|padding|>"],
    "Gemma": ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
    "Llama": ["<unk>", "<s>", "</s>"],
    "MPNet": ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"],
    "OpenAIGPT": ["<unk>"],
    "Qwen2": ["<|endoftext|>"],
    "Qwen3_5": ["<|endoftext|>"],
    "Roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "T5": ["<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(3))],
    "Whisper": ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"],
    "XLMRoberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
# Model types of configs that name this class, another one, or none.
KINDS = ["llama", "mistral", "qwen2", "phi3", "gpt2", "bert", "t5", "clip", "roberta", "gemma"]
CHOICES: dict[str, list[Any]] = {
    "do_lower_case": [True, False],
    "strip_accents": [True, False, None],
    "tokenize_chinese_chars": [True, False],
    "keep_accents": [True, False],
    "add_prefix_space": [True, False],
    "legacy": [True, False, None],
    "additional_special_tokens": [["<X>"], ["<X>", "<extra_id_1>"], []],
    "extra_special_tokens": [["<X>"], {"image_token": "<X>"}],
    "extra_ids": [3, 100],
    "add_bos_token": [True, False, None],
    "split_special_tokens": [True, False],
    "eos_token": [
        "</s>",
        "<|endoftext|>",
        {"__type": "AddedToken", "content": "h", "lstrip": True},
    ],
    "bos_token": ["<s>", None],
    "unk_token": ["<unk>", None],
    "mask_token": ["<mask>"],
    "language": ["english"],
    "predict_timestamps": [True],
}


def some_steps(numbers: random.Random, library: Any, kind: str) -> None:
    """Sets parts that the class ignores, or that it keeps."""
    import tokenizers as tk

    before, pre, after = tk.normalizers, tk.pre_tokenizers, tk.decoders
    normalizers = [None, before.NFC(), before.Lowercase(), before.Replace(" ", "▁")]
    normalizers.append(before.Sequence([before.Prepend("▁"), before.Replace(" ", "▁")]))
    library.normalizer = numbers.choice(normalizers)
    spaces = numbers.choice([True, False])
    pieces = pre.Metaspace(prepend_scheme=numbers.choice(["first", "always", "never"]))
    is_bytes = kind in ("CLIP", "Cohere", "GPT2", "GPTNeoX", "Roberta", "Whisper")
    is_bytes = is_bytes or kind.startswith("Qwen")
    bytes_ = pre.ByteLevel(add_prefix_space=spaces, use_regex=numbers.choice([True, False]))
    splits = [bytes_] if is_bytes else [pieces, pre.BertPreTokenizer(), pre.WhitespaceSplit()]
    library.pre_tokenizer = numbers.choice(splits)
    library.decoder = numbers.choice([after.ByteLevel() if is_bytes else after.Metaspace()])


def make(numbers: random.Random, kind: str) -> Any:
    import tokenizers as tk

    special = [token for token in SPECIAL[kind] if numbers.random() < 0.9]
    model = RECIPES[f"{kind}Tokenizer"].model
    if kind in ("Llama", "Gemma"):
        words = [
            *special,
            *(f"<0x{b:02X}>" for b in range(256)),
            *LETTERS,
            "▁",
            "he",
            "▁h",
            "▁▁",
        ]
        merges = [("h", "e"), ("▁", "h"), ("▁", "▁")]
    elif kind == "OpenAIGPT":
        words = [*special, *LETTERS, *(f"{x}</w>" for x in LETTERS), "he", "he</w>"]
        merges = [("h", "e"), ("h", "e</w>")]
    elif model == "BPE":
        ends = [f"{x}</w>" for x in BYTES] if kind == "CLIP" else []
        words = [*BYTES, *ends, "he", "Ġh", "12", *special]
        merges = [("h", "e"), ("Ġ", "h"), ("1", "2")]
    elif model == "WordPiece":
        words = [*special, *LETTERS, *(f"##{x}" for x in LETTERS)]
    else:
        words = [*special, *LETTERS, "▁", "▁he", "he"]
    if kind != "CLIP" and numbers.random() < 0.2:
        words.append("<s>")
    ids = {word: number for number, word in enumerate(dict.fromkeys(words))}
    unknown = next((token for token in special if "unk" in token.lower()), None)
    if model == "BPE":
        flag = numbers.choice([True, False])
        made = tk.models.BPE(
            ids, merges, ignore_merges=flag, byte_fallback=flag, unk_token=unknown
        )
    elif model == "WordPiece":
        made = tk.models.WordPiece(ids, unk_token="[UNK]")
    else:
        scores = [(word, -1.0 - number / 9) for number, word in enumerate(ids)]
        made = tk.models.Unigram(scores, unk_id=min(3, len(scores) - 1))
    library = tk.Tokenizer(made)
    some_steps(numbers, library, kind)
    library.add_special_tokens([token for token in special if numbers.random() < 0.9])
    known = library.get_vocab()
    pair = [token for token in (*special, "h") if token in known][:2]
    if numbers.random() < 0.6 and len(pair) == 2:
        library.post_processor = tk.processors.TemplateProcessing(
            single=f"{pair[0]} $A {pair[1]}", special_tokens=[(t, known[t]) for t in pair]
        )
    return library


def write_variant(seed: int, folder: Path) -> None:
    """Writes a tokenizer and settings of a class that does not use it as it is."""
    numbers = random.Random(seed)
    kind = numbers.choice(list(SPECIAL))
    (folder / "tokenizer.json").write_text(make(numbers, kind).to_str(), encoding="utf-8")
    names = [f"{kind}Tokenizer", f"{kind}TokenizerFast"]
    settings: dict[str, Any] = {"tokenizer_class": numbers.choice(names)}
    if numbers.random() < 0.1:
        del settings["tokenizer_class"]
    for key, values in CHOICES.items():
        if numbers.random() < 0.15:
            settings[key] = numbers.choice(values)
    if numbers.random() < 0.15:
        token = {"rstrip": False, "lstrip": True, "single_word": False, "normalized": False}
        settings["added_tokens_decoder"] = {"3": {"content": "<X>", "special": True, **token}}
    write(folder, {"tokenizer_config.json": settings})
    if numbers.random() < 0.4:
        write(folder, {"config.json": {"model_type": numbers.choice(KINDS)}})
    if numbers.random() < 0.1:
        write(folder, {"special_tokens_map.json": {"additional_special_tokens": ["<X>"]}})


@pytest.mark.few(2)
@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("start", range(0, 400, 20))
def test_no_other_tokens_than_transformers(tmp_path: Path, start: int) -> None:
    from transformers import AutoTokenizer

    equal = 0
    for seed, reference in equal_variants(tmp_path, start, write_variant, TEXTS):
        equal += 1
        if seed % 5 == 0:  # a file that is already as the class builds it
            reference.save_pretrained(tmp_path / "saved")
            saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
            again = read_tokenizer(tmp_path / "saved")
            assert [again.encode(text) for text in TEXTS] == list(map(saved.encode, TEXTS)), (
                seed
            )
    assert equal > 7


@pytest.mark.long
@pytest.mark.reference("torch", "transformers")
def test_every_class_of_transformers_is_known() -> None:
    """Those that build their own tokenizer are built here too, or refused."""
    import transformers
    from transformers.models.auto import tokenization_auto as auto
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    kinds = auto.TOKENIZER_MAPPING_NAMES
    names = {name for name in dir(transformers) if name.endswith("Tokenizer")}
    names |= {(name or "").removesuffix("Fast") for name in kinds.values()}
    checked = 0
    for name in sorted(names - {"", "AutoTokenizer", "TokenizersBackend"}):
        found = auto.tokenizer_class_from_name(name)
        base = transformers.PreTrainedTokenizerBase
        if not isinstance(found, type) or not issubclass(found, base):
            continue  # its package is missing, or it is a part of a tokenizer
        chosen = tokenizer_class({"tokenizer_class": name}, {}, False)
        as_it_is = found.__bases__ == (TokenizersBackend,) and "__init__" not in vars(found)
        assert (chosen in RECIPES or chosen in UNKNOWN) != (as_it_is or chosen is None), name
        checked += 1
    assert checked > 70
    for kind, name in kinds.items():
        ours = tokenizer_class({}, {"model_type": kind}, False)
        named = None if name == "TokenizersBackend" else name
        theirs = tokenizer_class({"tokenizer_class": named}, {}, False)
        assert ours == (theirs if theirs in RECIPES or theirs in UNKNOWN else None), kind


def test_a_class_whose_rules_are_not_known(tmp_path: Path) -> None:
    library = make(random.Random(0), "GPT2")
    (tmp_path / "tokenizer.json").write_text(library.to_str(), encoding="utf-8")
    write(tmp_path, {"tokenizer_config.json": {"tokenizer_class": "LukeTokenizer"}})
    diagnostic = refusal(lambda: read_tokenizer(tmp_path))
    assert "tokenizer.json as it is for the class `LukeTokenizer`" in diagnostic.message
    assert diagnostic.help
    assert "write `TokenizersBackend`" in diagnostic.help
    # The cure.
    write(tmp_path, {"tokenizer_config.json": {"tokenizer_class": "TokenizersBackend"}})
    assert read_tokenizer(tmp_path).encode("he")


def test_a_class_of_another_model(tmp_path: Path) -> None:
    library = make(random.Random(0), "GPT2")
    (tmp_path / "tokenizer.json").write_text(library.to_str(), encoding="utf-8")
    write(tmp_path, {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}})
    diagnostic = refusal(lambda: read_tokenizer(tmp_path))
    assert diagnostic.expected == "`WordPiece`"
    assert diagnostic.found == "`BPE`"
