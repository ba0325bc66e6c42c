"""Each command ends by the signal it gets, without a message or partial files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archdsl.cli import COMMANDS
from tests.cli.tiny import gpt2

ROOT = Path(__file__).parents[2]
DRIVER = ROOT / "tests" / "cli" / "interrupting.py"
TINY = ["--set", "D=16", "--set", "heads=2", "--set", "depth=1", "--set", "vocab=64"]

# For each command an audit event at which the signal is sent, and the arguments.
WORK = {
    "check": ("import lark", "gpt.arch"),
    "fmt": ("import lark", "a.arch"),
    "show": ("import lark", "gpt.arch --emit passes"),
    "expand": ("import lark", "gpt.arch"),
    "diff": ("import lark", "gpt.arch gpt2.arch"),
    "report": ("import lark", "gpt.arch -o report.html"),
    "draw": ("import lark", "gpt.arch"),
    "explain": ("open not-causal.md", "not-causal"),
    "lsp": ("import archdsl.editor", ""),
    "run": ("import tinygrad", "gpt.arch --input tokens=a.npy"),
    "generate": ("import tinygrad", "folder text"),
    "chat": ("import tinygrad", "folder"),
    "translate": ("import tinygrad", "annalog.arch text --vocab a.txt"),
    "classify": ("import tinygrad", "folder a.png"),
    "play": ("socket.bind 127.0.0.1", "--no-browser"),
    "attend": ("import tinygrad", "folder text"),
    "embed": ("import tinygrad", "folder text"),
    "transcribe": ("import tinygrad", "folder a.wav"),
    "train": ("import tinygrad", "gpt.arch --data a.txt -o new"),
    "runs": ("import numpy", "new"),
    "import": ("import tinygrad", "folder"),
    "export": ("import tinygrad", "gpt2.arch --weights a.npz --to new"),
    "merge": ("import tinygrad", "folder adapter -o new"),
    "audit": ("import tinygrad", "folder"),
    "score": ("import tinygrad", "folder a.txt"),
    "bench": ("import tinygrad", "gpt.arch"),
    "doctor": ("subprocess.Popen archdsl.backend", ""),
    "completion": ("import shtab", "bash"),
    "mcp": ("import archdsl.agents", ""),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("tokenizers")
    return gpt2(tmp_path_factory.mktemp("models") / "tiny")


Interrupted = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def interrupted(tmp_path: Path) -> Interrupted:
    """Runs a command in a new folder, and sends it a signal at an audit event."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "a.txt").write_text("a text")

    def run(
        moment: str, *command: str, name: str = "SIGINT", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        event, text = moment.split()
        return subprocess.run(
            [sys.executable, str(DRIVER), name, event, text, *command],
            cwd=place,
            env=os.environ | {"DEV": "CPU"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def ended(by: signal.Signals, done: subprocess.CompletedProcess[str]) -> None:
    assert (done.stderr, done.returncode) == ("", -by)


def test_all_commands_are_tested() -> None:
    assert tuple(WORK) == COMMANDS


@pytest.mark.few(8)
@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c(name: str, folder: str, interrupted: Interrupted) -> None:
    moment, arguments = WORK[name]
    done = interrupted(moment, name, *arguments.replace("folder", folder).split())
    ended(signal.SIGINT, done)
    assert done.stdout == ""


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("SIGINT", "import archdsl.cli"),  # at the start
        ("SIGINT", "open model.safetensors"),  # the weights
        ("SIGINT", "subprocess.Popen -fno-math-errno"),  # a kernel's compiler
        ("SIGTERM", "import tinygrad.uop.ops"),
        ("SIGTERM", "subprocess.Popen -fno-math-errno"),
        ("SIGHUP", "import tinygrad.uop.ops"),
    ],
)
def test_generate_at_every_stage(
    name: str, moment: str, folder: str, interrupted: Interrupted, tmp_path: Path
) -> None:
    command = ("generate", folder, "a")
    done = interrupted(moment, *command, name=name, CACHEDB=str(tmp_path / "kernels.db"))
    ended(signal.Signals[name], done)
    assert done.stdout == ""


@pytest.mark.long
def test_generate_while_it_prints(folder: str) -> None:
    command = ["generate", folder, "a", "--slide", "--max-new-tokens", "1000000"]
    running = subprocess.Popen(
        [sys.executable, "-m", "archdsl", *command, "--device", "CPU"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert running.stdout is not None
    assert running.stdout.read(1)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (err, running.returncode) == (b"", -signal.SIGINT)


def test_written_files_are_complete_or_missing(
    folder: str, interrupted: Interrupted, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    (place / "my.arch").write_text("before")
    command = ("import", folder, "-o", "my.arch", "--weights", "my.safetensors")
    ended(signal.SIGINT, interrupted("os.rename .partial", *command))
    # The weights were complete; renaming the file would have been next.
    assert {p.name for p in place.iterdir()} == {"a.txt", "my.arch"}
    assert (place / "my.arch").read_text() == "before"


def test_an_exported_folder_is_complete_or_empty(
    folder: str, interrupted: Interrupted, tmp_path: Path
) -> None:
    sizes = [*TINY, "--set", "context=32"]
    weights = f"{folder}/model.safetensors"
    command = ("export", "gpt2.arch", *sizes, "--weights", weights, "--to", "new")
    ended(signal.SIGTERM, interrupted("open .partial", *command, name="SIGTERM"))
    assert list((tmp_path / "place" / "new").iterdir()) == []


def test_a_signal_that_python_drops_is_sent_again(tmp_path: Path) -> None:
    program = """
import os, signal, sys, time
from archdsl import __main__, cli

class Tensor:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(1)

def perform(args):
    Tensor()
    time.sleep(60)

cli.parse_arguments, cli.run_command = list, perform
__main__.script()
"""
    for name in ("SIGINT", "SIGTERM"):
        done = subprocess.run(
            [sys.executable, "-c", program, name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=50,
        )
        ended(signal.Signals[name], done)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_disk_that_is_full() -> None:
    message = "error[file]: cannot write the output: No space left on device\n"
    assert redirected(">/dev/full") == ("", message, 1)


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_streams_that_are_closed(closed: str) -> None:
    out, err, status = redirected(closed)
    assert (out.startswith("GPT\n"), err, status) == (closed == "2>&-", "", 0)


def redirected(where: str) -> tuple[str, str, int]:
    """Runs `check` with a shell redirection; returns stdout, stderr and the status."""
    done = subprocess.run(
        f"exec {sys.executable} -m archdsl check gpt.arch {where}",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout, done.stderr, done.returncode


def test_a_closed_pipe() -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "archdsl", "show", "gpt2.arch", "--emit", "ast"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    assert (running.stderr.read(), running.wait(60)) == (b"", -signal.SIGPIPE)
    running.stderr.close()
