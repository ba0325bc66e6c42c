"""Messages about names that are not defined, with the likely fix."""

from __future__ import annotations

import re
from collections.abc import Iterable

from archdsl.diagnostics import Diagnostic, Span, did_you_mean, listing
from archdsl.graph.ops import CALLED, RENAMED
from archdsl.graph.signature import Kind, Param
from archdsl.semantics.library import Scope, library_specs
from archdsl.semantics.values import Symbol
from archdsl.syntax import ast


def unknown_value(name: str, span: Span, names: Iterable[str], scope: Scope) -> Diagnostic:
    """A name where a number or a tensor is needed; `names` are the bound names."""
    if name in CALLED or name in scope.blocks:
        return Diagnostic(
            "not-a-tensor",
            f"a value is needed here, and `{name}` is a block",
            span,
            help=f"apply it to a tensor: `x -> {name}`"
            if name not in CALLED or Kind.TENSOR in [p.kind for p in CALLED[name].params]
            else f"call it: `{CALLED[name].example}`",
        )
    help = did_you_mean(name, names)
    return Diagnostic("unknown-name", f"`{name}` is not defined here", span, help=help)


def unknown_block(name: str, span: Span, scope: Scope) -> Diagnostic:
    """A name where a block is needed."""
    if name in CALLED and CALLED[name].loss:
        help: str | None = f"write it as a statement: `loss {CALLED[name].example}`"
        return Diagnostic("not-a-block", f"`{name}` is a loss", span, help=help)
    blocks = [*scope.blocks, *(n for n, op in CALLED.items() if not op.loss)]
    now = RENAMED.get(name, name)
    help = _elsewhere(now) or did_you_mean(now, blocks)
    return Diagnostic("unknown-name", f"there is no block `{name}`", span, help=help)


def unknown_choice(name: ast.Name) -> Diagnostic | None:
    """A name that a choice is compared with; None if it is an option of some operator."""
    known = {
        "none",
        *CALLED,
        *(c for op in CALLED.values() for p in op.params for c in p.choices),
    }
    if name.id in known:
        return None
    help = did_you_mean(name.id, known)
    return Diagnostic("unknown-name", f"no option is named `{name.id}`", name.span, help=help)


def unknown_option(
    callee: str, params: tuple[Param, ...], at: Param, name: Symbol, names: Iterable[str]
) -> Diagnostic:
    """A bare name as an argument, neither bound nor an option of the callee.

    By its order it is for the parameter `at`.
    """
    options = [c for p in params for c in p.choices]
    options += [p.name for p in params if p.kind is Kind.BOOL]
    help = did_you_mean(name.name, [*options, *names])
    expected = listing(at.choices) or f"{at.kind.value} for `{at.name}`"
    return Diagnostic(
        "unknown-name",
        f"`{name.name}` is not defined here and is not an option of `{callee}`",
        name.span,
        expected=None if help else expected,
        help=help,
    )


def _elsewhere(name: str) -> str | None:
    """A help line for a name that is defined elsewhere."""
    for path in library_specs():
        if re.search(rf"^block {re.escape(name)}\(", path.read_text("utf-8"), re.MULTILINE):
            return f'it is in the standard library: add `use "{path.name}"`'
    for op in CALLED.values():
        if name in (c for p in op.params for c in p.choices) and not op.loss:
            return f"it is an option of `{op.name}`: `{op.name}(…, {name})`"
    return None
