"""The data of a run: examples by number, for training and for validation.

Which data a model takes follows from its inputs, its labels and its loss; see `find_roles`.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import fail
from archdsl.formats.atomic import replacing
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph
from archdsl.text.tokenizer import TextTokenizer
from archdsl.training import files
from archdsl.training.build_tokenizer import choose_tokenizer, note_on_size
from archdsl.training.masking import MASK, MaskedNames, MaskedText, masked_names
from archdsl.training.roles import Roles, describe_roles, find_roles
from archdsl.training.text_data import read_texts, windows

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
    things that a user should know, such as the part that is for validation. `classes` are the
    names of the classes of images.
    """

    train: Dataset
    valid: Dataset | None = None
    tokenizer: TextTokenizer | None = None
    tokenizer_path: Path | None = None
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes if an example for training does."""
        return self.train.fingerprint

    def describe(self) -> list[str]:
        """The data in lines for people."""
        found = [f"training: {self.train.describe()}"]
        found.append(f"validation: {self.valid.describe()}" if self.valid else "no validation")
        return [*found, *self.notes]

    def save_tokenizer(self, folder: Path) -> Path | None:
        """Copies the tokenizer into a folder; returns what `read_tokenizer` reads, if any."""
        if self.tokenizer_path is None:
            return None
        if self.tokenizer_path.is_dir():
            target = folder / "tokenizer"
            shutil.copytree(self.tokenizer_path, target, dirs_exist_ok=True)
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
) -> Data:
    """The data of a file or a folder, for a model.

    - `length`: the positions of a window of text; by default all that the model has.
    - `tokenizer`: `characters` (the default), `bytes`, `bpe:4096`, or the path of a tokenizer
      that `archdsl.read_tokenizer` reads.
    - `seed`: which examples are for validation, if no file is, and which tokens are masked.

    Raises `ArchError` if the model has no loss, if it takes other data, and for the first
    mistake in the data.
    """
    roles = find_roles(graph)
    if roles.is_text:
        return _text(path, graph, roles, length, tokenizer)
    if names := masked_names(graph):
        roles = replace(roles, tokens=names.tokens)
        return _text(path, graph, roles, length, tokenizer, names, seed)
    fail(
        "input",
        f"the data at `{path}` do not fit `{graph.name}`",
        expected=f"arrays for {describe_roles(roles)}",
    )


def _text(
    path: str | Path,
    graph: Graph,
    roles: Roles,
    length: int | None,
    tokenizer: str | Path | TextTokenizer | None,
    masked: MaskedNames | None = None,
    seed: int = 0,
) -> Data:
    assert roles.tokens
    found = files.find(path, TEXTS)
    if not found.train:
        fail(
            "file",
            f"there are no texts in `{path}`",
            expected=f"files that end with {', '.join(TEXTS)}",
        )

    def texts() -> Any:
        return (text for each in found.all for text in files.texts(each))

    special = [MASK] if masked else []
    chosen = choose_tokenizer(
        tokenizer, texts, files.identity(found.all), [roles.tokens], special
    )
    split = read_texts(found, chosen, roles.tokens)
    marked = (roles.answers.name,) if roles.answers else ()
    train, valid, notes = windows(split, graph, roles.tokens, length, marked)
    if found.unused:
        notes.append(f"{len(found.unused)} test files are not used")
    notes.append(chosen.name)
    if note := note_on_size(chosen, roles.tokens):
        notes.append(note)
    if masked:
        hidden = MaskedText(train, masked, chosen.tokenizer, seed)
        checked = valid and MaskedText(valid, masked, chosen.tokenizer, seed)
        return Data(hidden, checked, chosen.tokenizer, chosen.path, tuple(notes))
    return Data(train, valid, chosen.tokenizer, chosen.path, tuple(notes))
