"""The file formats of published tokenizers.

A Hugging Face folder, a `tokenizer.json`, GPT-2's `vocab.json` and `merges.txt`, BERT's
`vocab.txt`, and tiktoken ranks. `gguf_tokenizer` reads GGUF.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from archdsl.diagnostics import fail, listing
from archdsl.files import read_bytes
from archdsl.formats.strict_json import parse_object
from archdsl.text.gguf_tokenizer import read_gguf
from archdsl.text.growth import check_growth
from archdsl.text.special_tokens import (
    PublishedTokenizer,
    assign_roles,
    parse_template,
    read_token_ids,
    set_end_tokens,
)
from archdsl.text.subword_models import (
    build_byte_level,
    build_wordpiece,
    find_merges,
    import_tokenizers,
    letters,
    parse_merges,
    reading,
)
from archdsl.text.tokenizer_classes import tokenizer_class
from archdsl.text.tokenizer_settings import (
    add_tokens,
    all_tokens,
    apply_settings,
    declared_tokens,
    has_bytes,
    merge_settings,
)
from archdsl.text.vocabulary_tokenizer import PURPOSES, USUAL_NAMES, read_vocabulary

_TIKTOKEN = {
    50256: ("gpt-2", {"<|endoftext|>": 50256}),
    100256: (
        "llama-bpe",
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    151643: ("qwen2", {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}),
}
"""The pre-tokenizer and the special tokens of tiktoken files, by their number of ranks."""


def read_published(place: Path) -> PublishedTokenizer:
    """Reads the tokenizer of a folder or a file; `read_tokenizer` lists the formats."""
    with reading(place):
        is_folder = S_ISDIR(place.stat().st_mode)
    if is_folder:
        return _read_folder(place)
    readers = {".json": _read_json, ".tiktoken": _read_tiktoken, ".gguf": read_gguf}
    read = readers.get(place.suffix.lower())
    if read is None:
        fail(
            "tokenizer",
            f"`{place}` is neither a folder nor a tokenizer file",
            expected=f"a folder, or the suffix {listing(readers)}",
            found=f"`{place.suffix}`" if place.suffix else "no suffix",
        )
    return read(place)


def _read_folder(folder: Path) -> PublishedTokenizer:
    """Reads the tokenizer of a Hugging Face folder.

    The first of `tokenizer.json`, `vocab.json` with `merges.txt`, and `vocab.txt` is used.
    Special tokens are named by `tokenizer_config.json` or `special_tokens_map.json`, or given
    by id in `generation_config.json` or `config.json`; otherwise they have a usual name.
    """
    with reading(folder):
        names = {entry.name for entry in folder.iterdir()}
    special, own, config = (
        _read_object(folder / name) if name in names else {}
        for name in ("special_tokens_map.json", "tokenizer_config.json", "config.json")
    )
    ready = "tokenizer.json" in names
    with reading(folder):
        settings = merge_settings(own, special)
    library = _build_library(folder, names, settings)
    kind = tokenizer_class(settings, config, has_bytes(library)) if ready else None
    if ready:
        library = apply_settings(library, settings, kind, folder)
    else:  # tokens of a role must be in the vocabulary
        others = {k: v for k, v in settings.items() if k.removesuffix("_token") not in PURPOSES}
        add_tokens(library, others, folder, declared_tokens(library, settings, folder))
    # The config.json of CTranslate2 has the names of tokens.
    names_tokens = "model_type" not in config
    named = {k: v for k, v in config.items() if names_tokens and isinstance(v, str)} | settings
    numbers = read_token_ids(folder, [f"{role}_token_id" for role in PURPOSES])
    chat = parse_template(settings.get("chat_template"), folder)
    if "chat_template.jinja" in names:
        chat = _read_text(folder / "chat_template.jinja")
    published = assign_roles(
        library,
        {role: token_text(named.get(f"{role}_token"), folder) for role in PURPOSES},
        {role: numbers.get(f"{role}_token_id") for role in PURPOSES},
        folder,
        chat,
        chat_tokens=_chat_tokens(all_tokens(settings, kind), ready and bool(own), folder),
    )
    if not ready:  # else these flags do not apply, as in transformers 5
        set_end_tokens(
            published, settings.get("add_bos_token"), settings.get("add_eos_token"), folder
        )
    return published


def _chat_tokens(tokens: Mapping[str, Any], exact: bool, folder: Path) -> dict[str, str | None]:
    """Returns the variables of a chat template: the tokens that the settings name.

    If that is `exact`, there are no others; None says so of a token only known by its id.
    """
    named: dict[str, Any] = {f"{role}_token": None for role in PURPOSES} if exact else {}
    flags = ("add_bos_token", "add_eos_token")
    named |= {key: value for key, value in tokens.items() if key not in flags}
    return {key: token_text(value, folder) for key, value in named.items()}


def _read_json(path: Path) -> PublishedTokenizer:
    """Reads a `tokenizer.json`, which does not define the roles of special tokens."""
    return assign_roles(_from_json(path), {}, {}, path)


def _read_tiktoken(path: Path) -> PublishedTokenizer:
    """Reads a tiktoken file: a base64 token and its rank per line.

    The file does not contain the pre-tokenizer and the special tokens. They are known for the
    encodings of GPT-2, cl100k and Qwen, which differ in the number of ranks.
    """
    ranks = _read_ranks(path)
    if len(ranks) not in _TIKTOKEN:
        fail(
            "tokenizer",
            f"{path}: a tiktoken encoding with this number of ranks is not supported",
            expected=listing(map(str, _TIKTOKEN)) + " ranks",
            found=str(len(ranks)),
            help="use the `tokenizer.json` that is published with the model",
        )
    pre_tokenizer, special = _TIKTOKEN[len(ranks)]
    vocabulary = {letters(token): rank for token, rank in ranks.items()}
    by_rank = sorted(vocabulary, key=lambda token: vocabulary[token])
    merges = list(find_merges(by_rank, vocabulary, vocabulary))
    library = build_byte_level(vocabulary | special, merges, pre_tokenizer, path, whole=True)
    library.add_special_tokens(list(special))
    return assign_roles(library, {}, {}, path)


# -- The files of a folder --


def _build_library(folder: Path, names: set[str], settings: Mapping[str, Any]) -> Any:
    if "tokenizer.json" in names:
        return _from_json(folder / "tokenizer.json")
    if "added_tokens.json" not in names:
        if {"vocab.json", "merges.txt"} <= names:
            return _from_merges(folder, settings)
        if "vocab.txt" in names:
            _check_class(folder, settings, "BertTokenizer")
            return build_wordpiece(
                read_vocabulary(folder / "vocab.txt").tokens,
                folder,
                lower=settings.get("do_lower_case"),
                chinese=settings.get("tokenize_chinese_chars", True),
                accents=settings.get("strip_accents"),
            )
    fail(
        "tokenizer",
        f"{folder}: the folder has no supported tokenizer",
        expected="`tokenizer.json`, or `vocab.json` and `merges.txt`, or `vocab.txt`, without "
        "`added_tokens.json`",
        found=listing(sorted(names)[:12], "and") or "an empty folder",
        help="write a `tokenizer.json` with transformers: "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
    )


def _from_json(path: Path) -> Any:
    tokenizers = import_tokenizers()
    with reading(path):
        library = tokenizers.Tokenizer.from_str(_read_text(path))
        check_growth(library, path)
    # A file may have settings for truncation and padding, which do not apply here.
    library.no_truncation()
    library.no_padding()
    return library


def _from_merges(folder: Path, settings: Mapping[str, Any]) -> Any:
    _check_class(folder, settings, "GPT2Tokenizer")
    tokens = read_vocabulary(folder / "vocab.json").tokens
    path = folder / "merges.txt"
    lines = [line.removesuffix("\r") for line in _read_text(path).split("\n")]
    merges = parse_merges((x for x in lines if x and not x.startswith("#version")), path)
    special = {
        role: [token for token in tokens if token.lower() in usual]
        for role, usual in USUAL_NAMES.items()
    }
    if special["bos"] and special["eos"]:
        fail(
            "tokenizer",
            f"{folder}: the vocabulary has a start and an end token, but no file defines "
            "where they are added",
            expected="GPT-2's vocabulary, whose one special token is `<|endoftext|>`",
            found=listing(special["bos"] + special["eos"], "and"),
            help="use the `tokenizer.json` that is published with the model",
        )
    numbers = {token: number for number, token in enumerate(tokens)}
    library = build_byte_level(numbers, merges, "gpt-2", folder)
    library.add_special_tokens([token for each in special.values() for token in each])
    return library


def _check_class(folder: Path, settings: Mapping[str, Any], expected: str) -> None:
    """Reports files of a tokenizer of another class, which need another reader."""
    found = settings.get("tokenizer_class") or expected
    if found not in (expected, f"{expected}Fast"):
        fail(
            "tokenizer",
            f"{folder}: the files of this tokenizer class are not supported",
            expected=f"a `tokenizer.json`, or `tokenizer_class` to be `{expected}`",
            found=f"`{found}`",
            help="use the `tokenizer.json` that is published with the model",
        )


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for line in filter(None, _read_text(path).split("\n")):
        with reading(path):
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    if sorted(ranks.values()) != list(range(len(ranks))):
        fail("tokenizer", f"{path}: the ranks are not 0, 1, 2, … without gaps")
    return ranks


def token_text(token: object, origin: Path) -> str | None:
    """Returns the text of a special token: a text, or an object with `content`."""
    match token:
        case None | str():
            return token
        case {"content": str() as content}:
            return content
    fail("tokenizer", f"{origin}: a special token is not a text", found=repr(token)[:80])


def _read_object(path: Path) -> dict[str, Any]:
    with reading(path):
        return parse_object(read_bytes(path))


def _read_text(path: Path) -> str:
    with reading(path):
        return read_bytes(path).decode("utf-8-sig")
