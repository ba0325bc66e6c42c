"""Records as examples: a text or a number for each input and label of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import key_of
from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph, Input
from archdsl.text.tokenizer import PlainTokenizer, TextTokenizer
from archdsl.training.build_tokenizer import Chosen
from archdsl.training.chat_data import MESSAGES, encode_chat
from archdsl.training.files import Files
from archdsl.training.records import Record, identity, read_records
from archdsl.training.roles import Roles, describe_roles, is_tokens
from archdsl.training.row_data import RecordRows, Values, stored_rows, varying_axis
from archdsl.training.text_data import check_padding

TEXT = "text"  # the field of the only text of an example


class Fields(Frozen):
    """Which field of a record each input has, and which of them are texts."""

    of: tuple[tuple[str, str], ...]
    texts: frozenset[str]
    chat: bool = False


def find_fields(record: Record, roles: Roles) -> Fields:
    """The fields of records like this one; `ArchError` (`input`) if one is missing."""
    if MESSAGES in record.values and roles.is_text:
        return Fields((), frozenset(), True)
    wanted = [each for each in (*roles.inputs, *roles.labels) if each is not roles.answers]
    tokens = [each for each in wanted if is_tokens(each)]
    fields, texts = {}, set()
    for each in wanted:
        field = each.name
        if field not in record.values and tokens == [each] and TEXT in record.values:
            field = TEXT
        if field not in record.values:
            names = [*record.values]
            fail(
                "input",
                f"{record.place}: there is no field `{each.name}`",
                expected=describe_roles(roles),
                found=listing(names, "and") if names else "no field",
                help=did_you_mean(each.name, names),
            )
        fields[each.name] = field
        if isinstance(record.values[field], str) and is_tokens(each):
            texts.add(each.name)
    return Fields(tuple(fields.items()), frozenset(texts))


def texts_of(found: Files, fields: Fields, names: Sequence[str]) -> Iterator[str]:
    """All texts of records, for a new vocabulary."""
    for record in read_records(found.all, names):
        for name, field in fields.of:
            if name in fields.texts and isinstance(record.values.get(field), str):
                yield record.values[field]


def read_rows(
    paths: Sequence[Any],
    graph: Graph,
    roles: Roles,
    fields: Fields,
    chosen: Chosen | None,
    packed: bool = False,
) -> RecordRows:
    """The examples of files of records. If they are `packed`, they need no padding."""
    inputs = [*roles.inputs, *roles.labels]
    names = [each.name for each in inputs if each is not roles.answers]

    def examples() -> Iterator[tuple[str, Values]]:
        for record in read_records(paths, names):
            yield record.place, encode_record(record, roles, fields, chosen)

    size = chosen.tokenizer.vocabulary if chosen else 0
    whole = np.uint16 if 0 < size <= 1 << 16 else np.uint32
    kinds: dict[str, type[np.generic]] = {}
    for each in inputs:
        text = each.name in fields.texts or (fields.chat and each is roles.tokens)
        plain = {"int": np.int32, "float": np.float32, "bool": np.bool_}[each.type.dtype]
        kinds[each.name] = whole if text else plain
    key = key_of(
        *("rows", 1, identity(paths), chosen.key if chosen else None, fields),
        *(str((each.name, each.type, each.pad)) for each in inputs),
        [(each.name, each.least, each.bound) for each in graph.varying],
    )
    fills = dict.fromkeys(kinds, 0) if packed else _fills(graph, roles)
    return stored_rows(graph, inputs, fills, key, examples, kinds)


def encode_record(
    record: Record, roles: Roles, fields: Fields, chosen: Chosen | None
) -> dict[str, NDArray[Any]]:
    """The values of an example by input and label: [] or [n] each."""
    if fields.chat:
        assert chosen
        assert roles.tokens
        tokens, answers = encode_chat(chosen.tokenizer, record.values[MESSAGES], record.place)
        found = {roles.tokens.name: tokens}
        return found | ({roles.answers.name: answers} if roles.answers else {})
    inputs = {each.name: each for each in (*roles.inputs, *roles.labels)}
    found = {}
    for name, field in fields.of:
        each, value = inputs[name], record.values.get(field)
        if name in fields.texts:
            if not isinstance(value, str):
                _wrong(record, each, field, value, "a text")
            assert chosen
            found[name] = encode_text(chosen.tokenizer, value, each, roles, record.place)
            check_padding(found[name], each, chosen)
        else:
            found[name] = _numbers(record, each, field, value)
    if roles.answers and roles.tokens:
        found[roles.answers.name] = np.ones(len(found[roles.tokens.name]), np.bool_)
    return found


def encode_text(
    tokenizer: TextTokenizer, text: str, each: Input, roles: Roles, place: str
) -> NDArray[Any]:
    """The tokens [n] of a text, with the special tokens of its role.

    A target has the start and the end token; a text to continue those that the tokenizer has.
    Another text has what the tokenizer's files add; a plain vocabulary adds start and end.
    """
    start = [] if tokenizer.bos is None else [tokenizer.bos]
    end = [*tokenizer.eos[:1]]
    if each is roles.tokens and roles.source and not (start and end):
        fail(
            "tokenizer",
            f"`{tokenizer.origin}` has no start or no end token, which `{each.name}` needs",
            each.span,
            expected="tokens with a usual name, such as `<bos>` and `<eos>`",
        )
    if each is roles.tokens:
        found = [*start, *tokenizer.encode(text, add_special=False), *end]
    else:
        found = encode_source(tokenizer, text)
    least = _least(each, roles)
    if len(found) < least:
        fail(
            "input",
            f"{place}: the text of `{each.name}` is too short",
            each.span,
            expected=f"{least} tokens or more",
            found=f"{len(found)} tokens",
            help="leave the example out",
        )
    return np.array(found, np.uint32)


def encode_source(tokenizer: TextTokenizer, text: str) -> list[int]:
    """The tokens of a text that is no target: with what the tokenizer's files add, or with
    start and end if it is a plain vocabulary."""
    if not isinstance(tokenizer, PlainTokenizer):
        return tokenizer.encode(text)
    start = [] if tokenizer.bos is None else [tokenizer.bos]
    return [*start, *tokenizer.encode(text), *tokenizer.eos[:1]]


def _least(each: Input, roles: Roles) -> int:
    """The fewest tokens of a text: something is predicted if it is a target."""
    return 2 if each is roles.tokens else 1


def _numbers(record: Record, each: Input, field: str, value: Any) -> NDArray[Any]:
    """A number [] or a list of numbers [n]."""
    rank, dtype = len(each.type.axes), each.type.dtype
    expected = f"a {'list' if rank else 'value'} of {dtype}"
    if isinstance(value, str):  # a cell of a table
        try:
            value = {"int": int, "float": float, "bool": int}[dtype](value)
        except ValueError:
            _wrong(record, each, field, value, expected)
    try:
        found = np.asarray(value)
    except ValueError:
        _wrong(record, each, field, value, expected)
    kinds = {"int": "iu", "float": "fiu", "bool": "biu"}[dtype]
    finite = found.dtype.kind in kinds and bool(np.isfinite(found).all())
    if found.ndim != rank or not finite:
        _wrong(record, each, field, value, expected)
    return found


def _wrong(record: Record, each: Input, field: str, value: Any, expected: str) -> NoReturn:
    fail(
        "input",
        f"{record.place}: the field `{field}` does not fit `{each.name}`",
        each.span,
        expected=expected,
        found=repr(value)[:80],
    )


def _fills(graph: Graph, roles: Roles) -> Mapping[str, int | None]:
    """What pads each input, None if nothing can.

    Along a ragged axis, the program masks what is beyond the padding. What a causal model reads
    after the last token that counts changes nothing.
    """
    ragged = {each.name for each in graph.varying if each.ragged is not None}
    if roles.is_text and roles.answers and len(graph.losses) == 1 and roles.tokens:
        ragged |= {*roles.tokens.type.vars}
    inputs = (*roles.inputs, *roles.labels)
    return {
        each.name: each.pad
        if each.pad is not None
        else 0
        if varying_axis(each) in ragged
        else None
        for each in inputs
    }
