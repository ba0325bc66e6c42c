"""A mask as macros of C, for the attention kernels.

`i` is the position of a query and `j` that of a key, counted from the start of their row. The
macros for blocks, of queries i0 to i1 and keys j0 to j1, may be wrong on the safe side: `SOME`
true where no pair is visible, `ALL` false where all are.
"""

from __future__ import annotations

from archdsl.graph.masks import Mask

_FAR = "(1 << 30)"  # beyond any position


def macros(mask: Mask) -> dict[str, str | int]:
    """The first and last key that a query may see, whether it sees all keys in between, and
    otherwise which.

    >>> from archdsl.graph.masks import parse
    >>> found = macros(parse("causal & within(3)"))
    >>> found["LOWEST(i)"], found["HIGHEST(i)"], found["INTERVAL"]
    ('MAX(0, ((i) - 2))', 'MIN((i), ((i) + 2))', 1)
    """
    return {
        "LOWEST(i)": _end(mask, 0),
        "HIGHEST(i)": _end(mask, 1),
        "INTERVAL": int(_is_interval(mask)),
        "SEES(i, j)": _pairs(mask, ("i", "i", "j", "j"), some=True),
        "SOME(i0, i1, j0, j1)": _pairs(mask, ("i0", "i1", "j0", "j1"), some=True),
        "ALL(i0, i1, j0, j1)": _pairs(mask, ("i0", "i1", "j0", "j1"), some=False),
    }


def _end(mask: Mask, side: int) -> str:
    """The first (side 0) or last key (side 1) that a query may see; both grow with i."""
    match mask.op:
        case "causal":
            return ("0", "(i)")[side]
        case "within":
            reach = int(mask.args[0]) - 1
            return (f"((i) - {reach})", f"((i) + {reach})")[side]
        case "chunk":
            (n,) = mask.args
            return (f"((i) / {n} * {n})", f"((i) / {n} * {n} + {int(n) - 1})")[side]
        case "prefix":
            return ("0", str(int(mask.args[0]) - 1))[side]
        case "&" | "|":
            narrow = mask.op == "&"
            wide, empty = ("0", _FAR)[side], (_FAR, "-1")[side]
            found = [_end(part, side) for part in mask.parts]
            return _nested(
                "MAX" if narrow == (side == 0) else "MIN", found, wide if narrow else empty
            )
        case _:
            return ("0", _FAR)[side]


def _nested(name: str, values: list[str], none: str) -> str:
    if not values:
        return none
    *before, last = values
    return f"{name}({_nested(name, before, none)}, {last})" if before else last


def _is_interval(mask: Mask) -> bool:
    """Whether a query sees all keys between the first and the last that it may see."""
    match mask.op:
        case "&":
            return all(map(_is_interval, mask.parts))
        case "|":  # intervals with the same start
            same = all(_end(part, 0) == "0" for part in mask.parts)
            return same and all(map(_is_interval, mask.parts)) and bool(mask.parts)
        case "not":
            return False
        case _:
            return True


def _pairs(mask: Mask, block: tuple[str, str, str, str], some: bool) -> str:
    """Whether some pair of a block is visible, or all are."""
    i0, i1, j0, j1 = (f"({each})" for each in block)
    match mask.op:
        case "causal":
            return f"({j0} <= {i1})" if some else f"({j1} <= {i0})"
        case "within":
            (n,) = mask.args
            if some:
                return f"({i0} - {j1} < {n} && {j0} - {i1} < {n})"
            return f"({i1} - {j0} < {n} && {j1} - {i0} < {n})"
        case "chunk":
            (n,) = mask.args
            if some:
                return f"({i0} / {n} <= {j1} / {n} && {j0} / {n} <= {i1} / {n})"
            return f"(MIN({i0}, {j0}) / {n} == MAX({i1}, {j1}) / {n})"
        case "prefix":
            return f"({j0 if some else j1} < {mask.args[0]})"
        case "not":
            return f"!{_pairs(mask.parts[0], block, not some)}"
        case op:
            parts = [_pairs(part, block, some) for part in mask.parts]
            empty = "1" if op == "&" else "0"
            return f"({(' && ' if op == '&' else ' || ').join(parts)})" if parts else empty
