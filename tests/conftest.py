"""What every test can use: golden files, the mark for reference packages, a C compiler.

tests/suite.py says which tests run. With ARCHDSL_REQUIRE_REFERENCES=1 a skipped test fails, so
that a machine that should have every reference package cannot pass by leaving some out.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeAlias

import hypothesis
import pytest

from tests.suite import LeftOut, Times, choose_few, thin_out

Report: TypeAlias = pytest.TestReport | pytest.CollectReport

GOLDEN = Path(__file__).parent / "golden"

# A shared machine is slow at times, and a failure should belong to the change at hand.
hypothesis.settings.register_profile("few", deadline=None, derandomize=True, max_examples=20)
hypothesis.settings.register_profile("many", deadline=None, derandomize=True, max_examples=60)

# tinygrad's pool of compilers takes longer to start than it saves in kernels this small.
os.environ.setdefault("PARALLEL", "0")
# What a test finds is not to depend on what an earlier run has stored.
os.environ.setdefault("ARCHDSL_PROGRAMS", "0")
os.environ.setdefault("ARCHDSL_TREES", "0")

# A shell's background job ignores Ctrl-C, and nohup's a hangup. The commands that tests send
# them would inherit that; they inherit no function.
for each in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(each) is signal.SIG_IGN:
        signal.signal(each, lambda number, frame: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the expected texts of tests/golden instead of comparing with them",
    )
    parser.addoption(
        "--beyond",  # written --beyond=FILE, or pytest takes FILE for tests before it knows
        metavar="FILE",
        help="leave out the tests of which FILE says PASSED, as `pytest -rp` prints it",
    )
    parser.addoption(
        "--by-folder",
        action="store_true",
        help="print the processor time of each folder's tests, and the twenty slowest tests",
    )


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    choose_few(items)
    thin_out(items)
    if file := config.getoption("--beyond"):
        passed = set(Path(file).read_text(encoding="utf-8").splitlines())
        # Tests of hypothesis had few examples.
        left_out = {
            item
            for item in items
            if f"PASSED {item.nodeid}" in passed
            and not getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        }
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))


def pytest_configure(config: pytest.Config) -> None:
    few = "not long" in config.getoption("markexpr")
    hypothesis.settings.load_profile("few" if few else "many")
    # Files are handed out in their order, by which backend's, the longest, come first. xdist
    # would begin with those of the most tests, and have long ones of few tests at the end.
    config.option.loadscopereorder = False
    config.pluginmanager.register(LeftOut())
    if config.getoption("--by-folder"):
        config.pluginmanager.register(Times())
    # As a plugin of its own the check also covers the doctests of the package.
    if os.environ.get("ARCHDSL_REQUIRE_REFERENCES") == "1":
        config.pluginmanager.register(SkipsAreFailures())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `reference("torch", …)` where one of these packages is absent."""
    for marker in item.iter_markers("reference"):
        for package in marker.args:
            pytest.importorskip(
                package, reason=f"{package} is not installed; CONTRIBUTING.md says how"
            )


class SkipsAreFailures:
    """Turns each skip, of a test or of a whole module, into a failure that names it."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, Report, Report]:
        return fail_if_skipped((yield))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Generator[None, Report, Report]:
        return fail_if_skipped((yield))


def fail_if_skipped(report: Report) -> Report:
    # An expected failure is reported as a skip too, and is none.
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} may not be skipped here.\n{report.longreprtext}"
    return report


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares a text with the file tests/golden/NAME.

    `pytest --update-golden` writes the file instead; its diff is then what to review.
    """

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        assert path.exists(), f"{path} does not exist; pytest --update-golden writes it"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture(scope="session", autouse=True)
def _cpu_compiler() -> None:
    """Name the C compiler of tinygrad's CPU device, for tests that run tinygrad by itself.

    Where there is none, the tests that run a model fail and say so; the others can pass.
    """
    from archdsl.backend.toolchain import ensure_compiler
    from archdsl.diagnostics import ArchError

    with contextlib.suppress(ArchError):
        os.environ["CC"] = ensure_compiler().path
