"""The tutorial, followed word by word in an empty environment.

    python -m tests.tutorial

copies the checkout to a new folder, writes the specs of docs/tutorial.md there, and runs its
commands in their order: the first creates the Python environment. It prints the time of each
command, and stops where one fails or prints something else than the page shows.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
WORDS_PER_MINUTE = 200  # of a slow reader
LIMIT = 10 * 60  # seconds: what the page promises

_BLOCK = re.compile(r"(?:`(\w+\.arch)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_KEPT = re.compile(
    r"LANG|TERM|PIP_.*|.*(?:_proxy|_PROXY|_CERT|_CERT_FILE|_CERT_DIR|_CA_BUNDLE)"
)


@dataclass(frozen=True)
class Step:
    """A file to write, or commands to run and what they print, if the page shows it."""

    file: str
    text: str
    shown: str | None = None


def steps(page: str) -> Iterator[Step]:
    """Yields the steps of a page: its blocks `arch` under a file name, `sh` and `console`.

    A block `text` shows the output of the command above.
    """
    blocks = _BLOCK.findall(page)
    for (file, kind, text), (_, after, printed) in zip(
        blocks, [*blocks[1:], ("", "", "")], strict=True
    ):
        match kind:
            case "arch":
                yield Step(file, text)
            case "sh":
                *lines, last = (line for line in text.splitlines(keepends=True) if line.strip())
                yield from (Step("", line) for line in lines)
                yield Step("", last, printed if after == "text" else None)
            case "console":
                for command, shown in re.findall(r"^\$ (.*\n)((?:(?!\$ ).*\n)*)", text, re.M):
                    yield Step("", command, shown)


def pattern(printed: str) -> str:
    """Returns a regular expression: `…` matches any text, and alone on a line any lines."""
    lines = (
        r"(?:.*\n)*?"
        if line.strip() == "…"
        else ".*".join(map(re.escape, line.split("…"))) + r"\n"
        for line in printed.splitlines()
    )
    return "".join(lines)


def follow(folder: Path) -> Iterator[tuple[str, float]]:
    """Follows the tutorial in a new folder; yields each command, and its seconds."""
    _copy_checkout(folder)
    python = Path(sys.base_prefix) / "bin"
    state = {name: text for name, text in os.environ.items() if _KEPT.fullmatch(name)}
    state |= {"HOME": str(folder / "home"), "PATH": f"{python}:/usr/bin:/bin"}
    for step in steps(PAGE.read_text(encoding="utf-8")):
        if step.file:
            (folder / step.file).write_text(step.text, encoding="utf-8")
            continue
        start = time.perf_counter()
        output, state = _run(step.text, folder, state)
        yield step.text.strip(), time.perf_counter() - start
        assert step.shown is None or re.fullmatch(pattern(step.shown), output), (
            f"{step.text}prints\n{output}and the page shows\n{step.shown}"
        )


def _copy_checkout(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def _run(script: str, folder: Path, state: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Runs a command in a shell. Returns what it prints, and the variables for the next one."""
    with tempfile.NamedTemporaryFile() as left:
        done = subprocess.run(
            ["bash", "-uc", f"{script}status=$?; env -0 > {left.name}; exit $status"],
            cwd=folder,
            env=state,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        pairs = left.read().decode().split("\0")
    refused = (
        done.returncode == 1 and "error[" in done.stdout
    )  # a mistake, which the page shows
    assert not done.returncode or refused, f"{script}{done.stdout}"
    return done.stdout, dict(pair.split("=", 1) for pair in pairs if pair)


def reading() -> float:
    """Returns the seconds that it takes to read the page."""
    return len(PAGE.read_text(encoding="utf-8").split()) / WORDS_PER_MINUTE * 60


def main() -> int:
    waiting = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for command, seconds in follow(Path(folder)):
            print(f"{seconds:7.1f} s  {command:.68}", flush=True)
            waiting += seconds
    used = os.times()
    busy = used.children_user + used.children_system
    print(
        f"{waiting / 60:.1f} minutes of waiting, {busy / 60:.1f} of them of a processor's time"
    )
    print(f"{reading() / 60:.1f} minutes of reading")
    return 0 if waiting + reading() <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
