"""The data of a run: examples by number, for training and for validation.

Which data a model takes follows from its inputs, its labels and its loss; see `find_roles`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import key_of
from archdsl.diagnostics import fail, listing
from archdsl.formats.atomic import replacing
from archdsl.formats.other_files import copy, other_files
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph
from archdsl.passes.count_answers import count_answers
from archdsl.passes.pack import Packed
from archdsl.passes.pack import pack as pack_graph
from archdsl.text.tokenizer import TextTokenizer
from archdsl.training import files
from archdsl.training.array_data import ARRAYS, read_arrays
from archdsl.training.build_tokenizer import (
    END,
    START,
    Chosen,
    choose_tokenizer,
    encoder,
    note_on_size,
)
from archdsl.training.chat_data import refuse_chat
from archdsl.training.image_data import Images, open_images
from archdsl.training.masking import MASK, MaskedNames, MaskedText, masked_names
from archdsl.training.packed_data import PackedRows
from archdsl.training.record_data import Fields, find_fields, read_rows, texts_of
from archdsl.training.records import find_records, read_records
from archdsl.training.records import identity as record_identity
from archdsl.training.roles import Roles, find_roles, is_field, is_tokens, names_of
from archdsl.training.splits import split
from archdsl.training.text_data import (
    Split,
    read_tokens,
    tokens_of,
    window_length,
    windows,
)

TEXTS = (".txt", ".md", ".py", ".rst", ".tex")


class Dataset(Protocol):
    """Examples by number.

    `fingerprint` changes if an example does. `batch` gives the rows of `numbers` [B] by the
    names of the model's inputs and labels, each [B, …].
    """

    fingerprint: str

    def __len__(self) -> int: ...

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]: ...

    def describe(self) -> str:
        """One line for people."""
        ...


class Data(Frozen):
    """Examples for training and validation, and the tokenizer of their texts.

    `tokenizer_path` is the file or folder that `archdsl.read_tokenizer` reads. `notes` are
    things that a user should know, such as the part that is for validation. `images` are the
    examples, if they are images. `graph` is the model for these data, if it is another one
    than the given: its loss then counts the answers of chats alone.
    """

    train: Dataset
    valid: Dataset | None = None
    tokenizer: TextTokenizer | None = None
    tokenizer_path: Path | None = None
    notes: tuple[str, ...] = ()
    images: Images | None = None
    graph: Graph | None = None

    @property
    def fingerprint(self) -> str:
        """Changes if an example for training or for validation does."""
        valid = self.valid.fingerprint if self.valid else "none"
        return f"{self.train.fingerprint} {valid}"

    def describe(self) -> list[str]:
        """The data in lines for people."""
        found = [f"training: {self.train.describe()}"]
        found.append(f"validation: {self.valid.describe()}" if self.valid else "no validation")
        return [*found, *self.notes]

    def save_readers(self, folder: Path) -> None:
        """Writes into a folder what reads the inputs of the trained model: its tokenizer, or
        how images become pixels."""
        self.save_tokenizer(folder)
        if self.images is not None:
            self.images.save_preprocessor(folder)

    def save_tokenizer(self, folder: Path) -> Path | None:
        """Copies the tokenizer into a folder; returns what `read_tokenizer` reads, if any."""
        if self.tokenizer_path is None:
            return None
        if self.tokenizer_path.is_dir():
            target = folder / "tokenizer"
            files, _ = other_files(self.tokenizer_path)  # without the weights of a checkpoint
            copy(files, target)
            return target
        suffix = "".join(self.tokenizer_path.suffixes[-1:])
        target = folder / f"tokenizer{suffix}"
        with replacing(target) as temporary:
            shutil.copyfile(self.tokenizer_path, temporary)
        return target


def open_data(
    path: str | Path,
    graph: Graph,
    length: int | None = None,
    tokenizer: str | Path | TextTokenizer | None = None,
    seed: int = 0,
    pack: bool = False,
) -> Data:
    """The data of a file or a folder, for a model.

    - `length`: the positions of a window of text; by default all that the model has.
    - `tokenizer`: `characters` (the default), `bytes`, `bpe:4096`, or the path of a tokenizer
      that `archdsl.read_tokenizer` reads.
    - `seed`: which examples are for validation, if no file is, and which tokens are masked.
    - `pack`: puts several short texts into a window, for the graph that `passes.pack` gives.

    Raises `ArchError` if the model has no loss, if it takes other data, and for the first
    mistake in the data.
    """
    place, roles = files.existing(path), find_roles(graph)
    packed = pack_graph(graph) if pack else None
    asked = _Asked(place, graph, roles, length, tokenizer, seed, packed)
    found = None if pack else _arrays(asked) or _images(asked)
    if found is None:
        if masked := masked_names(graph):  # the labels follow from the text
            roles = Roles((masked.tokens,), (), masked.tokens)
            asked = replace(asked, roles=roles, masked=masked)
        found = _records(asked) or _text(asked)
    return found or _refuse(place, graph, roles)


class _Asked(Frozen):
    """What `open_data` was asked for."""

    path: Path
    graph: Graph
    roles: Roles
    length: int | None
    tokenizer: str | Path | TextTokenizer | None
    seed: int
    packed: Packed | None = None
    masked: MaskedNames | None = None

    def refuse_text_options(self) -> None:
        """Reports options for texts, if the data have none."""
        for name, value in (("length", self.length), ("tokenizer", self.tokenizer)):
            if value is not None:
                fail(
                    "argument-value",
                    f"`{name}` is for texts, but there are none in `{self.path}`",
                    help=f"leave out `{name}`",
                )


def _refuse(path: Path, graph: Graph, roles: Roles) -> NoReturn:
    """Reports data of another kind than the model's."""
    wanted = f"a file .npz with the arrays {names_of(roles)}"
    if all(is_field(each) for each in (*roles.inputs, *roles.labels)):
        wanted += f", or JSON lines with the fields {names_of(roles)}"
    if roles.is_pairs:
        wanted += ", or lines of a .tsv: the two texts with a tab between them"
    if roles.is_text:
        wanted = f"texts ({', '.join(TEXTS)}), JSON lines with the field `text`, or {wanted}"
    if roles.image:
        wanted = f"a folder of images for each class, idx files, or {wanted}"
    fail("input", f"there are no data for `{graph.name}` in `{path}`", expected=wanted)


def _arrays(asked: _Asked) -> Data | None:
    if not (asked.path.is_dir() or asked.path.suffix.lower() in ARRAYS):
        return None
    found = files.find(asked.path, ARRAYS)
    if not found.train:
        return None
    asked.refuse_text_options()
    for each in (found.train, found.valid):
        if len(each) > 1:
            names = listing([path.name for path in each[:5]], "and")
            help = "give one file, or a folder with `train.npz` and `valid.npz`"
            fail("file", f"`{asked.path}` has several files of arrays", found=names, help=help)
    train, valid = (
        read_arrays(each[0], asked.graph, asked.roles) if each else None
        for each in (found.train, found.valid)
    )
    assert train
    return _finished(train, valid, asked.seed, found.unused)


def _images(asked: _Asked) -> Data | None:
    if asked.roles.image is None:
        return None
    opened = open_images(asked.path, *asked.roles.image)
    if opened is None:
        return None
    asked.refuse_text_options()
    train, valid = opened.train, opened.valid
    found = _finished(train, valid, asked.seed, notes=opened.notes)
    return replace(found, images=opened)


def _records(asked: _Asked) -> Data | None:
    roles = asked.roles
    found = find_records(asked.path)
    if not found.train:
        return None
    inputs = [each for each in (*roles.inputs, *roles.labels) if each is not roles.answers]
    names = [each.name for each in inputs]
    first = next(read_records(found.train, names), None)
    if first is None:
        fail("input", f"there are no examples in `{asked.path}`")
    fields = find_fields(first, roles)
    if fields.chat and roles.answers is None:
        assert roles.tokens
        counting = count_answers(asked.graph)
        if counting is None:
            refuse_chat(roles.tokens, first.place)
        packed = pack_graph(counting) if asked.packed else None
        asked = replace(asked, graph=counting, roles=find_roles(counting), packed=packed)
        counted = _records(asked)
        return counted and replace(counted, graph=counting)
    chosen = None
    if fields.texts or fields.chat:
        chosen = _chosen(asked, found, fields, names)
    else:
        asked.refuse_text_options()
    notes = _notes(found, chosen, roles)
    joined = asked.masked or (roles.tokens is not None and roles.tokens.pad is None)
    if asked.packed and chosen:
        return _packed(asked, asked.packed, found, fields, chosen, notes)
    if roles.is_text and joined and chosen and not fields.chat:
        return _joined(asked, found, fields, chosen, notes)
    if asked.length is not None:
        fail(
            "argument-value",
            "a length is for windows of a text, but the examples are records",
            help="leave out `length`: each example has its own",
        )
    train, valid = (
        read_rows(each, asked.graph, roles, fields, chosen) if each else None
        for each in (found.train, found.valid)
    )
    assert train
    return _finished(train, valid, asked.seed, found.unused, chosen, notes)


def _chosen(asked: _Asked, found: files.Files, fields: Fields, names: list[str]) -> Chosen:
    roles = asked.roles
    inputs = [each for each in (*roles.inputs, *roles.labels) if is_tokens(each)]
    inputs = [each for each in inputs if each.name in fields.texts or fields.chat]
    special: tuple[str, ...] = (
        (START, END) if roles.is_pairs else (END,) if roles.is_text else ()
    )
    special += (MASK,) if asked.masked else ()
    if fields.chat and asked.tokenizer in (None, "characters", "bytes"):
        fail(
            "tokenizer",
            "chats need the tokenizer of a checkpoint, which has a chat template",
            help="`--tokenizer FOLDER` names one",
        )
    texts = partial(texts_of, found, fields, names)
    return choose_tokenizer(asked.tokenizer, texts, record_identity(found.all), inputs, special)


def _packed(
    asked: _Asked,
    packed: Packed,
    found: files.Files,
    fields: Fields,
    chosen: Chosen,
    notes: list[str],
) -> Data:
    """Short texts, several of them in a window."""
    roles, length = asked.roles, window_length(asked.graph, packed.tokens, asked.length)
    train, valid = (
        PackedRows(read_rows(each, asked.graph, roles, fields, chosen, True), packed, length)
        if each
        else None
        for each in (found.train, found.valid)
    )
    assert train
    return _finished(train, valid, asked.seed, found.unused, chosen, notes)


def _joined(
    asked: _Asked, found: files.Files, fields: Fields, chosen: Chosen, notes: list[str]
) -> Data:
    """Short texts as one, each with an end token: windows may have parts of several."""
    roles = asked.roles
    assert roles.tokens
    ((_, field),) = fields.of
    key = key_of(chosen.key, field, record_identity(found.all))
    encode, end = encoder(chosen.tokenizer), list(chosen.tokenizer.eos[:1])

    def parts(paths: Iterable[Path]) -> Iterator[NDArray[Any]]:
        for text in texts_of(files.Files(tuple(paths)), fields, [field]):
            yield encode(text)
            yield np.array(end, np.uint32)

    split = read_tokens(found, key, chosen.tokenizer.vocabulary, parts)
    notes = ["the texts are joined: a window may have parts of several", *notes]
    return _windowed(asked, split, chosen, notes)


def _text(asked: _Asked) -> Data | None:
    roles, found = asked.roles, files.find(asked.path, TEXTS)
    if not roles.is_text or not found.train or roles.tokens is None:
        return None
    if asked.packed:
        fail(
            "argument-value",
            f"there are no short texts to pack in `{asked.path}`",
            expected='JSON lines, each with one text: {"text": "…"}',
            help="leave out `pack`: the windows of a long text are full",
        )
    tokens = roles.tokens

    def texts() -> Iterator[str]:
        return (text for each in found.all for text in files.texts(each))

    identity = files.identity(found.all)
    special = (MASK,) if asked.masked else ()
    chosen = choose_tokenizer(asked.tokenizer, texts, identity, [tokens], special)

    def parts(paths: Iterable[Path]) -> Iterator[NDArray[Any]]:
        return tokens_of(paths, chosen, tokens)

    key = key_of(chosen.key, identity, tokens.pad)
    split = read_tokens(found, key, chosen.tokenizer.vocabulary, parts)
    return _windowed(asked, split, chosen, _notes(found, chosen, roles))


def _windowed(asked: _Asked, split: Split, chosen: Chosen, notes: list[str]) -> Data:
    roles = asked.roles
    assert roles.tokens
    marked = (roles.answers.name,) if roles.answers else ()
    train, valid, more = windows(split, asked.graph, roles.tokens, asked.length, marked)
    notes = [*more, *notes]
    if asked.masked is None:
        return Data(train, valid, chosen.tokenizer, chosen.path, tuple(notes))
    hidden, checked = (
        part and MaskedText(part, asked.masked, chosen.tokenizer, asked.seed)
        for part in (train, valid)
    )
    assert hidden
    return Data(hidden, checked, chosen.tokenizer, chosen.path, tuple(notes))


def _notes(found: files.Files, chosen: Chosen | None, roles: Roles) -> list[str]:
    """What to say of the files and the tokenizer."""
    kinds = {"training": found.train, "validation": found.valid}
    counts = [f"{len(paths)} for {kind}" for kind, paths in kinds.items() if paths]
    notes = [f"files: {', '.join(counts)}"] if len(found.all) > 1 else []
    notes += [_not_used(found.unused)] if found.unused else []
    if chosen:
        notes.append(chosen.name)
        tokens = [each for each in roles.inputs if is_tokens(each)]
        if tokens and (note := note_on_size(chosen, tokens[0])):
            notes.append(note)
    return notes


def _finished(
    train: Dataset,
    valid: Dataset | None,
    seed: int,
    unused: Sequence[Path] = (),
    chosen: Chosen | None = None,
    notes: Sequence[str] = (),
) -> Data:
    """The data of rows; without some for validation, a part is drawn."""
    more = [_not_used(unused)] if unused and not chosen else []
    if valid is None:
        train, valid, note = split(train, seed)
        more.append(note)
    tokenizer = chosen.tokenizer if chosen else None
    path = chosen.path if chosen else None
    return Data(train, valid, tokenizer, path, (*more, *notes))


def _not_used(paths: Sequence[Path]) -> str:
    return f"not used: {listing([path.name for path in paths[:3]], 'and')}, for a test"
