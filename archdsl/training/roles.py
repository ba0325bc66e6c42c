"""Which data a model is trained on, by its inputs, its labels and its loss."""

from __future__ import annotations

import re

from archdsl.diagnostics import fail, listing
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph, Input

_PARAMETER = r"\b{}\s*:\s*int\s*(?:\[[^\]]*\])?\s*<\s*([A-Za-z_]\w*)"


class Roles(Frozen):
    """The inputs and labels of a model that data have: those without a default.

    `tokens` is the input whose next token is predicted, if the loss is `next_token`; `source`
    the other input of tokens, if it is the only one. `answers` is the label of bool that says
    which tokens count.
    """

    inputs: tuple[Input, ...]
    labels: tuple[Input, ...]
    tokens: Input | None = None
    source: Input | None = None
    answers: Input | None = None

    @property
    def is_text(self) -> bool:
        """Whether the model learns to continue a text."""
        return self.tokens is not None and self.inputs == (self.tokens,) and self._labelled

    @property
    def is_pairs(self) -> bool:
        """Whether the model learns to write a target for a source."""
        return self.source is not None and self._labelled

    @property
    def _labelled(self) -> bool:
        return all(each is self.answers for each in self.labels)

    @property
    def image(self) -> tuple[Input, Input] | None:
        """The image float[…, …, …] and its class, if the model learns classes of images."""
        match self.inputs, self.labels:
            case ((image,), (label,)) if (
                image.type.dtype == "float"
                and len(image.type.axes) == 3
                and label.type.dtype == "int"
                and not label.type.axes
            ):
                return image, label
        return None


def find_roles(graph: Graph) -> Roles:
    """The roles of a graph's inputs; `ArchError` (`model`) if it has no loss."""
    if not graph.losses:
        fail(
            "model",
            f"`{graph.name}` has no loss to train for",
            help="add one to the spec: `loss next_token(logits, tokens)`",
        )
    found, loss = Roles(graph.required, graph.labels), graph.objective("next_token")
    if loss is None:
        return found
    given = dict(loss.inputs)
    tokens = next((each for each in graph.required if each.name == given["tokens"]), None)
    answers = next((each for each in graph.labels if each.name == given.get("where")), None)
    others = [each for each in graph.required if each is not tokens]
    source = None
    if tokens and len(others) == 1 and is_tokens(others[0]):
        source = others[0]
    return Roles(graph.required, graph.labels, tokens, source, answers)


def is_tokens(each: Input) -> bool:
    """Whether an input is a sequence of numbers below a bound: int[T] < vocab."""
    kind = each.type
    return kind.dtype == "int" and len(kind.axes) == 1 and kind.below is not None


def set_bound(each: Input, size: int) -> str:
    """The option that sets the bound of an input, such as `--set vocab=65`."""
    line = each.span.line_text if each.span else ""
    found = re.search(_PARAMETER.format(re.escape(each.name)), line)
    name = found[1] if found else "vocab"
    return f"`--set {name}={size}`"


def is_field(each: Input) -> bool:
    """Whether a record can have an input: a number, or values along one axis."""
    return len(each.type.axes) < 2


def names_of(roles: Roles) -> str:
    """The names of the inputs and labels that data have, for a message."""
    inputs = [each for each in (*roles.inputs, *roles.labels) if each is not roles.answers]
    return listing([each.name for each in inputs], "and")


def describe_roles(roles: Roles) -> str:
    """The inputs and labels with their types, for a message."""
    inputs = [each for each in (*roles.inputs, *roles.labels) if each is not roles.answers]
    return ", ".join(f"{each.name}: {each.type}" for each in inputs)
