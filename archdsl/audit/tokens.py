"""Special tokens: the ids and names that the files give, against each other, the vocabulary
and the rows of the model."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.audit.findings import NOTE, RISKY, WRONG, Findings, some
from archdsl.audit.opened import Opened
from archdsl.diagnostics import ArchError, escape, listing
from archdsl.frozen import Frozen
from archdsl.text.tokenizer import TextTokenizer
from archdsl.text.tokenizer_files import read_published, token_text
from archdsl.text.vocabulary_tokenizer import PURPOSES

_BY_ID = ("config.json", "generation_config.json")
_BY_NAME = ("tokenizer_config.json", "special_tokens_map.json")
_JSON, _CLASS = "tokenizer.json", "tokenizer_config.json: tokenizer_class"
_SAMPLES = (
    "hello",
    "Hello  World",
    " a\n\nb",
    "don't 12345",
    "na\u00efve caf\u00e9",
    "<s>a</s>",
)
_GGUF = {"bos_token_id": "bos", "eos_token_id": "eos", "padding_token_id": "pad"}


class _Given(Frozen):
    """The tokens of a role that one field of a file gives; `role` is empty for other fields."""

    where: str
    role: str
    ids: tuple[int, ...]


def check(opened: Opened, findings: Findings) -> None:
    tokenizer = opened.tokenizer
    given = list(_given(opened, findings))
    _check_rows(opened, given, findings)
    if tokenizer is None:
        return
    for role in PURPOSES:
        _check_agreement(role, [g for g in given if g.role == role], tokenizer, findings)
    _check_class(opened, tokenizer, findings)
    if tokenizer.pad is not None and tokenizer.pad in tokenizer.eos:
        _report_padding_that_ends(opened, tokenizer, findings)


def _check_class(opened: Opened, tokenizer: TextTokenizer, findings: Findings) -> None:
    """Compares the tokens of a `tokenizer.json` with those of its class and settings."""
    if _JSON not in opened.files:
        return
    with findings.refusals(_JSON):
        alone = TextTokenizer(read_published(opened.place / _JSON), _JSON)
        for text in _SAMPLES:
            try:
                one, other = alone.encode(text), tokenizer.encode(text)
            except ArchError:  # the vocabulary has no such character
                continue
            if one != other:
                what = (
                    f"its class and settings give other tokens for {text!a} than tokenizer.json"
                )
                findings.add(
                    RISKY, _CLASS, f"{what} alone", "follows them, as transformers does"
                )
                return


def _given(opened: Opened, findings: Findings) -> Iterator[_Given]:
    for file in _BY_ID:
        fields = opened.fields() if file == "config.json" else opened.config(file)
        for field, value in fields.items():
            name = field.rpartition(".")[2]
            if not name.endswith("_token_id"):
                continue
            role = name.removesuffix("_token_id") if opened.is_folder else _GGUF.get(name, "")
            numbers = value if isinstance(value, list) else [value]
            ids = tuple(n for n in numbers if type(n) is int and n >= 0)
            if ids:
                yield _Given(opened.name(file, field), role if role in PURPOSES else "", ids)
    for file in _BY_NAME if opened.tokenizer else ():
        assert opened.tokenizer
        for role in PURPOSES:
            where = f"{file}: {role}_token"
            with findings.refusals(where):
                text = token_text(opened.config(file).get(f"{role}_token"), opened.place)
                if text is not None:
                    yield _Given(where, role, (opened.tokenizer.number(text),))


def _check_rows(opened: Opened, given: list[_Given], findings: Findings) -> None:
    """Checks ids against the rows of the model and the tokens of the tokenizer."""
    rows, tokenizer = opened.rows, opened.tokenizer
    known = tokenizer.vocabulary if tokenizer else None
    for each in given:
        beyond = [n for n in each.ids if rows is not None and n >= rows]
        if beyond:
            padding = each.role == "pad"
            findings.add(
                RISKY if padding else WRONG,
                each.where,
                f"{_numbers(beyond)} beyond the {rows} rows of the model",
                "never looks padding up" if padding else "never meets such a token",
            )
            continue
        unknown = [n for n in each.ids if known is not None and n >= known]
        if unknown:
            what = f"{_numbers(unknown)} beyond the {known} tokens of the tokenizer"
            findings.add(RISKY, each.where, what, "accepts it; the token has no text")
    if rows is None or tokenizer is None or known is None:
        return
    if known > rows:
        findings.add(
            WRONG,
            "tokenizer",
            f"ids up to {known - 1}, but the model has {rows} rows",
            "refuses a text with a token that has no row",
        )
    elif lacking := len(tokenizer.without_token(rows)):
        findings.add(
            NOTE,
            "tokenizer",
            f"{lacking} of the {rows} rows of the model have no token",
            "never chooses them",
        )


def _numbers(ids: list[int]) -> str:
    shown = some([str(each) for each in ids])
    return f"{shown} is" if len(ids) == 1 else f"{shown} are"


def _check_agreement(
    role: str, given: list[_Given], tokenizer: TextTokenizer, findings: Findings
) -> None:
    """Compares what the files say of one role."""
    sets = [frozenset(each.ids) for each in given]
    usual = max(sets, key=lambda ids: (len(ids), sets.count(ids)), default=frozenset[int]())
    different = [each for each in given if set(each.ids) != usual]
    if not different:
        return
    # A text may end with one of several tokens, of which a file names the main one.
    nested = role == "eos" and all(set(each.ids) < usual for each in different)
    said = [f"{each.where} {_shown(each.ids, tokenizer)}" for each in given]
    used = {"bos": tokenizer.bos, "pad": tokenizer.pad}.get(role)
    ids = tokenizer.eos if role == "eos" else () if used is None else (used,)
    findings.add(
        NOTE if nested else RISKY,
        some([each.where for each in different]),
        f"{PURPOSES[role]} differs: {'; '.join(said)}",
        f"takes {_shown(ids, tokenizer)}",
    )


def _shown(ids: tuple[int, ...], tokenizer: TextTokenizer) -> str:
    texts = [f"{n} {_text(n, tokenizer)}".rstrip() for n in ids]
    return ", ".join(texts) or "none"


def _text(number: int, tokenizer: TextTokenizer) -> str:
    try:
        text = tokenizer.decode([number], skip_special=False)
    except ArchError:
        return ""
    return f"`{escape(text)}`" if text else ""


def _report_padding_that_ends(
    opened: Opened, tokenizer: TextTokenizer, findings: Findings
) -> None:
    assert tokenizer.pad is not None
    inputs = opened.graph.inputs if opened.graph else ()
    padded = [each.name for each in inputs if each.pad == tokenizer.pad]
    findings.add(
        RISKY,
        "tokenizer: pad_token",
        f"{_shown((tokenizer.pad,), tokenizer)} is also an end token: a loss that skips "
        "padding never learns the end",
        f"pads {listing(padded, 'and')} with it, and refuses to end a text with it"
        if padded
        else "never pads with it",
    )
