"""`archdsl play`: what it opens, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import archdsl
from archdsl.cli import main, parse_arguments
from archdsl.cli.play import _given
from archdsl.diagnostics import ArchError
from archdsl.play.given import Given
from archdsl.play.protocol import GIVEN, RunRequest
from archdsl.play.runs import Runs
from archdsl.play.server import LOOPBACK
from archdsl.semantics.library import standard_library
from tests.cli.tiny import gpt2

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt_shakespeare"


def given(*arguments: str) -> Given:
    return _given(parse_arguments(["play", *arguments]))


def test_a_spec_with_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLE)
    options = ("--weights", "trained.safetensors", "--tokenizer", "tokenizer.json")
    found = given("shakespeare.arch", *options)
    assert found == Given(
        text=(EXAMPLE / "shakespeare.arch").read_text(),
        title="shakespeare.arch",
        folder=str(EXAMPLE),
        weights=str(EXAMPLE / "trained.safetensors"),
        tokenizer=str(EXAMPLE / "tokenizer.json"),
        needs_tokenizer=True,
    )


def test_a_variant_of_the_library() -> None:
    found = given("gpt2.arch:small", "--device", "CPU")
    assert (found.model, found.title) == ("small", "gpt2.arch")
    assert found.folder == str(standard_library())
    assert found.tokenizer is found.weights is found.checkpoint is None
    assert given() == Given()


def test_a_run(tmp_path: Path) -> None:
    (tmp_path / "spec.arch").write_text("model M {}")
    (tmp_path / "settings.toml").write_text("")
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "model.safetensors").write_bytes(b"")
    (tmp_path / "tokenizer.json").write_text("{}")
    found = given(str(tmp_path))
    assert found == Given(
        text="model M {}",
        title=tmp_path.name,
        folder=str(tmp_path),
        checkpoint=str(tmp_path),
        weights=str(tmp_path / "last" / "model.safetensors"),
        tokenizer=str(tmp_path / "tokenizer.json"),
        files=str(tmp_path),
    )


def test_mistakes_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["play", "--no-browser", "--port", str(port)]) == 1
    assert capsys.readouterr().err == (
        f"error[argument-value]: cannot serve on port {port} of 127.0.0.1: another program "
        "uses it\n  = help: choose another one, as in `--port 8765`; `--port 0` takes a free "
        "one\n"
    )
    assert main(["play", "--weights", "a.npz"]) == 1
    assert "--weights works only with a spec" in capsys.readouterr().err
    for option in ("--port=-1", "--port=65536", "--seconds=0", "--memory=x"):
        with pytest.raises(SystemExit):
            main(["play", option])
    assert main(["play", "missing.arch"]) == 1
    assert "there is no file `missing.arch`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt2.arch:smal"], "did you mean `small`?"),
        (["gpt.arch", "--weights", "no.npz"], "no.npz: file not found"),
        (["gpt.arch", "--tokenizer", "no"], "no: file not found"),
        (["--preprocessor", "no"], "preprocessor_config.json"),
        (["no"], "no: file not found"),
        (["gpt.arch", "--map", "x"], "--map names the tensors of --weights"),
        (["gpt.arch", "--dtype", "flaot16"], "did you mean `float16`?"),
    ],
)
def test_wrong_arguments_open_no_page(arguments: list[str], message: str) -> None:
    with pytest.raises(ArchError) as error:
        given(*arguments)
    assert message in str(error.value)


def test_a_text_with_mistakes_opens(tmp_path: Path) -> None:
    text = '{"size": 4, "resample": 2, "image_mean": [0.5], "image_std": [0.5]}'
    (tmp_path / "preprocessor_config.json").write_text(text, encoding="utf-8")
    spec = tmp_path / "mine.arch"
    spec.write_text("model M(", encoding="utf-8")
    assert given(f"{spec}:M", "--preprocessor", str(tmp_path)) == Given(
        text="model M(", model="M", title=spec.name, folder=str(tmp_path), files=str(tmp_path)
    )
    assert given("--preprocessor", str(tmp_path)) == Given(files=str(tmp_path))


@pytest.mark.long
def test_ctrl_c_ends_it() -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "archdsl", "play", "gpt.arch", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"DEV": "CPU"},
    )
    assert started.stdout
    assert started.stdout.readline().startswith("http://127.0.0.1:")
    started.send_signal(signal.SIGINT)
    out, errors = started.communicate(timeout=20)
    assert (started.returncode, out) == (-signal.SIGINT, "")
    assert errors == "Only this machine can open this page. Ctrl-C ends it.\n"


@pytest.mark.long
@pytest.mark.reference("tokenizers")
def test_a_published_checkpoint_runs(tmp_path: Path) -> None:
    folder = gpt2(tmp_path / "tiny")
    found = given(folder, "--device", "CPU")
    assert (found.title, found.dtype, found.checkpoint) == ("tiny", "float32", folder)
    runs = Runs(found, 10**9)
    request = RunRequest(
        found.text, inputs={"tokens": "Hello"}, weights=GIVEN, temperature=0, max_new_tokens=4
    )
    (about,) = runs.inputs(request)
    assert about["inputs"][0]["kind"] == "text"
    texts = [each["text"] for each in runs.generate(request) if "token" in each]
    model = archdsl.from_pretrained(folder, device="CPU")
    tokenizer = archdsl.read_tokenizer(folder)
    stream = model.stream_text(tokenizer, "Hello", max_new_tokens=4, temperature=0)
    assert texts == [each.text for each in stream]
    # A changed text has the same weights, if they fit.
    other = replace(request, text=f"# mine\n{found.text}")
    assert [each["text"] for each in runs.generate(other) if "token" in each] == texts
