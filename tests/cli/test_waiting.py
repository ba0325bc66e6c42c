"""What is shown of a wait, on a terminal and elsewhere."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

import pytest

from archdsl.cli import waiting
from archdsl.cli.waiting import put, showing
from archdsl.progress import doing, each


class Screen(io.StringIO):
    """What a terminal is sent."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What stands there in the end."""
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
    """The terminal that is both stdout and stderr; waits are shown at once."""
    screen = Screen()
    monkeypatch.setattr(waiting, "sys", SimpleNamespace(stdout=screen, stderr=screen))
    monkeypatch.setattr(waiting, "_MOMENT", 0.0)
    monkeypatch.setattr(waiting, "_PACE", 0.001)
    return screen


def seen(screen: Screen, text: str) -> None:
    """Waits until a text is drawn."""
    end = time.monotonic() + 20
    while text not in screen.getvalue():
        assert time.monotonic() < end, screen.getvalue()
        time.sleep(0.001)


def test_a_bar_comes_and_goes(screen: Screen) -> None:
    with showing():
        for number in each(range(4), "counting", "sheep", 4):
            seen(screen, f"counting: {25 * number:3}%")
            seen(screen, f"{number}/4 sheep")
    assert screen.lines() == [""]


def test_what_has_no_end_leaves_a_line(screen: Screen) -> None:
    kernels = [1, 2, 3]
    with showing(), doing("compiling for CPU", "kernels", None, lambda: len(kernels)):
        seen(screen, "compiling for CPU: 3 kernels, ")
    assert screen.lines()[0].startswith("compiling for CPU: 3 kernels, 0.")
    assert screen.lines()[1:] == [""]


def test_the_innermost_task_is_shown(screen: Screen) -> None:
    with showing(), doing("outer", "steps", 2, lambda: 1):
        seen(screen, "outer:  50%")
        with doing("inner", "steps", 2, lambda: 0):
            seen(screen, "inner:   0%")
        before = len(screen.getvalue())
        while "outer:  50%" not in screen.getvalue()[before:]:
            time.sleep(0.001)
    assert screen.lines() == [""]


def test_text_stands_on_lines_of_its_own(screen: Screen) -> None:
    with showing(), doing("working", "steps", 2, lambda: 1):
        seen(screen, "working:  50%")
        put("a line")
        put("half ", end="")
        before = screen.getvalue()
        time.sleep(0.02)
        assert screen.getvalue() == before  # nothing is drawn behind it
        put("a line")
        seen(screen, "half a line\n\rworking:  50%")
    assert screen.lines() == ["a line", "half a line", ""]


def test_a_task_that_fails_leaves_nothing(screen: Screen) -> None:
    def interrupted() -> None:
        with showing(), doing("compiling for CPU", "kernels", None, lambda: 2):
            seen(screen, "compiling for CPU: 2 kernels")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert screen.lines() == [""]


def test_a_short_task_is_not_shown(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_MOMENT", 60.0)
    with showing(), doing("working", "steps", 2, lambda: 1):
        time.sleep(0.02)
    assert screen.getvalue() == ""


def test_without_a_terminal_nothing_is_shown(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(waiting, "sys", SimpleNamespace(stdout=screen, stderr=errors))
    with showing(), doing("working", "steps", 2, lambda: 1):
        put("a line")
        time.sleep(0.02)
    assert (screen.getvalue(), errors.getvalue()) == ("a line\n", "")
