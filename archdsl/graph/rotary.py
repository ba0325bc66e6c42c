"""The type rule of `rotary`, and the rules of its scaling."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

from archdsl.graph.positions import check_at
from archdsl.graph.signature import Mismatch, Site
from archdsl.graph.types import Axis, Type

SCALINGS = ("linear", "llama3", "yarn", "dynamic", "longrope")

_DEFAULTS = {
    "factor": 1.0,
    "low": 1.0,
    "high": 4.0,
    "slow": 1.0,
    "fast": 32.0,
    "original": None,
    "scale": None,
    "factors": "",
    "long": "",
    "mscale": None,
    "mscale_all": None,
    "truncate": True,
}
# The parameters that have an effect with each scaling.
_USED = {
    None: ("factors",),
    "linear": ("factor",),
    "llama3": ("factor", "low", "high", "original"),
    "yarn": (
        "factor",
        "slow",
        "fast",
        "original",
        "scale",
        "mscale",
        "mscale_all",
        "truncate",
    ),
    "dynamic": ("factor", "original"),
    "longrope": ("factor", "original", "scale", "factors", "long"),
}
_NEEDED = {
    "llama3": {"original": "original = 8192"},
    "yarn": {"original": "original = 32768"},
    "longrope": {
        "original": "original = 4096",
        "factors": 'factors = "1.0 1.05 …"',
        "long": 'long = "1.0 1.1 …"',
    },
}
_TURNS = {"llama3": ("low", "high"), "yarn": ("slow", "fast")}


def rotary_defaults(site: Site) -> dict[str, int]:
    sequence, width = _heads(site)
    found = {"size": width} if site.attr["size"] is None else {}
    if site.attr["scaling"] == "dynamic" and site.attr["original"] is None:
        found["original"] = site.bound(sequence.size)
    return found


def _heads(site: Site) -> tuple[Axis, int]:
    """The sequence axis and the head size."""
    x = site.floats()
    fixed = [axis.size.value for axis in x.axes[1:]]
    if len(x.axes) not in (2, 3) or None in fixed:
        raise Mismatch(
            "type-mismatch",
            "a sequence of heads is needed here",
            "x",
            expected="float[T, H, h] or float[T, h]: any sequence axis, then fixed sizes",
            found=str(x),
        )
    return x.axes[0], site.width


def rotary(site: Site) -> Type:
    sequence, width = _heads(site)
    size = site.attr["size"]
    if size > width:
        raise Mismatch(
            "argument-value",
            f"`size` is larger than a head, which has {width} features",
            "size",
            expected=f"{width} or less",
            found=str(size),
            bound=("size", site.x.axes[-1]),
        )
    if size % 2:
        raise Mismatch(
            "divisibility",
            f"features are rotated in pairs, but there are {size}",
            "size",
            expected="an even size",
            found=str(size),
            bound=("size", site.x.axes[-1]),
        )
    check_at(site, sequence)
    _check_scaling(site.attr)
    if same_up_to(site) is not None and site.ragged(sequence.size):
        raise Mismatch(
            "argument-value",
            f"`{site.attr['scaling']}` needs the length of the sequence, but the examples of a "
            f"batch have different lengths along `{sequence}`",
            "scaling",
            help="make `original` the longest length of the axis",
        )
    return site.x


def same_up_to(site: Site) -> int | None:
    """`original`, if angles depend on whether the sequence is longer."""
    original = site.attr["original"]
    if site.attr["scaling"] not in ("dynamic", "longrope"):
        return None
    bound = site.bound(site.x.axes[0].size)
    return None if bound <= original else int(original)


def numbers(text: str) -> tuple[float, ...]:
    """The numbers of `factors` or `long`. Raises `ValueError`."""
    return tuple(float(word) for word in text.split())


def _check_scaling(attr: Any) -> None:
    """Rejects invalid values of theta and of the scaling, and parameters without effect."""
    scaling = attr["scaling"]
    for name in ("theta", "factor", "scale"):
        if attr[name] is not None and not 0 < attr[name] < inf:
            raise Mismatch(
                "argument-value",
                f"`{name}` must be a finite number above 0",
                name,
                expected="a number above 0",
                found=str(attr[name]),
            )
    for name in ("mscale", "mscale_all"):
        if attr[name] is not None and not 0 <= attr[name] < inf:
            raise Mismatch(
                "argument-value",
                f"`{name}` must be a finite number, 0 or more",
                name,
                expected="a number, 0 or more",
                found=str(attr[name]),
            )
    for name, default in _DEFAULTS.items():
        if name not in _USED[scaling] and attr[name] != default:
            users = [each for each in SCALINGS if name in _USED[each]]
            raise Mismatch(
                "argument-value",
                f"`{name}` has no effect {f'with {scaling}' if scaling else 'without'} scaling",
                name,
                help=f"leave it out, or write `{users[0]}`",
            )
    for name, example in _NEEDED.get(scaling, {}).items():
        if attr[name] in (None, ""):
            raise Mismatch(
                "missing-argument",
                f"{scaling} scaling needs `{name}`"
                + (", the context length before scaling" if name == "original" else ""),
                help=f"write `{example}`",
            )
    for name in ("factors", "long"):
        if attr[name]:
            _check_numbers(name, attr[name], attr["size"] // 2)
    if scaling == "yarn" and attr["theta"] <= 1:
        raise Mismatch("argument-value", "yarn scaling needs a `theta` above 1", "theta")
    if scaling == "longrope" and attr["original"] == 1:
        raise Mismatch(
            "argument-value", "longrope scaling needs an `original` above 1", "original"
        )
    if scaling in _TURNS:
        low, high = _TURNS[scaling]
        if not 0 < attr[low] <= attr[high] < inf:
            raise Mismatch(
                "argument-value",
                f"`{low}` must not be more than `{high}`",
                low,
                expected=f"0 < {low} <= {high}",
                found=f"{low} = {attr[low]}, {high} = {attr[high]}",
                bound=(low, high),
            )


def _check_numbers(name: str, text: str, pairs: int) -> None:
    """Rejects `factors` and `long` unless they are one number above 0 for each pair."""
    try:
        found = numbers(text)
    except ValueError:
        found = ()
    if len(found) != pairs or not all(isfinite(each) and each > 0 for each in found):
        raise Mismatch(
            "argument-value",
            f"`{name}` must be numbers above 0, one for each pair of features",
            name,
            expected=f"{pairs} numbers with spaces between them",
            found=f'"{text[:60]}{"…" if len(text) > 60 else ""}"',
        )
