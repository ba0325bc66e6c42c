"""Which tests `pytest` runs, and what it prints at the end: what was left out, where time went.

There are three groups of tests. `pytest` runs the first, `pytest -m long` the second,
`pytest -m slow` the third; `.ci/run` runs the first and the second.
"""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Report: TypeAlias = pytest.TestReport | pytest.CollectReport

ROOT = Path(__file__).parents[1]
GROUPS = {"long": "repeat shorter tests with more cases", "slow": "take minutes"}


def some(values: Iterable[Any], *plain: Any) -> list[Any]:
    """Parameters of a test; the cases with all others than the plain values are long."""
    long = pytest.mark.long
    return [pytest.param(value, marks=() if value in plain else long) for value in values]


def first(values: Iterable[Any]) -> list[Any]:
    """Parameters of a test; the cases with all values but the first are slow."""
    one, *others = values
    return [one, *(pytest.param(value, marks=pytest.mark.slow) for value in others)]


# Specs that have together most of the language.
CORE = {
    *("blocks", "bert", "clip", "deepseek", "gemma", "gpt", "gpt2", "jamba", "llama", "lfm2"),
    *("mistral", "t5", "vaswani2017", "vit", "whisper"),
}


def mostly_long(specs: Iterable[Any]) -> list[Any]:
    """Specs as parameters of a test: `gpt.arch`, a path or `gpt.arch:GPT`.

    Those that are not among CORE, and the published sizes, are long.
    """

    def is_core(spec: Any) -> bool:
        path, _, name = str(spec).partition(":")
        return Path(path).stem in CORE and (not name or name[0].isupper())

    return [
        pytest.param(spec, marks=() if is_core(spec) else pytest.mark.long) for spec in specs
    ]


def choose_few(items: Iterable[pytest.Item]) -> None:
    """Mark as `long` the cases of each test marked `few(n)` beyond the n it keeps."""
    tests: dict[str, list[pytest.Function]] = {}
    for item in items:
        marked = item.get_closest_marker("few") and not item.get_closest_marker("slow")
        if isinstance(item, pytest.Function) and marked:
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in tests.values():
        marker = cases[0].get_closest_marker("few")
        assert marker is not None
        kept = varied([parameters(case) for case in cases], *marker.args)
        for number, case in enumerate(cases):
            if number not in kept:
                case.add_marker("long")


# The folders whose long tests take most of the time, and how many cases there are for one that
# stays long.
FOLDERS = ("backend", "describe", "editor", "execution", "graph", "passes", "published")
FOLDERS += ("syntax", "text")
FILES = ("families_", "gguf_models", "heads", "other_lengths", "rotary_scaling", "round_trips")
FILES += ("variants",)
THINNED = (
    *(f"tests/{folder}/" for folder in FOLDERS),
    *(f"tests/reference/test_{file}" for file in FILES),
)
ONE_OF = 16


def thin_out(items: Iterable[pytest.Item]) -> None:
    """Mark as `slow` all but one of sixteen of the long cases of each test in some folders."""
    numbers: Counter[str] = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if not isinstance(item, pytest.Function) or not test.startswith(THINNED):
            continue
        if hasattr(item, "callspec") and item.get_closest_marker("long"):
            if numbers[test] % ONE_OF:
                item.own_markers = [each for each in item.own_markers if each.name != "long"]
                item.add_marker("slow")
            numbers[test] += 1


def parameters(case: pytest.Function) -> set[tuple[str, str]]:
    """The names and the values of a case's parameters, the parts of a tuple each by itself."""
    found = set()
    for name, value in case.callspec.params.items():
        parts = value if isinstance(value, tuple) else (value,)
        found |= {(f"{name}.{place}", repr(part)) for place, part in enumerate(parts)}
    return found


def varied(cases: list[set[tuple[str, str]]], most: int = 1000) -> set[int]:
    """Which cases to keep so that each value appears, at most so many of them.

    The case with the most values that no case before it has is taken each time, the first of
    several.
    """
    kept: set[int] = set()
    missing = set[tuple[str, str]]().union(*cases)
    while missing and len(kept) < most:
        best = max(range(len(cases)), key=lambda number: len(cases[number] & missing))
        kept.add(best)
        missing -= cases[best]
    return kept


class LeftOut:
    """Counts the tests that were left out or skipped, and prints how to run them."""

    def __init__(self) -> None:
        self.groups: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.files: dict[str, str] = {}  # files that were skipped whole, and why

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            self.groups.update(name for name in GROUPS if item.get_closest_marker(name))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker of xdist counted. All workers collect the same tests."""
        output = getattr(node, "workeroutput", {})
        self.groups = Counter(output.get("groups", self.groups))
        self.files |= output.get("files", {})

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output |= {"groups": dict(self.groups), "files": self.files}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.files[report.nodeid] = skip_reason(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped[skip_reason(report)] += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        lines = []
        whole: Counter[str] = Counter()
        for file, reason in self.files.items():
            whole[reason] += count_tests(ROOT / file)
        for reason, count in (self.skipped + whole).most_common():
            # Of a file that was not collected, the cases of a test are not known.
            more = "+" if reason in whole else ""
            lines.append((f"{count}{more}", f"skipped: {reason}", how_to_run(reason)))
        for name, count in sorted(self.groups.items()):
            lines.append((f"{count}", f"left out: they {GROUPS[name]}", f"pytest -m {name}"))
        if lines:
            terminalreporter.write_sep("=", "tests that did not run")
        for count, why, how in lines:
            terminalreporter.write_line(f"{count:>5} {why}" + (f"\n      {how}" if how else ""))


def skip_reason(report: Report) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    text = text.removeprefix("Skipped: ").partition(";")[0]
    return re.sub(r"could not import '([\w-]+)\b.*", r"\1 is not installed", text)


def count_tests(file: Path) -> int:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return sum(
        isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for node in ast.walk(tree)
    )


def how_to_run(reason: str) -> str:
    """The commands that install a package and run what was skipped without it."""
    if not (
        found := re.match(r"(?:the )?(\S+) (?:package )?is (?:not installed|absent)", reason)
    ):
        return ""
    package = {"PIL": "pillow"}.get(found[1], found[1].replace("_", "-"))
    pins = re.search(
        rf"\b{re.escape(package)}==[\d.]+",
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    )
    if pins and not pins[0].startswith("torch"):
        return f"pip install --no-deps {pins[0]} && pytest"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in ("text", "gguf", "images", "reference", "gpu-check"):
        needed = project["optional-dependencies"][name]
        if any(re.split(r"[=>]", each)[0] == package for each in needed):
            return f"pip install -e '.[{name}]' && pytest"
    return ""


class Times:
    """Measures each test's processor time, that of its subprocesses too, and prints sums."""

    def __init__(self) -> None:
        self.before = 0.0
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logstart(self) -> None:
        self.before = sum(os.times()[:4])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        report = yield
        now = sum(os.times()[:4])
        report.processor_seconds, self.before = now - self.before, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self.seconds.get(report.nodeid, 0.0)
        self.seconds[report.nodeid] = before + getattr(report, "processor_seconds", 0.0)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        folders: dict[str, list[float]] = {}
        for test, seconds in self.seconds.items():
            folder = "/".join(test.partition("::")[0].split("/")[:2])
            name = "archdsl (doctests)" if test.startswith("archdsl") else folder
            folders.setdefault(name, []).append(seconds)
        write = terminalreporter.write_line
        terminalreporter.write_sep("=", "processor seconds, tests, folder")
        for name, found in sorted(folders.items(), key=lambda each: -sum(each[1])):
            write(f"{sum(found):7.1f} {len(found):5}  {name}")
        write(f"{sum(self.seconds.values()):7.1f} {len(self.seconds):5}  all")
        terminalreporter.write_sep("=", "the twenty slowest tests, processor seconds")
        for test, seconds in sorted(self.seconds.items(), key=lambda each: -each[1])[:20]:
            write(f"{seconds:7.1f}  {test}")
