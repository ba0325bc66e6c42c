"""Chat templates: a chat as one text, by the template of a checkpoint.

A template is a Jinja program by the publisher of the checkpoint. It runs in a process of its
own, in Jinja's sandbox: it gets plain values only, cannot reach Python attributes or change
anything, and ends at a limit of time and memory.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from archdsl.diagnostics import fail

_FILE = Path(__file__).with_name("template_worker.py")
_CHARACTERS = 1 << 24  # of a rendered chat; longer than the context of any model
SECONDS, MEBIBYTES = 1.0, 512
_REASONING = ("reasoning_content", "thinking", "reasoning")


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, str | None],
    *,
    prompt: bool = True,
    seconds: float = SECONDS,
    mebibytes: int = MEBIBYTES,
) -> str:
    """Renders the messages to a text that ends where the model's answer begins; without
    `prompt`, to one that ends after the last message.

    `messages` have a `role`, and a `content` or `tool_calls`. `tokens` are other variables of
    the template, such as `bos_token`. The rest is as in transformers: newlines after blocks are
    trimmed; `break`, `continue`, `{% generation %}`, and the functions `raise_exception` and
    `strftime_now` are available; `tojson` keeps order and letters.

    The template may take `seconds` of processor time, and `mebibytes` of memory, of which
    Python takes about 50.

    Raises `ArchError`: "tokenizer" if a message is not as above, if the template is invalid,
    refuses the messages, leaves the sandbox or exceeds the limits; "file" if Jinja is not
    installed.
    """
    try:
        plain = [_check_message(number, message) for number, message in enumerate(messages)]
    except RecursionError as error:
        fail("tokenizer", "a message of the chat is nested too deeply", cause=error)
    _check_jinja()
    variables = {
        "messages": plain,
        "add_generation_prompt": prompt,
        "tools": None,
        "documents": None,
    } | {name: text for name, text in tokens.items() if text is not None}
    request = {
        "template": template,
        "variables": variables,
        "seconds": seconds,
        "bytes": mebibytes << 20,
        "characters": _CHARACTERS,
    }
    answer = _worker.ask(json.dumps(request))
    if "error" in answer:
        found = answer["error"]
        shown = found if found.isprintable() else repr(found)[1:-1]
        fail("tokenizer", "the chat template cannot be rendered", found=shown)
    if "limit" in answer:
        fail(
            "tokenizer",
            "the chat template takes too long, or too much memory",
            expected=f"at most {seconds:g} s of processor time, {mebibytes} MiB, "
            f"and {_CHARACTERS} characters",
            found=answer["limit"],
            help="the template may repeat itself without end; for a long chat, raise the "
            "limits: `tokenizer.chat(messages, seconds=10, mebibytes=2048)`",
        )
    return str(answer["text"])


def _check_message(number: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message as templates expect it; names of reasoning are copied as by
    transformers."""
    values = dict(message) if isinstance(message, Mapping) else {}
    for name, kinds in (("role", (str,)), ("content", (str, list))):
        missing = not isinstance(values.get(name), kinds)
        if missing and not (name == "content" and values.get("tool_calls")):
            fail(
                "tokenizer",
                f"message {number} of the chat has no text in `{name}`",
                expected='{"role": "user", "content": "…"}',
                found=repr(message)[:80],
            )
    _check_plain(values, number)
    given = [values[name] for name in _REASONING if values.get(name) is not None]
    if given:
        values = {"thinking": given[0], **values, "reasoning_content": given[0]}
    return values


def _check_plain(value: object, number: int) -> None:
    """Reports a value of a message that is not JSON."""
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            _check_plain(each, number)
    elif value is not None and type(value) not in (str, int, float, bool):
        fail(
            "tokenizer",
            f"message {number} of the chat has a value that is not JSON",
            expected="texts, numbers, true, false, null, and lists and objects of them",
            found=f"{value!r:.80}, of type `{type(value).__name__}`",
        )


def _check_jinja() -> None:
    try:
        found = importlib.util.find_spec("jinja2") is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        fail(
            "file",
            "chat templates need the package `jinja2`, which is not installed",
            help="pip install 'archdsl[text]'",
        )


class _Worker:
    """The process that renders; it starts at the first chat, and again after it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def forget(self) -> None:
        """Leaves the process to the parent of this one, which uses it too."""
        self._lock, self._process = threading.Lock(), None

    def ask(self, request: str) -> dict[str, Any]:
        with self._lock:
            try:
                process = self._running()
                assert process.stdin
                assert process.stdout
                process.stdin.write(request.encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError as error:
                self.end()
                reason = error.strerror or str(error)
                message = f"cannot run Python to render a chat template: {reason}"
                fail("file", message, found=sys.executable, cause=error)
            except BaseException:  # after an interruption, the next answer would be this one
                self.end()
                raise
            if not line.endswith(b"\n"):
                code = self.end()
                late = "more processor time than the limit"
                return {"limit": late if code == -signal.SIGPROF else f"its process: {code}"}
            answer: dict[str, Any] = json.loads(line)
            if "limit" in answer:
                self.end()
            return answer

    def end(self) -> int | None:
        """Ends the process, if any; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin
        assert process.stdout
        process.stdout.close()
        with suppress(OSError):  # it may have ended before it read its input
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(1)
        process.kill()
        return process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_FILE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._process.stdin
            paths = [str(Path(path).resolve()) for path in sys.path]  # where Jinja is
            self._process.stdin.write(json.dumps(paths).encode() + b"\n")
        return self._process


_worker = _Worker()
atexit.register(_worker.end)
os.register_at_fork(after_in_child=_worker.forget)
