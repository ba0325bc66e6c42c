"""Files that are not regular are refused at once, whichever reader is asked for them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.files import open_file, read_bytes
from archdsl.formats import read_weights
from archdsl.formats.strict_json import read_object
from archdsl.tasks.classify import read_preprocessor
from archdsl.tasks.embed import read_pooling
from archdsl.tasks.sound import read_wav
from archdsl.text.tokenizer import read_tokenizer


@pytest.fixture(params=["zero", "pipe", "folder"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path that names no regular file; reading it could never end."""
    path = tmp_path / f"{request.param}.json"
    match request.param:
        case "zero":
            path.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    return path


READERS: dict[str, Callable[[Path], object]] = {
    "spec": lambda path: analyse(str(path)),
    "weights": read_weights,
    "config": lambda path: read_object(path, "a config"),
    "vocabulary": read_tokenizer,
    "sound": read_wav,
}


def test_only_regular_files_are_opened(odd: Path) -> None:
    with pytest.raises(OSError, match=r"it is (a folder|not a regular file)"):
        open_file(odd)


def test_a_size_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_bytes(tmp_path / "a", 3) == b"abc"
    with pytest.raises(OSError, match="more than 2 bytes"):
        read_bytes(tmp_path / "a", 2)
    with pytest.raises(OSError, match="the name is not valid"):
        read_bytes("a\0b")


@pytest.mark.parametrize("what", ["spec", "weights", "config", "vocabulary", "sound"])
def test_every_reader_refuses_them(what: str, odd: Path) -> None:
    with pytest.raises(ArchError) as error:
        READERS[what](odd)
    assert error.value.diagnostics[0].code in ("file", "tokenizer")


DENIED: dict[str, Callable[[Path], object]] = {
    "spec": lambda path: analyse(str(path)),
    "weights": read_weights,
    "vocabulary": read_tokenizer,
    "images": read_preprocessor,
    "pooling": read_pooling,
}


@pytest.mark.parametrize(
    ("what", "name"),
    [(w, n) for w in DENIED for n in ("inner.json", "folder") if (w, n) != ("spec", "folder")],
)
def test_a_folder_that_may_not_be_read_is_reported(
    what: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files would seem to be missing. Root may read everything, so it is pretended."""
    path, stat, access = tmp_path / "locked" / name, os.stat, os.access

    def locked(place: object) -> bool:
        return str(place).startswith(str(tmp_path / "locked"))

    def denied(place: object, *given: object, **named: object) -> os.stat_result:
        if locked(place) and str(place) != str(path.parent):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return stat(place, *given, **named)  # type: ignore[arg-type, call-overload]

    path.parent.mkdir()
    if name == "folder":
        path = path.parent
        monkeypatch.setattr(os, "access", lambda p, *m: not locked(p) and access(p, *m))
    else:
        monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(ArchError, match=r"cannot (be )?read: Permission denied"):
        DENIED[what](path)


def test_a_vocabulary_that_may_not_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    opened = os.open

    def denied(place: object, *given: object, **named: object) -> int:
        if str(place) == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return opened(place, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(ArchError, match="Permission denied"):
        read_tokenizer(path)
