"""The settings of `tokenizer_config.json` that change a `tokenizer.json` beside it.

The two files may disagree. transformers lets the settings win for some classes and ignores
them for others; this follows it where it is known, and refuses the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from archdsl.diagnostics import fail
from archdsl.text.growth import parts
from archdsl.text.subword_models import import_tokenizers, reading

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_EXTRA, _ADDITIONAL = "extra_special_tokens", "additional_special_tokens"
_NAMED = "model_specific_special_tokens"
_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend")


def tokenizer_class(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Returns the name of the class without `Fast`; None if the files name none."""
    name = settings.get("tokenizer_class") or config.get("tokenizer_class")
    return name.removesuffix("Fast") if isinstance(name, str) else None


def is_generic(name: str | None, library: Any) -> bool:
    """Whether transformers uses a `tokenizer.json` without the settings of a class."""
    byte_level = any(each["type"] == "ByteLevel" for each in _steps(library, "pre_tokenizer"))
    return name is None or name in _GENERIC or (name == "LlamaTokenizer" and byte_level)


def merge_settings(config: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Merges `tokenizer_config.json` and `special_tokens_map.json`, as transformers does."""
    merged = dict(config)
    if not merged.get(_EXTRA):
        merged[_EXTRA] = merged.pop(_ADDITIONAL, None)
    if isinstance(merged[_EXTRA], dict):
        merged[_NAMED] = merged.pop(_EXTRA)
    if "added_tokens_decoder" in config:  # the map is of an older version
        return merged
    both = [*(merged.get(_EXTRA) or ()), *(names.get(_EXTRA) or ())]
    return {**merged, **names, _EXTRA: both}


def apply_settings(
    library: Any, settings: Mapping[str, Any], name: str | None, path: Path
) -> Any:
    """Returns the tokenizer of a `tokenizer.json` as the settings beside it change it."""
    _check_flags(library, settings, name, path)
    if not is_generic(name, library):
        library = _with_flags(library, settings, path)
    with reading(path):
        _add_tokens(library, settings)
        if settings.get("split_special_tokens"):
            library.encode_special_tokens = True
    return library


def _add_tokens(library: Any, settings: Mapping[str, Any]) -> None:
    """Adds the special tokens that the settings name and the library does not have."""
    known = library.get_added_tokens_decoder().values()
    as_written = {repr(token) for token in known}
    decoder = settings.get("added_tokens_decoder") or {}
    declared = [_token(decoder[key]) for key in sorted(decoder, key=int)]
    new = [token for token in declared if repr(token) not in as_written]
    have = {token.content for token in (*known, *new)}
    # Of two with one name, the library takes the spaces around the last.
    new += [token for token in map(_token, _special(settings)) if token.content not in have]
    library.add_tokens(new)


def _special(settings: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the special tokens that have a name, then those without."""
    named = [settings.get(f"{role}_token") for role in _ROLES]
    usual = {f"{role}_token" for role in _ROLES}
    own = {key: value for key, value in settings.items() if key.endswith("_token")}
    named += [v for key, v in own.items() if key not in usual and isinstance(v, (str, dict))]
    named += (settings.get(_NAMED) or {}).values()
    named += settings.get(_EXTRA) or settings.get(_ADDITIONAL) or ()
    yield from (value for value in named if value is not None)


def _token(value: Any) -> Any:
    token = import_tokenizers().AddedToken
    if isinstance(value, str):
        return token(value, special=True)
    fields = {key: each for key, each in value.items() if key != "__type"}
    return token(**{"special": True, **fields})


def _with_flags(library: Any, settings: Mapping[str, Any], path: Path) -> Any:
    """Sets the flags of BERT's normalizer and of the byte-level split, whose classes have a
    default for each."""
    fields = None
    space = {"add_prefix_space": settings.get("add_prefix_space") or False}
    for part, kind, flags in (
        ("normalizer", "BertNormalizer", _bert_flags(settings)),
        ("pre_tokenizer", "ByteLevel", space),
    ):
        for number, step in enumerate(_steps(library, part)):
            if step["type"] == kind and any(step[name] != flags[name] for name in flags):
                fields = fields or json.loads(library.to_str())
                list(_flat(fields[part]))[number].update(flags)
    if fields is None:
        return library
    with reading(path):
        return import_tokenizers().Tokenizer.from_str(json.dumps(fields))


def _bert_flags(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "clean_text": True,
        "lowercase": settings.get("do_lower_case", True),
        "strip_accents": settings.get("strip_accents"),
        "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
    }


def _check_flags(
    library: Any, settings: Mapping[str, Any], name: str | None, path: Path
) -> None:
    """Reports a flag that disagrees with the file, where it is not known which one wins."""
    if name in _GENERIC:
        return  # transformers ignores these flags
    before = {step["type"]: step for step in _steps(library, "normalizer")}
    split = {step["type"]: step for step in _steps(library, "pre_tokenizer")}
    bert = before.get("BertNormalizer", {})
    space = split.get("Metaspace", {}).get("prepend_scheme", "never") != "never"
    found = {
        "do_lower_case": "Lowercase" in before or bert.get("lowercase", False),
        "strip_accents": "StripAccents" in before or _strips(bert),
        "add_prefix_space": space
        or "Prepend" in before
        or split.get("ByteLevel", {}).get("add_prefix_space", False),
    }
    known = name is not None and not is_generic(name, library)
    set_by_class = {"do_lower_case", "strip_accents"} if bert and known else set()
    set_by_class |= {"add_prefix_space"} if "ByteLevel" in split and known else set()
    for flag, value in found.items():
        wanted = settings.get(flag)
        if isinstance(wanted, bool) and wanted != value and flag not in set_by_class:
            _report(flag, wanted, value, path)


def _strips(bert: Mapping[str, Any]) -> bool:
    strips = bert.get("strip_accents")
    return bool(bert.get("lowercase", False) if strips is None else strips)


def _report(flag: str, wanted: object, found: object, path: Path) -> NoReturn:
    fail(
        "tokenizer",
        f"{path}: `{flag}` of tokenizer_config.json disagrees with tokenizer.json",
        expected=f"{json.dumps(found)}, as in tokenizer.json",
        found=json.dumps(wanted),
        help=f"remove `{flag}` if tokenizer.json is right, or write a new tokenizer.json with "
        "transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
    )


def _steps(library: Any, part: str) -> list[dict[str, Any]]:
    return list(_flat(parts(library)[part]))


def _flat(part: Any) -> Iterator[dict[str, Any]]:
    """Yields the steps of a part, those of sequences too."""
    inner = part and (part.get("normalizers") or part.get("pretokenizers"))
    if inner is not None:
        for each in inner or ():
            yield from _flat(each)
    elif part:
        yield part
