"""The settings of `tokenizer_config.json` that change a `tokenizer.json` beside it.

The two files may disagree. transformers lets the settings win for some classes and ignores
them for others, and so does this; it refuses a class of which it is not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from archdsl.diagnostics import fail, listing
from archdsl.text.growth import parts
from archdsl.text.rebuilt_tokenizers import AS_IT_IS, finish, rebuild
from archdsl.text.subword_models import import_tokenizers, reading
from archdsl.text.tokenizer_classes import UNKNOWN
from archdsl.text.tokenizer_recipes import RECIPES, ROLES

_EXTRA, _ADDITIONAL = "extra_special_tokens", "additional_special_tokens"
_NAMED = "model_specific_special_tokens"


def merge_settings(config: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Merges `tokenizer_config.json` and `special_tokens_map.json`, as transformers does.

    Raises ValueError for a list of tokens that is none.
    """
    merged = dict(config)
    if not merged.get(_EXTRA):
        merged[_EXTRA] = merged.pop(_ADDITIONAL, None)
    if isinstance(merged[_EXTRA], dict):
        merged[_NAMED] = merged.pop(_EXTRA)
    elif merged[_EXTRA] is not None and type(merged[_EXTRA]) is not list:
        raise ValueError(f"`{_EXTRA}` is neither a list nor an object of tokens")
    if "added_tokens_decoder" in config:  # the map is of an older version
        return merged
    lists = [each for each in (merged.get(_EXTRA), names.get(_EXTRA)) if each is not None]
    if any(type(each) is not list for each in lists):
        raise ValueError(f"`{_EXTRA}` is not a list of tokens")
    return {**merged, **names, _EXTRA: [t for each in lists for t in each] if lists else None}


def all_tokens(settings: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """The settings of special tokens, with the defaults of the class."""
    found = {**RECIPES[name].tokens, **settings} if name in RECIPES else settings
    return {key: value for key, value in found.items() if key.endswith("_token")}


def has_bytes(library: Any) -> bool:
    """Whether a part of a file is byte-level."""
    return '"ByteLevel"' in json.dumps(parts(library))


def apply_settings(
    library: Any,
    settings: Mapping[str, Any],
    name: str | None,
    path: Path,
) -> Any:
    """Returns the tokenizer of a `tokenizer.json` as its class and the settings change it.

    `name` is the class, or None for a generic one.
    """
    if name in RECIPES:
        declared = declared_tokens(library, settings, path)
        built, settings = rebuild(library, name, settings, path, declared)
        add_tokens(built, settings, path, declared)
        finish(built, name, settings, path)
        library = built
    elif name in UNKNOWN:
        _fail_unknown(name, path)
    else:
        add_tokens(library, settings, path, declared_tokens(library, settings, path))
    if settings.get("split_special_tokens"):
        library.encode_special_tokens = True
    return library


def _fail_unknown(name: str, path: Path) -> NoReturn:
    fail(
        "tokenizer",
        f"{path}: transformers does not use tokenizer.json as it is for the class `{name}`",
        expected=f"a generic class, or {listing(sorted(RECIPES))}",
        found=f"`{name}`",
        help=AS_IT_IS,
    )


def declared_tokens(library: Any, settings: Mapping[str, Any], path: Path) -> list[Any]:
    """The added tokens: the list of the settings, else that of the file."""
    if "added_tokens_decoder" not in settings:
        added = library.get_added_tokens_decoder()
        return [added[number] for number in sorted(added)]
    decoder = settings["added_tokens_decoder"] or {}
    with reading(path):
        return [_token(decoder[key]) for key in sorted(decoder, key=int)]


def add_tokens(
    library: Any, settings: Mapping[str, Any], path: Path, declared: Sequence[Any]
) -> None:
    """Adds the declared tokens, and those that the settings name, if the library lacks them."""
    known = library.get_added_tokens_decoder().values()
    as_written = {repr(token) for token in known}
    with reading(path):
        new = [token for token in declared if repr(token) not in as_written]
        have = {token.content for token in (*known, *new)}
        # Of two with one name, the library takes the spaces around the last.
        named = map(_token, _special(settings))
        new += [token for token in named if token.content not in have]
        library.add_tokens(new)


def _special(settings: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the special tokens that have a name, then those without."""
    named = [settings.get(f"{role}_token") for role in ROLES]
    usual = {f"{role}_token" for role in ROLES}
    own = {key: value for key, value in settings.items() if key.endswith("_token")}
    named += [v for key, v in own.items() if key not in usual and isinstance(v, (str, dict))]
    named += (settings.get(_NAMED) or {}).values()
    extra = settings.get(_EXTRA)
    named += (settings.get(_ADDITIONAL) if extra is None else extra) or ()
    yield from (value for value in named if value is not None)


def _token(value: Any) -> Any:
    token = import_tokenizers().AddedToken
    if isinstance(value, str):
        return token(value, special=True)
    fields = {key: each for key, each in value.items() if key != "__type"}
    return token(**{"special": True, **fields})
