"""What the tokens of a published tokenizer are for, and which of them are put around a text.

Files name such tokens, number them or leave them to their usual names. Where in the files that
stands is left to `tokenizer_files` and `gguf`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archdsl.diagnostics import did_you_mean, fail
from archdsl.formats.strict_json import read_object
from archdsl.text.subword_models import library_package
from archdsl.text.vocabulary_tokenizer import PURPOSES, USUAL_NAMES


@dataclass(frozen=True)
class Published:
    """A tokenizer of the library (`tokenizers.Tokenizer`), and what is known of its tokens.

    `bos`, `eos` and `pad` are the numbers of the tokens that start a sequence, end it and
    fill up a batch; `vocabulary` is one more than the largest number.
    """

    library: Any
    bos: int | None
    eos: tuple[int, ...]
    pad: int | None
    chat_template: str | None = None
    vocabulary: int = 0


def with_roles(
    library: Any,
    named: Mapping[str, str | None],
    numbered: Mapping[str, object],
    origin: Path,
    chat_template: str | None = None,
    ids: Mapping[str, int] | None = None,
) -> Published:
    """The tokenizer with the tokens that have a role, by name, by number or by usual name.

    `ids` are the numbers of all its tokens, where they are known: the library takes a while
    to say them.
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
                f"{origin}: the token for {PURPOSES[role]} is not in the vocabulary",
                found=f"`{name}`",
                help=did_you_mean(name, ids),
            )
        known = [ids[name]] if name is not None else []
        if name is not None and ids[name] not in library.get_added_tokens_decoder():
            library.add_special_tokens([name])
        known += _known_numbers(role, numbered.get(role), set(ids.values()), origin)
        found[role] = tuple(dict.fromkeys(known)) or _usual(library, role)
    bos, pad = (next(iter(found[role]), None) for role in ("bos", "pad"))
    end = max(ids.values()) + 1
    return Published(library, bos, found["eos"], pad, chat_template, end)


def add_ends(published: Published, add_bos: object, add_eos: object, origin: Path) -> None:
    """Makes the library put the start and the end token around a text, as these flags say.

    None says nothing. What a `tokenizer.json` puts there of other tokens stays.
    """
    if add_bos is None and add_eos is None:
        return
    pairs = (("bos", add_bos, published.bos), ("eos", add_eos, next(iter(published.eos), None)))
    for role, flag, number in pairs:
        if flag and number is None:
            fail(
                "tokenizer",
                f"{origin}: the token for {PURPOSES[role]} is added, but none is known",
            )
    wanted = {role: number for role, flag, number in pairs if flag}
    now = published.library.encode("").ids
    if now == list(wanted.values()) or not {*now} <= {published.bos, *published.eos}:
        return
    single = " ".join(["bos"] * ("bos" in wanted) + ["$A"] + ["eos"] * ("eos" in wanted))
    published.library.post_processor = library_package().processors.TemplateProcessing(
        single=single, special_tokens=list(wanted.items())
    )


def template(value: object, origin: Path) -> str | None:
    """A chat template as settings have it: itself, or several by name, one the default."""
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        value = {each.get("name"): each.get("template") for each in value}.get("default")
    if value is None or isinstance(value, str):
        return value
    fail("tokenizer", f"{origin}: a chat template is a text", found=repr(value)[:80])


def _known_numbers(role: str, value: object, ids: set[int], origin: Path) -> list[int]:
    """The tokens that a setting numbers; None and what is below 0 stand for none."""
    numbers: list[int] = []
    for each in value if isinstance(value, list) else [value]:
        if type(each) is int and (each < 0 or each in ids):
            numbers += [each] if each >= 0 else []
        elif each is not None:
            fail(
                "tokenizer",
                f"{origin}: the number of the token for {PURPOSES[role]} is none of the "
                "vocabulary's",
                expected=f"0 to {max(ids)}",
                found=repr(each)[:80],
            )
    return numbers


def _usual(library: Any, role: str) -> tuple[int, ...]:
    """The special tokens with a usual name of the role; several can only be ends."""
    found = tuple(
        number
        for number, token in library.get_added_tokens_decoder().items()
        if token.special and token.content.lower() in USUAL_NAMES[role]
    )
    return found if role == "eos" or len(found) == 1 else ()


def token_numbers(folder: Path, names: Collection[str]) -> dict[str, object]:
    """The tokens that the files of a folder number by `…_token_id`, as they stand there."""
    found: dict[str, object] = {}
    for path in (folder / name for name in ("config.json", "generation_config.json")):
        fields = read_object(path, "a config") if path.is_file() else {}
        found |= {name: fields[name] for name in names if name in fields}
    return found
