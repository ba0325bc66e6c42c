"""The progress line, with and without a terminal."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

import pytest

from archdsl.cli import progress_line
from archdsl.cli.progress_line import print_text, show_progress
from archdsl.progress import doing, each


class Screen(io.StringIO):
    """A terminal that records its output."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """The lines that are visible at the end."""
        found = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                erased = part.startswith("\x1b[K") or not shown or part.endswith("\x1b[K")
                shown = part.replace("\x1b[K", "") if erased else part + shown[len(part) :]
            found.append(shown)
        return found


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal for stdout and stderr; progress is drawn at once."""
    screen = Screen()
    monkeypatch.setattr(progress_line, "sys", SimpleNamespace(stdout=screen, stderr=screen))
    monkeypatch.setattr(progress_line, "_DELAY", 0.0)
    monkeypatch.setattr(progress_line, "_INTERVAL", 0.001)
    return screen


def seen(screen: Screen, text: str) -> None:
    """Waits until a text is drawn."""
    end = time.monotonic() + 20
    while text not in screen.getvalue():
        assert time.monotonic() < end, screen.getvalue()
        time.sleep(0.001)


def test_a_bar_is_erased_at_the_end(screen: Screen) -> None:
    with show_progress():
        for number in each(range(4), "counting", "sheep", 4):
            seen(screen, f"counting: {25 * number:3}%")
            seen(screen, f"{number}/4 sheep")
    assert screen.lines() == [""]


def test_a_task_without_a_total_leaves_a_line(screen: Screen) -> None:
    kernels = [1, 2, 3]
    with show_progress(), doing("compiling for CPU", "kernels", None, lambda: len(kernels)):
        seen(screen, "compiling for CPU: 3 kernels, ")
    assert screen.lines()[0].startswith("compiling for CPU: 3 kernels, 0.")
    assert screen.lines()[1:] == [""]


def test_the_innermost_task_is_shown(screen: Screen) -> None:
    with show_progress(), doing("outer", "steps", 2, lambda: 1):
        seen(screen, "outer:  50%")
        with doing("inner", "steps", 2, lambda: 0):
            seen(screen, "inner:   0%")
        before = len(screen.getvalue())
        while "outer:  50%" not in screen.getvalue()[before:]:
            time.sleep(0.001)
    assert screen.lines() == [""]


def test_text_is_not_mixed_with_progress(screen: Screen) -> None:
    with show_progress(), doing("working", "steps", 2, lambda: 1):
        seen(screen, "working:  50%")
        print_text("a line")
        print_text("half ", end="")
        before = screen.getvalue()
        time.sleep(0.02)
        assert screen.getvalue() == before  # no progress on an incomplete line
        print_text("a line")
        seen(screen, "half a line\n\rworking:  50%")
    assert screen.lines() == ["a line", "half a line", ""]


def test_an_interrupted_task_leaves_no_line(screen: Screen) -> None:
    def interrupted() -> None:
        with show_progress(), doing("compiling for CPU", "kernels", None, lambda: 2):
            seen(screen, "compiling for CPU: 2 kernels")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert screen.lines() == [""]


def test_a_short_task_is_not_shown(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_line, "_DELAY", 60.0)
    with show_progress(), doing("working", "steps", 2, lambda: 1):
        time.sleep(0.02)
    assert screen.getvalue() == ""


def test_without_a_terminal_no_progress_is_shown(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(progress_line, "sys", SimpleNamespace(stdout=screen, stderr=errors))
    with show_progress(), doing("working", "steps", 2, lambda: 1):
        print_text("a line")
        time.sleep(0.02)
    assert (screen.getvalue(), errors.getvalue()) == ("a line\n", "")


def test_a_task_with_a_status_shows_it(screen: Screen) -> None:
    with show_progress(), doing("training", "steps", 4, lambda: 1, lambda: "loss 2.5"):
        seen(screen, "training:  25%|")
        seen(screen, "| 1/4, loss 2.5")
    assert screen.lines() == [""]
