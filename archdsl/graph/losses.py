"""The type rules of the losses."""

from __future__ import annotations

from archdsl.graph.signature import Mismatch, Site
from archdsl.graph.types import Type

SCALAR = Type("float")


def _class_scores(site: Site, labels: str) -> tuple[Type, Type]:
    """The types of logits and labels; the logits have one axis more, the classes."""
    logits, given = site.tensors["logits"], site.tensors[labels]
    if logits.dtype != "float" or not logits.axes:
        raise Mismatch(
            "type-mismatch",
            "logits are float values, one for each class",
            "logits",
            found=str(logits),
        )
    if given.dtype != "int":
        raise Mismatch(
            "type-mismatch",
            "labels are whole numbers, one for each vector of logits",
            labels,
            expected="int",
            found=str(given),
        )
    if [a.size for a in logits.axes[:-1]] != [a.size for a in given.axes]:
        raise Mismatch(
            "shape-mismatch",
            "there must be one label for each vector of logits",
            labels,
            expected=str(Type("int", logits.axes[:-1])),
            found=str(given),
        )
    classes = logits.axes[-1].size.value
    if given.below is None or classes is None or given.below > classes:
        raise Mismatch(
            "element-bound",
            f"the logits have {logits.axes[-1].size} classes, but a label can be larger",
            labels,
            expected=f"int < {logits.axes[-1].size}",
            found=str(given),
            bound=(logits.axes[-1],),
        )
    return logits, given


def next_token(site: Site) -> Type:
    logits, tokens = _class_scores(site, "tokens")
    varying = [axis.size.vars for axis in tokens.axes]
    if len(varying) != 1 or len(varying[0]) != 1:
        raise Mismatch(
            "axis",
            "`next_token` needs tokens along one varying axis",
            "tokens",
            expected="int[T <= context]",
            found=str(tokens),
        )
    (name,) = varying[0]
    if name in logits.noncausal:
        raise Mismatch(
            "not-causal",
            f"the logits at a position depend on later positions of `{name}`, so the next "
            "token would be copied, not predicted",
            "logits",
            broken=name,
        )
    return SCALAR


def cross_entropy(site: Site) -> Type:
    _class_scores(site, "label")
    return SCALAR
