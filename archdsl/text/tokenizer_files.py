"""Tokenizers as they are published: what the files say of their tokens.

A folder of Hugging Face's, a `tokenizer.json`, GPT-2's `vocab.json` and `merges.txt`, BERT's
`vocab.txt`, and the ranks of tiktoken. GGUF is in `gguf`, how text is cut into tokens in
`text_encodings`; what can be done with a tokenizer is left to `texts`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from archdsl.diagnostics import fail, listing
from archdsl.formats.strict_json import parse_object
from archdsl.text.gguf_tokenizer import read_gguf
from archdsl.text.special_tokens import Published, add_ends, template, token_numbers, with_roles
from archdsl.text.subword_models import (
    byte_level,
    letters,
    library_package,
    pairs,
    reading,
    splits,
    word_pieces,
)
from archdsl.text.vocabulary_tokenizer import PURPOSES, USUAL_NAMES, read_vocabulary

_RANKED = {
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
"""By the number of ranks in a file of tiktoken's: the cuts and special tokens it leaves out."""


def read_published(place: Path) -> Published:
    """The tokenizer in a folder or a file, of the kinds that `texts.read_tokenizer` says."""
    with reading(place):
        is_folder = S_ISDIR(place.stat().st_mode)
    if is_folder:
        return _read_folder(place)
    readers = {".json": _read_json, ".tiktoken": _read_tiktoken, ".gguf": read_gguf}
    read = readers.get(place.suffix.lower())
    if read is None:
        fail(
            "tokenizer",
            f"{place}: neither a folder nor, by its suffix, a tokenizer's file",
            expected=listing(readers),
            found=f"`{place.suffix}`" if place.suffix else "no suffix",
        )
    return read(place)


def _read_folder(folder: Path) -> Published:
    """The tokenizer in a folder of Hugging Face's.

    Of several kinds of files the first of `tokenizer.json`, `vocab.json` with `merges.txt`,
    and `vocab.txt` counts. Special tokens are those that `tokenizer_config.json` or
    `special_tokens_map.json` name and those that `generation_config.json`, else
    `config.json`, numbers; where they say nothing, those with a usual name.
    """
    with reading(folder):
        names = {entry.name for entry in folder.iterdir()}
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        settings |= _object(folder / name) if name in names else {}
    library = _library_of(folder, names, settings)
    numbers = token_numbers(folder, [f"{role}_token_id" for role in PURPOSES])
    chat = template(settings.get("chat_template"), folder)
    if "chat_template.jinja" in names:
        chat = _text(folder / "chat_template.jinja")
    published = with_roles(
        library,
        {role: _content(settings.get(f"{role}_token"), folder) for role in PURPOSES},
        {role: numbers.get(f"{role}_token_id") for role in PURPOSES},
        folder,
        chat,
    )
    add_ends(published, settings.get("add_bos_token"), settings.get("add_eos_token"), folder)
    return published


def _read_json(path: Path) -> Published:
    """The tokenizer of a `tokenizer.json`, which does not say what its tokens are for."""
    return with_roles(_from_json(path), {}, {}, path)


def _read_tiktoken(path: Path) -> Published:
    """The tokenizer of a file of tiktoken's: on each line a token in base64, and its rank.

    Such a file says neither where text is cut nor what the special tokens are. Both are known
    for GPT-2's encoding, cl100k and Qwen's, each told by how many ranks it has.
    """
    ranks = _ranks(path)
    if len(ranks) not in _RANKED:
        fail(
            "tokenizer",
            f"{path}: nothing is known of how an encoding of so many ranks cuts a text",
            expected=listing(map(str, _RANKED)) + " ranks",
            found=str(len(ranks)),
            help="use the `tokenizer.json` that is published with the model",
        )
    cuts, special = _RANKED[len(ranks)]
    vocabulary = {letters(token): rank for token, rank in ranks.items()}
    by_rank = sorted(vocabulary, key=lambda token: vocabulary[token])
    merges = list(splits(by_rank, vocabulary, vocabulary))
    library = byte_level(vocabulary | special, merges, cuts, path, whole=True)
    library.add_special_tokens(list(special))
    return with_roles(library, {}, {}, path)


# -- The files of a folder --


def _library_of(folder: Path, names: set[str], settings: Mapping[str, Any]) -> Any:
    if "tokenizer.json" in names:
        return _from_json(folder / "tokenizer.json")
    if "added_tokens.json" not in names:
        if {"vocab.json", "merges.txt"} <= names:
            return _from_merges(folder, settings)
        if "vocab.txt" in names:
            _check_class(folder, settings, "BertTokenizer")
            return word_pieces(
                read_vocabulary(folder / "vocab.txt").tokens,
                folder,
                lower=settings.get("do_lower_case"),
                chinese=settings.get("tokenize_chinese_chars", True),
                accents=settings.get("strip_accents"),
            )
    fail(
        "tokenizer",
        f"{folder}: the folder has no tokenizer that is read",
        expected="`tokenizer.json`, or `vocab.json` and `merges.txt`, or `vocab.txt`, without "
        "`added_tokens.json`",
        found=listing(sorted(names)[:12], "and") or "nothing in it",
        help="transformers writes a `tokenizer.json`: "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
    )


def _from_json(path: Path) -> Any:
    tokenizers = library_package()
    with reading(path):
        library = tokenizers.Tokenizer.from_str(_text(path))
    # Files carry the settings of whoever saved them, which would cut texts short unasked.
    library.no_truncation()
    library.no_padding()
    return library


def _from_merges(folder: Path, settings: Mapping[str, Any]) -> Any:
    _check_class(folder, settings, "GPT2Tokenizer")
    tokens = read_vocabulary(folder / "vocab.json").tokens
    path = folder / "merges.txt"
    lines = [line.removesuffix("\r") for line in _text(path).split("\n")]
    merges = pairs((x for x in lines if x and not x.startswith("#version")), path)
    special = {
        role: [token for token in tokens if token.lower() in usual]
        for role, usual in USUAL_NAMES.items()
    }
    if special["bos"] and special["eos"]:
        fail(
            "tokenizer",
            f"{folder}: the vocabulary has tokens for both ends of a text, and nothing says "
            "where they go",
            expected="GPT-2's vocabulary, whose one special token is `<|endoftext|>`",
            found=listing(special["bos"] + special["eos"], "and"),
            help="use the `tokenizer.json` that is published with the model",
        )
    numbers = {token: number for number, token in enumerate(tokens)}
    library = byte_level(numbers, merges, "gpt-2", folder)
    library.add_special_tokens([token for each in special.values() for token in each])
    return library


def _check_class(folder: Path, settings: Mapping[str, Any], expected: str) -> None:
    """Refuses files that look alike and are read in another way."""
    found = settings.get("tokenizer_class") or expected
    if found not in (expected, f"{expected}Fast"):
        fail(
            "tokenizer",
            f"{folder}: its files do not say enough of the tokenizer",
            expected=f"a `tokenizer.json`, or `tokenizer_class` to be `{expected}`",
            found=f"`{found}`",
            help="use the `tokenizer.json` that is published with the model",
        )


def _ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for line in filter(None, _text(path).split("\n")):
        with reading(path):
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    if sorted(ranks.values()) != list(range(len(ranks))):
        fail("tokenizer", f"{path}: the ranks are not the numbers from 0 up, each once")
    return ranks


def _content(token: object, origin: Path) -> str | None:
    """The text of a token as settings have it: itself, or an object with what it is."""
    match token:
        case None | str():
            return token
        case {"content": str() as content}:
            return content
    fail("tokenizer", f"{origin}: a special token is a text", found=repr(token)[:80])


def _object(path: Path) -> dict[str, Any]:
    with reading(path):
        return parse_object(path.read_bytes())


def _text(path: Path) -> str:
    with reading(path):
        return path.read_bytes().decode("utf-8-sig")
