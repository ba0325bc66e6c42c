"""The figures of a page: that of the model, and those that its boxes open."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import chain, count

from archdsl.figure.structure import Body, Box, Figure, Frame, body_steps
from archdsl.frozen import Frozen


class View(Frozen):
    """A figure's place on a page, with the name that addresses have for it,
    `mixture-of-experts/experts`.

    `title` is that of the box that opens it, in the view `parent`, and `within` what is around
    the box there. `opens` has the names of the views that its own boxes open, by their ids.
    """

    name: str
    parent: str | None
    title: str
    within: str = ""
    opens: tuple[tuple[str, str], ...] = ()


def views(
    figure: Figure, name: str = "", parent: str | None = None, title: str = "", within: str = ""
) -> Iterator[tuple[View, Figure]]:
    """The figure of a model, named `""`, and those that open, each after the one with its
    box."""
    opens: dict[str, str] = {}
    inner: dict[str, tuple[Box, str, Figure]] = {}
    for box, around in _boxes(figure.body, ""):
        if box.inside is not None:
            own = _unused("/".join(filter(None, (name, _slug(box.title)))), inner)
            inner[own] = box, around, box.inside
            opens[box.id] = own
    yield View(name, parent, title or figure.title, within, tuple(opens.items())), figure
    for own, (box, around, inside) in inner.items():
        yield from views(inside, own, name, box.title, around)


def _unused(name: str, used: Collection[str]) -> str:
    numbered = (f"{name}-{number}" for number in count(2))
    return next(each for each in chain([name], numbered) if each not in used)


def _boxes(body: Body, around: str) -> Iterator[tuple[Box, str]]:
    """The boxes of a figure, each with the innermost frame around it in words."""
    for step in body_steps(body):
        match step.item:
            case Box():
                yield step.item, around
            case Frame(parts=parts):
                for part in parts:
                    yield from _boxes(part.body, part.note or _frame(step.item))


def _frame(frame: Frame) -> str:
    count = f" × {frame.count}" if frame.count is not None else ""
    return f"{frame.title or 'Layer'}{count}"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "box"
