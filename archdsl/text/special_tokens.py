"""The special tokens of a published tokenizer, and which of them are added to a text.

Files define them by name, by id, or not at all; then tokens with a usual name are used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from archdsl.diagnostics import did_you_mean, fail
from archdsl.formats.strict_json import read_object
from archdsl.frozen import Frozen
from archdsl.text.subword_models import import_tokenizers, using
from archdsl.text.vocabulary_tokenizer import PURPOSES, USUAL_NAMES


class PublishedTokenizer(Frozen):
    """A `tokenizers.Tokenizer`, with the ids of its special tokens and its chat template.

    `bos`, `eos` and `pad` are the ids of the start, end and padding tokens. `vocabulary` is one
    more than the largest id. `chat_tokens` are the variables of the template that the files
    name, such as `bos_token`; None if they say that there is none.
    """

    library: Any
    bos: int | None
    eos: tuple[int, ...]
    pad: int | None
    chat_template: str | None = None
    vocabulary: int = 0
    chat_tokens: tuple[tuple[str, str | None], ...] = ()


def assign_roles(
    library: Any,
    named: Mapping[str, str | None],
    numbered: Mapping[str, object],
    origin: Path,
    chat_template: str | None = None,
    ids: Mapping[str, int] | None = None,
    chat_tokens: Mapping[str, str | None] | None = None,
) -> PublishedTokenizer:
    """Finds the special tokens by name, by id or by usual name.

    `ids` are the ids of all tokens, if known; the library takes long to list them.
    """
    ids = library.get_vocab() if ids is None else ids
    if not ids:
        fail("tokenizer", f"{origin}: the tokenizer has no tokens")
    found = {}
    for role in PURPOSES:
        name = named.get(role)
        if name is not None and name not in ids:
            fail(
                "tokenizer",
                f"{origin}: {PURPOSES[role]} is not in the vocabulary",
                found=f"`{name}`",
                help=did_you_mean(name, ids),
            )
        known = [ids[name]] if name is not None else []
        if name is not None and ids[name] not in library.get_added_tokens_decoder():
            library.add_special_tokens([name])
        known += _read_ids(role, numbered.get(role), set(ids.values()), origin)
        found[role] = tuple(dict.fromkeys(known)) or _find_usual(library, role)
    bos, pad = (next(iter(found[role]), None) for role in ("bos", "pad"))
    end = max(ids.values()) + 1
    variables = tuple((chat_tokens or {}).items())
    return PublishedTokenizer(library, bos, found["eos"], pad, chat_template, end, variables)


def set_end_tokens(
    published: PublishedTokenizer, add_bos: object, add_eos: object, origin: Path
) -> None:
    """Makes the library add the start and end token to a text, by these flags.

    None keeps the setting of the file. Other tokens that a `tokenizer.json` adds are kept.
    """
    if add_bos is None and add_eos is None:
        return
    pairs = (("bos", add_bos, published.bos), ("eos", add_eos, next(iter(published.eos), None)))
    for role, flag, number in pairs:
        if flag and number is None:
            fail(
                "tokenizer",
                f"{origin}: `add_{role}_token` is set, but {PURPOSES[role]} is not defined",
                help=f"define `{role}_token`, or remove `add_{role}_token`",
            )
    wanted = {role: number for role, flag, number in pairs if flag}
    with using(str(origin)):
        now = published.library.encode("").ids
    if now == list(wanted.values()) or not {*now} <= {published.bos, *published.eos}:
        return
    single = " ".join(["bos"] * ("bos" in wanted) + ["$A"] + ["eos"] * ("eos" in wanted))
    published.library.post_processor = import_tokenizers().processors.TemplateProcessing(
        single=single, special_tokens=list(wanted.items())
    )


def parse_template(value: object, origin: Path) -> str | None:
    """Reads a chat template: a text, or a list of named templates with a default."""
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        value = {each.get("name"): each.get("template") for each in value}.get("default")
    if value is None or isinstance(value, str):
        return value
    fail(
        "tokenizer",
        f"{origin}: the chat template is not a text",
        expected="a text, or a list of objects with `name` and `template`",
        found=repr(value)[:80],
    )


def _read_ids(role: str, value: object, ids: set[int], origin: Path) -> list[int]:
    """Reads the token ids of a setting; None and negative ids mean no token.

    An id may be one that the tokenizer does not have: a model may have more rows.
    """
    numbers: list[int] = []
    for each in value if isinstance(value, list) else [value]:
        if type(each) is int and each < 1 << 32:
            numbers += [each] if each >= 0 else []
        elif each is not None:
            fail(
                "tokenizer",
                f"{origin}: the id of {PURPOSES[role]} is not a token id",
                expected=f"a whole number from 0 to {max(ids)}",
                found=repr(each)[:80],
            )
    return numbers


def _find_usual(library: Any, role: str) -> tuple[int, ...]:
    """Finds the special tokens with a usual name of the role; only `eos` can have several."""
    found = tuple(
        number
        for number, token in library.get_added_tokens_decoder().items()
        if token.special and token.content.lower() in USUAL_NAMES[role]
    )
    return found if role == "eos" or len(found) == 1 else ()


def read_token_ids(folder: Path, names: Collection[str]) -> dict[str, object]:
    """Reads the fields `…_token_id` of the config files of a folder, unchecked."""
    found: dict[str, object] = {}
    for path in (folder / name for name in ("config.json", "generation_config.json")):
        fields = read_object(path, "a config") if path.is_file() else {}
        found |= {name: fields[name] for name in names if name in fields}
    return found
