"""The type rules of the losses: each is a number, the mean over what counts.

Padding of a ragged axis never counts. `where` [the axes of the labels] says which of the other
positions count.
"""

from __future__ import annotations

from archdsl.graph.signature import Mismatch, Site
from archdsl.graph.types import Type

SCALAR = Type("float")
_SAME_SHAPE = "only tensors of the same shape can be compared"


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
            help="make attention `causal`; a model that reads both sides has the loss "
            "`cross_entropy`",
        )
    return SCALAR


def cross_entropy(site: Site) -> Type:
    _class_scores(site, "label")
    return SCALAR


def squared_error(site: Site) -> Type:
    site.floats("target")
    site.check_axes("target", _SAME_SHAPE, site.floats().axes)
    _mask(site, site.x)
    return SCALAR


def binary_cross_entropy(site: Site) -> Type:
    logits, label = site.floats("logits"), site.tensors["label"]
    if label.dtype == "int" and label.below != 2:
        raise Mismatch(
            "element-bound",
            "a label is 0 or 1",
            "label",
            expected="bool[…], int[…] < 2, or float[…] from 0 to 1",
            found=str(label),
        )
    site.check_axes("label", _SAME_SHAPE, logits.axes)
    _mask(site, logits)
    return SCALAR


def contrastive(site: Site) -> Type:
    site.check_axes("other", _SAME_SHAPE, site.floats().axes)
    if len(site.x.axes) != 1:
        raise Mismatch(
            "type-mismatch",
            "a vector of each example is needed here",
            "x",
            expected="float[D]",
            found=str(site.x),
            help="`x -> mean` or `x -> readout(cls)` gives one vector",
        )
    site.floats("other")
    if "bias" in site.tensors:
        site.floats("bias")
        site.check_axes("bias", "the bias is one number", ())
        if site.attr["kind"] != "sigmoid":
            raise Mismatch(
                "argument-value",
                "a bias that is the same for all pairs does not change their softmax",
                "bias",
                help="leave it out, or write `sigmoid`",
            )
    return SCALAR


def z_loss(site: Site) -> Type:
    logits = site.floats("logits")
    if not logits.axes:
        raise Mismatch("axis", "logits have an axis of classes", "logits", found=str(logits))
    _mask(site, Type("float", logits.axes[:-1]))
    return SCALAR


def penalty(site: Site) -> Type:
    _mask(site, site.floats())
    return SCALAR


# -- what losses share --


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
    if not 0 <= site.attr["smoothing"] < 1:
        raise Mismatch(
            "argument-value",
            "`smoothing` is the probability of all classes but the correct one",
            "smoothing",
            expected="0 <= smoothing < 1",
            found=str(site.attr["smoothing"]),
        )
    _mask(site, given)
    return logits, given


def _mask(site: Site, counted: Type) -> None:
    """Checks `where`, which has a truth value for each number of `counted`."""
    where = site.tensors.get("where")
    if where is None:
        return
    if where.dtype != "bool" or [a.size for a in where.axes] != [a.size for a in counted.axes]:
        raise Mismatch(
            "type-mismatch",
            "`where` says for each label whether it counts",
            "where",
            expected=str(Type("bool", counted.axes)),
            found=str(where),
        )
