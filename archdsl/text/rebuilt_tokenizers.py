"""Tokenizers that transformers 5 builds from the vocabulary of a `tokenizer.json`.

Each class has its own model settings, normalizer, pre-tokenizer and decoder, whatever the file
says; `tokenizer_recipes` lists them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archdsl.diagnostics import fail
from archdsl.text.growth import parts
from archdsl.text.subword_models import import_tokenizers, reading
from archdsl.text.tokenizer_recipes import RECIPES, Recipe, Settings, Token, content_of

_MOST_NUMBERED = 10_000
AS_IT_IS = (
    "to use tokenizer.json as it is, write `TokenizersBackend` as the `tokenizer_class` of "
    "tokenizer_config.json"
)


def rebuild(
    library: Any, name: str, settings: Settings, path: Path, declared: Sequence[Any]
) -> tuple[Any, Settings]:
    """Builds the tokenizer of a class without added tokens; returns it with all settings.

    `declared` are the tokens that will be added. A file that is already as the class builds it
    is returned as it is, because building takes a second for a large vocabulary.
    """
    recipe = RECIPES[name]
    found = type(library.model).__name__
    if found != recipe.model:
        fail(
            "tokenizer",
            f"{path}: tokenizer.json does not have the model of its tokenizer class `{name}`",
            expected=f"`{recipe.model}`",
            found=f"`{found}`",
            help=AS_IT_IS,
        )
    before = parts(library)["normalizer"]
    with reading(path):
        full = _with_defaults(recipe, settings)
        if recipe.model == "BPE":
            small = _build(recipe, {"vocab": {}, "merges": []}, full, before)
            if _is_same(library, small) and _keeps_ids(library, declared):
                return library, full
        model = json.loads(library.to_str())["model"]
        built = _build(recipe, model, full, before)
        built.post_processor = library.post_processor or built.post_processor
    return built, full


def _build(recipe: Recipe, model: Mapping[str, Any], settings: Settings, before: Any) -> Any:
    tokenizers = import_tokenizers()
    options = dict(recipe.options)
    if recipe.unknown:
        options["unk_token"] = str(content_of(settings.get("unk_token")))
    if recipe.model == "BPE":
        merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        made = tokenizers.models.BPE(model["vocab"], list(map(tuple, merges)), **options)
    elif recipe.model == "WordPiece":
        made = tokenizers.models.WordPiece(model["vocab"], **options)
    else:
        pieces = [tuple(each) for each in model["vocab"]]
        made = tokenizers.models.Unigram(pieces, byte_fallback=False, **options)
    built = tokenizers.Tokenizer(made)
    recipe.set_up(built, {**settings, "normalizer": before})
    return built


_FLAGS = (
    *("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"),
    *("fuse_unk", "byte_fallback", "ignore_merges"),
)


def _is_same(library: Any, small: Any) -> bool:
    """Whether two tokenizers with BPE have the same rules, whatever their vocabulary."""
    one, other = parts(library), parts(small)
    steps = ("normalizer", "pre_tokenizer", "decoder")
    flags = [
        [getattr(each.model, flag) or None for flag in _FLAGS] for each in (library, small)
    ]
    return flags[0] == flags[1] and all(one[step] == other[step] for step in steps)


def _keeps_ids(library: Any, declared: Sequence[Any]) -> bool:
    """Whether the added tokens of a file are those declared, in the order of their ids."""
    added = library.get_added_tokens_decoder()
    after = library.get_vocab_size(with_added_tokens=False)
    for number in sorted(added):
        if library.model.token_to_id(added[number].content) != number:
            if number != after:
                return False
            after += 1
    return [repr(added[number]) for number in sorted(added)] == list(map(repr, declared))


def finish(library: Any, name: str, settings: Settings, path: Path) -> None:
    """Sets what needs the ids of the special tokens."""
    recipe = RECIPES[name]
    if recipe.finish:
        with reading(path):
            recipe.finish(library, settings)


def _with_defaults(recipe: Recipe, settings: Settings) -> dict[str, Any]:
    full = {**recipe.tokens, **settings}
    for name, flags in recipe.flags:
        if isinstance(full[name], str):
            full[name] = {"content": full[name], **flags}
    if recipe.numbered and settings.get("extra_special_tokens") is None:
        full["extra_special_tokens"] = _with_numbered(recipe.numbered, settings)
    return full


def _with_numbered(pattern: str, settings: Settings) -> list[Token]:
    """The extra tokens of older files, which are numbered tokens or in addition to them."""
    given = list(settings.get("additional_special_tokens") or ())
    count = settings.get("extra_ids", 100)
    if type(count) is not int or not 0 <= count <= _MOST_NUMBERED:
        raise ValueError(f"`extra_ids` is {count!r:.40}, not a number up to {_MOST_NUMBERED}")
    own = [each for each in given if pattern.format("")[:-1] in str(each)]
    if own and count not in (0, len(own)):
        raise ValueError(f"`extra_ids` is {count}, but {len(own)} of these tokens are listed")
    return given if own else [*given, *map(pattern.format, range(count))]
