"""A finding of an audit: what is wrong, where, and what archdsl does about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.frozen import Frozen

WRONG, RISKY, NOTE = "wrong", "risky", "note"
LEVELS = {
    WRONG: "the files contradict each other, or a loader must guess",
    RISKY: "loaders differ, or a usual use gives other numbers",
    NOTE: "worth knowing; no loader is wrong",
}
_SHOWN = 4


class Finding(Frozen):
    """One finding. `level` is a key of `LEVELS`, `where` is a file, with a field if there is
    one, and `archdsl` is what archdsl does."""

    level: str
    where: str
    what: str
    archdsl: str

    def as_dict(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in self.__match_args__}


class Findings:
    """The findings so far, in the order in which they were made."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def add(self, level: str, where: str, what: str, archdsl: str) -> None:
        self.all.append(Finding(level, where, what, archdsl))

    @contextmanager
    def refusals(self, where: str, archdsl: str = "refuses it") -> Iterator[None]:
        """Within the block, each mistake that a reader reports is a finding."""
        try:
            yield
        except ArchError as error:
            for each in error.diagnostics:
                self.add(WRONG, where, _text(each), _with_help(archdsl, each.help))

    def sorted(self) -> list[Finding]:
        """All findings, each once, the worst first."""
        return sorted(
            dict.fromkeys(self.all), key=lambda finding: list(LEVELS).index(finding.level)
        )


def some(names: list[str]) -> str:
    """The first of several names, and the number of the others.

    >>> some(["a", "b", "c", "d", "e", "f"])
    'a, b, c, d and 2 more'
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _text(diagnostic: Diagnostic) -> str:
    parts = [diagnostic.message]
    if diagnostic.expected is not None:
        parts.append(f"expected {diagnostic.expected}")
    if diagnostic.found is not None:
        parts.append(f"found {diagnostic.found}")
    return "; ".join(parts)


def _with_help(archdsl: str, help: str | None) -> str:
    return f"{archdsl}; {help}" if help else archdsl
