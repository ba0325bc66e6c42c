"""classify, embed and transcribe as a user types them, and their errors."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.cli import main

JOBS = ("classify", "embed", "transcribe")


def run_failing(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Runs a command that fails with status 1 and prints nothing; returns its stderr."""
    assert main(list(map(str, args))) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def wav(path: Path) -> Path:
    sound = (np.sin(np.arange(8000) / 5) * 9999).astype("<i2").tobytes()
    head = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head
    body += b"data" + struct.pack("<I", len(sound)) + sound
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


@pytest.mark.parametrize("name", JOBS)
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"\n  archdsl {name} " in capsys.readouterr().out


def test_a_spec_needs_weights_and_a_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = run_failing(capsys, "transcribe", "whisper.arch:tiny_en", wav(tmp_path / "a.wav"))
    assert "is a spec, which has no tokenizer" in err


@pytest.mark.reference("tokenizers")
def test_weights_go_with_a_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary(tmp_path)
    args = ("embed", "bert.arch:Bert", "a", "--tokenizer", tmp_path)
    assert "is a spec, which has no weights" in run_failing(capsys, *args)
    args = ("embed", tmp_path, "a", "--weights", "w.npz")
    assert "--weights works only with a spec" in run_failing(capsys, *args)


def test_nothing_to_embed_or_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["embed", "folder"])
    assert stop.value.code == 2
    assert "required: TEXT" in capsys.readouterr().err
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    assert "there is no text" in run_failing(capsys, "embed", "folder", "--file", empty)
    err = run_failing(capsys, "embed", "folder", "one text", "--similarity")
    assert "expected: two texts or more" in err
    assert "cannot read" in run_failing(capsys, "embed", "folder", "--file", "no/such/file")


def test_a_folder_without_a_preprocessor_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = run_failing(capsys, "classify", tmp_path, "a.png")
    assert "has no `preprocessor_config.json`" in err
    assert "--preprocessor" in err
    with pytest.raises(SystemExit) as stop:
        main(["classify", str(tmp_path), "a.png", "--top", "0"])
    assert stop.value.code == 2
    assert "--top: expected a whole number above 0; found `0`" in capsys.readouterr().err


@pytest.mark.reference("tokenizers")
def test_recordings_are_read_before_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vocabulary(tmp_path)
    good = wav(tmp_path / "a.wav")
    bad = tmp_path / "b.wav"
    bad.write_text("no sound")
    err = run_failing(capsys, "transcribe", tmp_path, good, bad)
    assert "b.wav` is not a WAV file" in err


# -- a spec with weights --


def vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abc"]))


@pytest.fixture
def embedding(tmp_path: Path) -> Callable[..., list[str]]:
    """The arguments of `embed` for a tiny BERT."""
    vocabulary(tmp_path)
    sizes = {"vocab": 7, "context": 16, "D": 8, "heads": 2, "depth": 1}
    model = archdsl.compile("bert.arch:Bert", device="CPU", **sizes)
    model.save(tmp_path / "w.npz")
    settings = [part for name, size in sizes.items() for part in ("--set", f"{name}={size}")]

    def arguments(*texts: str) -> list[str]:
        machine = ["--weights", str(tmp_path / "w.npz"), "--device", "CPU"]
        spec = ["bert.arch:Bert", "--tokenizer", str(tmp_path), *settings]
        return ["embed", *spec, *machine, *texts]

    return arguments


@pytest.mark.reference("tokenizers")
def test_vectors_are_printed_or_written(
    embedding: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("a b\n\nc\n")
    assert main(embedding("--file", str(lines), "--json")) == 0
    rows: list[Any] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["a b", "c"]
    assert main(embedding("a b", "c", "-o", str(tmp_path / "x.npy"))) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"wrote {tmp_path}/x.npy: 2 vectors of size 8\n")
    vectors = np.load(tmp_path / "x.npy")
    np.testing.assert_allclose(vectors, [row["vector"] for row in rows], atol=1e-6)
    assert main(embedding("a b", "c", "--similarity")) == 0
    cosine = float(capsys.readouterr().out)
    assert cosine == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    assert main(embedding("a b", "c", "a", "--similarity")) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:3][i] for i, line in enumerate(table)] == ["1.0000"] * 3


@pytest.mark.reference("tokenizers", "PIL")
def test_classes_of_a_spec_are_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    sizes = {"image": 8, "patch": 4, "classes": 3, "D": 8, "heads": 2, "depth": 1}
    archdsl.compile("vit.arch", device="CPU", **sizes).save(tmp_path / "w.npz")
    settings = [part for name, size in sizes.items() for part in ("--set", f"{name}={size}")]
    fields = {"size": {"height": 8, "width": 8}, "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    names = {"0": "cat", "1": "a dog", "2": "cow"}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    spec = ["vit.arch", "--preprocessor", tmp_path, "--weights", tmp_path / "w.npz"]
    args = ["classify", *spec, *settings, tmp_path / "a.png", "--device", "CPU"]
    assert main([*map(str, args), "--top", "2"]) == 0
    rows = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2
    assert {name for name, _ in rows} <= set(names.values())
    first, second = (float(chance.rstrip("%")) for _, chance in rows)
    assert 100 >= first >= second > 0
