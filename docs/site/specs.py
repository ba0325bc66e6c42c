"""What the gallery says of a spec, computed from its file alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from archdsl.analysis import Analysis, analyse_all
from archdsl.describe.sublayers import Wiring
from archdsl.diagnostics import ArchError
from archdsl.figure.fold import fold
from archdsl.figure.structure import Figure
from archdsl.graph.cost import Cost, cost
from archdsl.graph.nodes import Apply, Graph, Mixture, Scan, walk
from archdsl.semantics.library import first_comment, library_specs, read, tree
from archdsl.syntax import ast

YEAR = re.compile(r"\b(?:19|20)\d\d(?=[a-z]?\b)")


class Model(NamedTuple):
    """A model of a spec with the values that its parameters have by default."""

    name: str
    graph: Graph
    figure: Figure
    small: Figure  # one box for each stack

    @property
    def operators(self) -> frozenset[str]:
        nodes = (node for node, _ in walk(self.graph.nodes))
        return frozenset(node.op for node in nodes if isinstance(node, Apply))

    @property
    def kinds(self) -> Iterator[str]:
        """What it is. A model that predicts the next token is a decoder."""
        nodes = [node for node, _ in walk(self.graph.nodes)]
        if any(loss.loss.op == "next_token" for loss in self.graph.losses):
            crossed = any(each.over for each in Wiring(self.graph).attentions())
            yield "encoder-decoder" if crossed else "decoder"
        else:
            yield "encoder"
        if any(isinstance(node, Mixture) for node in nodes):
            yield "mixture"
        if any(isinstance(node, Scan) for node in nodes):
            yield "state"
        if "patches" in self.operators:
            yield "vision"


class Size(NamedTuple):
    """A published size of a model, or the model itself with its defaults."""

    name: str
    model: str
    cost: Cost
    context: str


@dataclass(frozen=True)
class Spec:
    """A file of the library; `uses` are the names of files. Without a model, it has blocks."""

    file: str
    text: str
    comment: str
    uses: tuple[str, ...]
    models: tuple[Model, ...]
    sizes: tuple[Size, ...]

    @property
    def title(self) -> str:
        """What the comment calls the architecture: the words before its first colon or bracket.

        A comment that begins with a sentence gives no name; the model does.
        """
        name = re.match(r"([^:(,;.]|\.(?=\d))+(?=:| \()", self.comment)
        if name and len(name[0].split()) <= 4:
            return name[0]
        return self.models[0].name if self.models else self.file

    @property
    def about(self) -> str:
        """The comment without this name before it."""
        text = self.comment.removeprefix(f"{self.title}: ")
        return text[:1].upper() + text[1:]

    @property
    def source(self) -> str:
        """The citations of the comment, which stand in brackets; "" without a paper."""
        cited = re.findall(r"\(([^()]*)\)", self.comment)
        return "; ".join(each for each in cited if YEAR.search(each))

    @property
    def year(self) -> int | None:
        """The year of the first citation."""
        found = YEAR.search(self.source)
        return int(found[0]) if found else None

    @cached_property
    def kinds(self) -> frozenset[str]:
        return frozenset[str]().union(*(model.kinds for model in self.models))


def files() -> list[str]:
    """The paths of all specs of the library."""
    return [str(path) for path in library_specs()]


def spec(path: str) -> Spec:
    """Reads and analyses a spec; raises `ArchError` if it has a mistake."""
    problems, found = analyse_all(path)
    if problems:
        raise ArchError(problems)
    text = Path(path).read_text(encoding="utf-8")
    names = {each.model.name.id: name for name, each in reversed(found.items())}
    items = tree(read(path)).items
    return Spec(
        Path(path).name,
        text,
        comment(text),
        tuple(item.path.value for item in items if isinstance(item, ast.Use)),
        tuple(_model(found[name]) for name in reversed(names.values())),
        tuple(_size(name, each) for name, each in found.items()),
    )


def comment(text: str) -> str:
    """The comment at the start of a file, with one line for each paragraph.

    >>> comment("# GPT: a stack\\n# of blocks.\\n#\\n# More.\\nmodel …")
    'GPT: a stack of blocks.\\nMore.'
    """
    joined = " ".join(line or "\n" for line in first_comment(text))
    return re.sub(r" *\n *", "\n", joined)


def _model(found: Analysis) -> Model:
    graph = found.graph
    return Model(found.model.name.id, graph, fold(graph, "block"), fold(graph, "model"))


def _size(name: str, found: Analysis) -> Size:
    context = ", ".join(f"{axis.name} ≤ {axis.bound:,}" for axis in found.graph.varying)
    return Size(name, found.model.name.id, cost(found.graph), context)
