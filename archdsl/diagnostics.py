"""Error messages as data: a source, a span in it, and a diagnostic.

A stage that finds a mistake creates a `Diagnostic`. Only the command line and the text of an
`ArchError` render it. Each code has a page, docs/errors/CODE.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import NoReturn

from archdsl.frozen import Frozen

CODES = {
    # reading
    "syntax": "The text does not follow the grammar.",
    "file": "A file cannot be found, read or written.",
    "limit": "A size or a time is beyond a limit.",
    "cycle": "A file uses itself, or a block calls itself, directly or through others.",
    # names
    "unknown-name": "No definition with this name is in scope.",
    "duplicate-name": "Two definitions in one scope have the same name.",
    "unknown-argument": "The operator, block or model has no parameter of this name.",
    "missing-argument": "A parameter without a default has no value.",
    "argument-value": "The value is not allowed for this parameter.",
    "not-a-block": "A block was expected: something that turns a tensor into a tensor.",
    "not-a-tensor": "A tensor was expected.",
    "unused-name": "An edge, a parameter, a block or a used file is never used.",
    # types
    "type-mismatch": "A value does not have the declared or required type.",
    "shape-mismatch": "Two sizes that must be equal are not.",
    "divisibility": "A size is not a multiple of another size.",
    "axis": "A named axis is missing, or the operator cannot use it.",
    "element-bound": "Integers may be larger than the table that they index.",
    "stack": "A repeated block does not return the type of its input.",
    "mixture": "An expert of a mixture does not compute each vector by itself.",
    "state": "The update of a state uses more than one position.",
    "not-causal": "The value at a position depends on later positions.",
    "arithmetic": "A number cannot be computed.",
    "expect": "A fact stated by `expect` is false.",
    # whole models
    "model": "The file has no model, or several and none is selected.",
    "weights-map": "A `weights` block does not match the model one to one.",
    # running
    "input": "A value for an input does not have the declared type.",
    "overflow": "A value of the model is beyond the largest number of its dtype.",
    "checkpoint": "A weights file does not have exactly the weights of the model.",
    "config": "A published config has a field or a value that the spec does not support.",
    "device": "The device or its compiler cannot be used on this machine.",
    "tokenizer": "A text or vocabulary cannot be turned into tokens.",
    "generation": "The model cannot generate with these inputs or options.",
}


def page(code: str) -> Path:
    """The page of a code: in an installed package, or in docs/ of a checkout."""
    package = Path(__file__).parent
    installed = package / "errors"
    folder = installed if installed.is_dir() else package.parent / "docs" / "errors"
    return folder / f"{code}.md"


class Source(Frozen):
    """A text and its path."""

    path: str
    text: str = field(repr=False)


class Span(Frozen):
    """The characters [start, end) of a source; lines and columns count from 1.

    >>> span = Span(Source("a.arch", "x = 1\\ny = 2"), 6, 7)
    >>> span.line, span.column, span.text
    (2, 1, 'y')
    """

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.text.count("\n", 0, self.start) + 1

    @property
    def last_line(self) -> int:
        """The line in which the span ends."""
        return self.line + self.text.count("\n")

    @property
    def column(self) -> int:
        return self.start - self.source.text.rfind("\n", 0, self.start)

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    @property
    def line_text(self) -> str:
        """The line in which the span starts, without the line end."""
        text = self.source.text
        end = text.find("\n", self.start)
        return text[self.start - self.column + 1 : None if end < 0 else end].rstrip("\r")

    @property
    def place(self) -> str:
        return f"{self.source.path}:{self.line}:{self.column}"

    def covers(self, other: Span) -> bool:
        """Whether the other span is inside this one."""
        return (
            self.source is other.source and self.start <= other.start <= other.end <= self.end
        )

    def to(self, other: Span) -> Span:
        """Returns the span from the start of this one to the end of the other."""
        return Span(self.source, self.start, other.end)


class Note(Frozen):
    """An additional place of a message, such as the definition of a size."""

    message: str
    span: Span | None = None


class Diagnostic(Frozen):
    """One mistake of a user.

    `code` is a key of `CODES` and does not change between versions. `span` is the place of the
    mistake, or None if there is no text, as for a value from Python.
    """

    code: str
    message: str
    span: Span | None = None
    expected: str | None = None
    found: str | None = None
    notes: tuple[Note, ...] = ()
    help: str | None = None

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise KeyError(f"no such diagnostic code: {self.code}")

    def render(self) -> str:
        """Returns the message as text, with the source line and carets.

        >>> source = Source("a.arch", "h = tokens -> nrom")
        >>> print(Diagnostic("unknown-name", "`nrom` is not defined here", Span(source, 14, 18),
        ...                  help="did you mean `norm`?").render())
        a.arch:1:15: error[unknown-name]: `nrom` is not defined here
          |
        1 | h = tokens -> nrom
          |               ^^^^
          = help: did you mean `norm`?
        """
        where = f"{self.span.place}: " if self.span else ""
        lines = [f"{where}error[{self.code}]: {_shortened(self.message)}"]
        if self.span:
            lines += _excerpt(self.span, "^")
        if self.expected is not None:
            lines.append(f"  = expected: {_shortened(self.expected)}")
        if self.found is not None:
            lines.append(f"  = found: {_shortened(self.found)}")
        for note in self.notes:
            lines.append(f"  = note: {_shortened(note.message)}")
            if note.span:
                lines.append(f" --> {note.span.place}")
                lines += _excerpt(note.span, "-")
        if self.help is not None:
            lines.append(f"  = help: {_shortened(self.help)}")
        return escape("\n".join(lines))

    def as_dict(self) -> dict[str, object]:
        """Returns the message as plain data, for `--json`."""
        place = None
        if self.span:
            place = {"path": self.span.source.path, "line": self.span.line}
            place |= {"column": self.span.column, "length": self.span.end - self.span.start}
        return {
            "code": self.code,
            "message": self.message,
            "place": place,
            "expected": self.expected,
            "found": self.found,
            "notes": [
                {"message": n.message, "place": n.span.place if n.span else None}
                for n in self.notes
            ],
            "help": self.help,
        }


MOST = 100  # mistakes that are reported at once


def first_ones(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """The first `MOST` diagnostics; the last of them says that there are more."""
    found = list(diagnostics[:MOST])
    if len(diagnostics) >= MOST:
        more = Note(f"checking stops after {MOST} mistakes")
        found[-1] = replace(found[-1], notes=(*found[-1].notes, more))
    return found


class ArchError(Exception):
    """The exception for users' mistakes, with all diagnostics of a run.

    >>> str(ArchError([Diagnostic("model", "the file has no model")]))
    'error[model]: the file has no model'
    """

    def __init__(self, diagnostics: Iterable[Diagnostic] | Diagnostic):
        if isinstance(diagnostics, Diagnostic):
            diagnostics = (diagnostics,)
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(d.render() for d in self.diagnostics))

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows in the place of a traceback."""
        return str(self).splitlines()


def fail(
    code: str,
    message: str,
    span: Span | None = None,
    *,
    expected: str | None = None,
    found: str | None = None,
    notes: tuple[Note, ...] = (),
    help: str | None = None,
    cause: BaseException | None = None,
) -> NoReturn:
    """Raises an `ArchError` with one diagnostic; `cause` is the original exception.

    >>> fail("model", "the file has no model", help="write `model name(…): …`")
    Traceback (most recent call last):
    archdsl.diagnostics.ArchError: error[model]: the file has no model
      = help: write `model name(…): …`
    """
    raise ArchError(Diagnostic(code, message, span, expected, found, notes, help)) from cause


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """Returns a help line with the candidate closest to a misspelt name, or None.

    >>> did_you_mean("sinusodal", ["learned", "sinusoidal"])
    'did you mean `sinusoidal`?'
    """
    found = closest(name, candidates)
    return f"did you mean `{found}`?" if found else None


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate closest to a misspelt name, or None if none is close."""
    import difflib  # most runs do not need it

    folded = {candidate.casefold(): candidate for candidate in candidates}
    if len(folded) > _MOST_CANDIDATES or len(name) > _LONGEST_NAME:
        return None  # comparing them would take seconds
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


_MOST_CANDIDATES = 1000
_LONGEST_NAME = 200


def listing(names: Iterable[str], joiner: str = "or") -> str:
    """Joins names to a list in a sentence.

    >>> listing(["relu", "gelu", "silu"])
    '`relu`, `gelu` or `silu`'
    """
    quoted = [f"`{name}`" for name in names]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} {joiner} {quoted[-1]}"


def escape(text: str) -> str:
    r"""Replaces the characters that a terminal obeys instead of showing, except line breaks.

    These are control characters, such as those that begin a colour or a title, and marks that
    change the direction of the text after them.

    >>> escape("red: \x1b[31m, back: \u202e")
    'red: \\x1b[31m, back: \\u202e'
    """
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_LONGEST = 10_000  # characters of a text in a message
_WINDOW = 200  # characters of a long line on each side of a place


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _excerpt(span: Span, mark: str) -> list[str]:
    """Returns the first line of a span, with marks under the span."""
    before, line = span.column - 1, span.line_text
    width = max(1, min(span.end - span.start, len(line) - before))
    if len(line) > 4 * _WINDOW:
        cut = max(before - _WINDOW, 0)
        line = line[cut : before + _WINDOW]
        before, width = before - cut, min(width, _WINDOW)
    number = str(span.line)
    bar = " " * len(number) + " |"
    # Tabs stay tabs in the padding, so that the marks are under the text.
    shown = escape(line[:before])
    padding = "".join("\t" if c == "\t" else " " for c in shown)
    width += len(escape(line[before : before + width])) - len(line[before : before + width])
    return [bar, f"{number} | {line}", f"{bar} {padding}{mark * width}"]
