"""In a terminal: a chat, Ctrl-C, and the progress line."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from archdsl.cli import main
from tests.cli.terminal import Terminal
from tests.cli.tiny import gpt2

pytestmark = pytest.mark.reference("tokenizers")

GREEDY = ("--temperature", "0", "--max-new-tokens", "4", "--repetition-penalty", "2")
TINY = [part for size in ("D=8", "heads=2", "depth=1", "vocab=11") for part in ("--set", size)]
PROMPT = r"\r\n> \Z"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return gpt2(tmp_path_factory.mktemp("models") / "tiny")


def answer(seen: str) -> str:
    """Returns the line before the prompt, without the progress line."""
    return seen.split("\r\n")[-2].rpartition("\x1b[K")[2]


def test_a_chat(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # An empty kernel cache, so that there is a compilation to interrupt.
    kernels = str(tmp_path / "kernels.db")
    with Terminal("chat", folder, *GREEDY, CACHEDB=kernels) as terminal:
        terminal.wait_for("> ")
        terminal.type("hi\r")
        terminal.wait_for("compiling for CPU")
        terminal.type("\x03")  # before the first word of the answer
        terminal.wait_for(PROMPT)
        terminal.type("\x1b[A\r")  # the line before
        first = answer(terminal.wait_for(PROMPT))
        terminal.type("so\r")
        second = answer(terminal.wait_for(PROMPT))
        terminal.type("half a line")
        terminal.wait_for("half a line")
        terminal.type("\x03")
        assert terminal.end() == -signal.SIGINT
        assert "Traceback" not in terminal.text
    # The interrupted question is not in the history.
    messages = "u:hi.a:", f"u:hi.a:{first}.u:so.a:"
    for prompt, answer_text in zip(messages, (first, second), strict=True):
        assert main(["generate", folder, prompt.replace("a:u", "a.u"), *GREEDY]) == 0
        assert capsys.readouterr().out == answer_text + "\n"


@pytest.mark.long
def test_a_terminated_chat_ends_cleanly(folder: str) -> None:
    with Terminal("chat", folder) as terminal:
        terminal.wait_for("> ")
        terminal.type("half a line")
        terminal.wait_for("half a line")
        terminal.process.terminate()
        assert terminal.end() == -signal.SIGTERM
        assert "Traceback" not in terminal.text


@pytest.mark.long
def test_json_output_shows_a_bar(folder: str) -> None:
    options = ("--slide", "--max-new-tokens", "1000000", "--json")
    with Terminal("generate", folder, "hi", *options) as terminal:
        terminal.wait_for(r"generating: +\d+%")
        terminal.type("\x03")
        assert terminal.end() == -signal.SIGINT
        assert "Traceback" not in terminal.text
        assert "hi" not in terminal.text


@pytest.mark.long
def test_a_search_for_kernels_is_shown_and_can_be_interrupted(tmp_path: Path) -> None:
    path = str(tmp_path / "tokens.npy")
    np.save(path, np.arange(5)[None])
    command = ("run", "gpt.arch", *TINY, "--input", f"tokens={path}")
    options = ("--kernels", "tinygrad", "--tune", "300")
    with Terminal(*command, *options, CACHEDB=str(tmp_path / "kernels.db")) as terminal:
        terminal.wait_for(r"tuning for CPU: \d+ kernels")
        terminal.type("\x03")
        assert terminal.end() == -signal.SIGINT
        assert "Traceback" not in terminal.text
