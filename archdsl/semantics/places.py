"""The paths of weights: labels and block names, unique within each body.

Without a label the name of the block is used; the second of that name in a body is `name_2`.
These paths are part of the meaning of a spec.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from archdsl.diagnostics import Note, Span
from archdsl.semantics.report import Report


class Places:
    """The path of the current body, and the names that are in use there."""

    def __init__(self, report: Report):
        self.report = report
        self._prefix = ""  # in the innermost stack
        self.reused_at: Span | None = None  # where weights that are there are used again
        self._stacks = ""  # of the enclosing stacks
        self._taken: dict[str, int] = {}  # each name, and the number that the next one gets
        self._labels: dict[str, Span] = {}

    def unique_path(self, name: str, span: Span, labelled: bool) -> str:
        """The path of a part of this body. A name that is in use gets a number."""
        if labelled and name in self._taken:
            first = self._labels.get(name)
            self.report.add(
                "duplicate-name",
                f"the label `{name}` is already used in this body",
                span,
                notes=(Note("it is first used here", first),) if first else (),
                help="labels name weights: choose another one",
            )
        if labelled:
            self._labels[name] = span
        unique = name
        while unique in self._taken:
            self._taken[name] += 1
            unique = f"{name}_{self._taken[name]}"
        self._taken[unique] = 1
        return self.within(unique)

    def within(self, name: str) -> str:
        """The path of a name of this body in the innermost stack."""
        return f"{self._prefix}.{name}" if self._prefix else name

    @property
    def prefix(self) -> str:
        """The path of the current group of steps in the innermost stack."""
        return self._prefix

    def full_path(self, path: str) -> str:
        """A path with its enclosing stacks, `{}` for the number of a layer."""
        return f"{self._stacks}.{path}" if self._stacks else path

    @contextmanager
    def again(self, prefix: str, span: Span) -> Iterator[None]:
        """Enters a body to use the weights of a part of it again."""
        saved = self._prefix, self._taken, self._labels, self.reused_at
        self._prefix, self._taken, self._labels, self.reused_at = prefix, {}, {}, span
        yield
        self._prefix, self._taken, self._labels, self.reused_at = saved

    @contextmanager
    def enter(
        self, name: str | None, span: Span, named: bool, labelled: bool = True
    ) -> Iterator[None]:
        """Enters the body of a part.

        A part that is not `named` uses the path of its caller: a group without a label also
        shares its names, a repeated block does not.
        """
        if name is None:
            yield
            return
        path = self.unique_path(name, span, labelled) if named else self._prefix
        saved = self._prefix, self._taken, self._labels
        self._prefix, self._taken, self._labels = path, {}, {}
        yield
        self._prefix, self._taken, self._labels = saved

    @contextmanager
    def in_stack(self, path: str, tied: bool) -> Iterator[None]:
        """Enters the body of a stack, whose paths are relative to one layer."""
        saved = self._prefix, self._taken, self._labels, self._stacks
        self._stacks = self.full_path(path) if tied else f"{self.full_path(path)}.{{}}"
        self._prefix, self._taken, self._labels = "", {}, {}
        yield
        self._prefix, self._taken, self._labels, self._stacks = saved
