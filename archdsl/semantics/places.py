"""Where weights live: a path of labels and block names, unique within each body.

A label names its place; without one the block's own name serves, and the second of a name
in one body is `name_2`. These names are part of what a spec means.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from archdsl.diagnostics import Note, Span
from archdsl.semantics.report import Report


class Places:
    """The path of the body being walked, and the names taken in it."""

    def __init__(self, report: Report):
        self.report = report
        self._prefix = ""  # within the innermost stack
        self._stacks = ""  # of the stacks around, for `full`
        self._taken: set[str] = set()
        self._labels: dict[str, Span] = {}

    def take(self, name: str, span: Span, labelled: bool) -> str:
        """The path of a part of this body, its name made unique."""
        if labelled and name in self._taken:
            first = self._labels.get(name)
            self.report.add(
                "duplicate-name",
                f"the label `{name}` is taken in this body",
                span,
                notes=(Note("here", first),) if first else (),
                help="weights are named by labels: choose another",
            )
        if labelled:
            self._labels[name] = span
        unique, count = name, 1
        while unique in self._taken:
            count += 1
            unique = f"{name}_{count}"
        self._taken.add(unique)
        return f"{self._prefix}.{unique}" if self._prefix else unique

    def full(self, path: str) -> str:
        """A path with the stacks around it, `{}` for the number of the copy."""
        return f"{self._stacks}.{path}" if self._stacks else path

    @contextmanager
    def inside(
        self, name: str | None, span: Span, named: bool, labelled: bool = True
    ) -> Iterator[None]:
        """The body of a part. One that is not `named` shares its caller's place: a group
        without a label all of it, a repeated block only the path."""
        if name is None:
            yield
            return
        path = self.take(name, span, labelled) if named else self._prefix
        saved = self._prefix, self._taken, self._labels
        self._prefix, self._taken, self._labels = path, set(), {}
        yield
        self._prefix, self._taken, self._labels = saved

    @contextmanager
    def stacked(self, path: str) -> Iterator[None]:
        """The body of a stack, whose paths are relative to one copy."""
        saved = self._prefix, self._taken, self._labels, self._stacks
        self._stacks = f"{self.full(path)}.{{}}"
        self._prefix, self._taken, self._labels = "", set(), {}
        yield
        self._prefix, self._taken, self._labels, self._stacks = saved
