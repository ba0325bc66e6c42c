"""The folder of a run: what it refuses to continue with, and that nothing is lost then."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.training import run_folder
from archdsl.training.data import Data
from archdsl.training.events import Notice
from archdsl.training.run_folder import read_environment, read_settings, settings_text
from archdsl.training.settings import Settings
from tests.training import fakes
from tests.training.fakes import SETTINGS, SPEC, Counting, fit

SHORT = replace(SETTINGS, steps=2, eval_every=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(folder, SHORT)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = (each for each in sorted(folder.rglob("*")) if each.is_file())
    return {str(each.relative_to(folder)): each.read_bytes() for each in files}


def refused(folder: Path, *args: Any, **options: Any) -> Diagnostic:
    """The error of a run, after a check that no file has changed."""
    before = content(folder)
    with pytest.raises(ArchError) as error:
        fit(folder, *args, **options)
    assert content(folder) == before
    (found,) = error.value.diagnostics
    return found


def test_a_folder_of_another_run_is_refused(run: Path) -> None:
    found = refused(run, SHORT)
    assert (found.code, found.message) == ("file", f"{run}: the folder exists")
    assert "`resume` continues a run" in str(found.help)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert refused(tmp_path, SHORT).message == f"{tmp_path}: the folder exists"
    found = refused(tmp_path, SHORT, resume=True)
    assert found.message == f"{tmp_path}: the folder has no run"


def test_a_missing_folder_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ArchError, match="there is no run to resume"):
        fit(tmp_path / "absent", SHORT, resume=True)
    assert not [*tmp_path.iterdir()]


def test_a_start_without_a_checkpoint_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Exception):
        pass

    def refuse(*args: Any) -> None:
        raise Refused

    monkeypatch.setattr(fakes, "Learner", refuse)
    with pytest.raises(Refused):
        fit(tmp_path, SHORT)
    monkeypatch.undo()
    assert fit(tmp_path, replace(SHORT, steps=3)).step == 3
    assert read_settings(tmp_path).steps == 3


def test_another_spec_is_refused(run: Path) -> None:
    found = refused(run, SHORT, spec=SPEC.replace("GPT {", "GPT2 {"), resume=True)
    assert (found.code, found.message) == ("argument-value", f"{run}: the run has another spec")
    assert (found.expected, found.found) == ("model GPT {", "model GPT2 {")


@pytest.mark.parametrize(
    "data",
    [
        Data(Counting(fingerprint="other"), Counting(16)),
        Data(Counting(), Counting(16, fingerprint="other")),
        Data(Counting()),
    ],
)
def test_other_data_are_refused(run: Path, data: Data) -> None:
    found = refused(run, SHORT, data=data, resume=True)
    assert (found.code, found.message) == ("argument-value", f"{run}: the run has other data")


def test_another_dtype_is_refused(run: Path) -> None:
    found = refused(run, SHORT, dtype="bfloat16", resume=True)
    assert found.message == f"{run}: the run has another dtype"
    assert (found.expected, found.found) == ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("learning_rate", 0.5, "0.5"), ("clip", None, '"none"'), ("freeze", ("h",), '["h"]')],
)
def test_another_setting_is_refused(run: Path, name: str, value: Any, shown: str) -> None:
    changed: Any = {name: value}
    found = refused(run, replace(SHORT, **changed), resume=True)
    assert found.message == f"{run}: a resumed run cannot change `{name}`"
    assert found.found == f"{name} = {shown}"
    assert "`steps`, `eval_every`" in str(found.help)


def test_settings_that_may_change(tmp_path: Path) -> None:
    fit(tmp_path, SHORT)
    changed = replace(SHORT, steps=3, eval_every=1, save_every=1, keep=1)
    assert fit(tmp_path, changed, resume=True).step == 3
    assert read_settings(tmp_path) == changed
    assert [each["step"] for each in read_environment(tmp_path)["starts"]] == [0, 2]


def test_a_folder_has_one_process(tmp_path: Path) -> None:
    errors: list[ArchError] = []

    def again(event: Any) -> None:
        with pytest.raises(ArchError) as error:
            fit(tmp_path, SHORT, resume=True)
        errors.append(error.value)

    fit(tmp_path, SHORT, report=again)
    assert "another process trains in this folder" in str(errors[0])
    assert len(errors) == 2


DAMAGE: dict[str, Callable[[Path], object]] = {
    "model.safetensors: the file has changed": lambda folder: (
        folder / "model.safetensors"
    ).write_bytes(b"\0" * 100),
    "the checkpoint is incomplete": lambda folder: (folder / "state.safetensors").unlink(),
    "position.json: not the position": lambda folder: (folder / "position.json").write_text(
        "{}"
    ),
}


@pytest.mark.parametrize("text", DAMAGE)
def test_without_a_whole_checkpoint_a_run_cannot_continue(tmp_path: Path, text: str) -> None:
    fit(tmp_path, SHORT)
    for each in (tmp_path / "checkpoints").iterdir():
        DAMAGE[text](each)
    before = content(tmp_path)
    with pytest.raises(ArchError, match=text) as error:
        fit(tmp_path, SHORT, resume=True)
    assert len(error.value.diagnostics) == 2
    assert {each.code for each in error.value.diagnostics} == {"checkpoint"}
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("settings.toml", "steps = = 3", "file"),
        ("settings.toml", "stepz = 3", "unknown-argument"),
        ("settings.toml", "steps = 0", "argument-value"),
        ("environment.json", "[", "checkpoint"),
        ("environment.json", "{}", "config"),
        ("spec.arch", "\ufffd", "argument-value"),
    ],
)
def test_a_damaged_file_of_a_run(tmp_path: Path, name: str, text: str, code: str) -> None:
    fit(tmp_path, replace(SHORT, steps=1))
    (tmp_path / name).write_text(text)
    assert refused(tmp_path, SHORT, resume=True).code == code


def test_another_machine_is_a_remark(tmp_path: Path) -> None:
    fit(tmp_path, SHORT)
    path = tmp_path / run_folder.ENVIRONMENT
    path.write_text(path.read_text().replace('"tinygrad": "', '"tinygrad": "9.'))
    events: list[Any] = []
    fit(tmp_path, replace(SHORT, steps=3), resume=True, report=events.append)
    assert events[0] == Notice(
        "the run continues with another `versions`, so its last digits may differ from those "
        "of an uninterrupted run"
    )


UNUSUAL = [
    Settings(),
    Settings(clip=None, warmup=5, freeze=("h.0-5", 'a"\\b'), recompute=True, ema=0.999),
    Settings(sample_prompt='ROMEO:\n"\x7f\x00\t\U0001f600', learning_rate=1e-05),
]


@pytest.mark.parametrize("settings", UNUSUAL)
def test_settings_are_read_as_written(tmp_path: Path, settings: Settings) -> None:
    text = settings_text(settings)
    assert len(tomllib.loads(text)) == len(text.splitlines())
    (tmp_path / "settings.toml").write_text(text, encoding="utf-8")
    assert read_settings(tmp_path) == settings


def test_the_environment(run: Path) -> None:
    found = json.loads((run / "environment.json").read_text())
    assert (found["data"], found["dtype"]) == ("32 sequences", "float32")
    (start,) = found["starts"]
    assert start.keys() == {"date", "step", "device", "machine", "versions"}
    assert {"archdsl", "tinygrad", "numpy"} <= start["versions"].keys()
