"""Names that mean nothing where they stand: what a message says of them, and the likely fix."""

from __future__ import annotations

import re
from collections.abc import Iterable

from archdsl.diagnostics import Diagnostic, Span, did_you_mean, listing
from archdsl.graph.ops import OPS, RENAMED
from archdsl.graph.signature import Kind, Param
from archdsl.semantics.library import Scope, standard_library
from archdsl.semantics.values import Symbol
from archdsl.syntax import ast


def no_value(name: str, span: Span, names: Iterable[str], scope: Scope) -> Diagnostic:
    """A name that stands for a number or a tensor and is neither; `names` are bound here."""
    if name in OPS or name in scope.blocks:
        return Diagnostic(
            "not-a-tensor",
            f"`{name}` is a block, and a value is needed here",
            span,
            help=f"bring a tensor in: `x -> {name}`",
        )
    help = did_you_mean(name, names)
    return Diagnostic("unknown-name", f"nothing is named `{name}` here", span, help=help)


def no_block(name: str, span: Span, scope: Scope) -> Diagnostic:
    """A name that stands for a block and is none."""
    if name in OPS and OPS[name].loss:
        help: str | None = f"a loss stands alone: `loss {OPS[name].example}`"
        return Diagnostic("not-a-block", f"`{name}` is a loss", span, help=help)
    blocks = [*scope.blocks, *(n for n, op in OPS.items() if not op.loss)]
    help = _elsewhere(name) or did_you_mean(RENAMED.get(name, name), blocks)
    return Diagnostic("unknown-name", f"there is no block `{name}`", span, help=help)


def no_choice(name: ast.Name) -> Diagnostic | None:
    """What to say of a name that a choice is compared with, unless it can be chosen."""
    known = {"none", *OPS, *(c for op in OPS.values() for p in op.params for c in p.choices)}
    if name.id in known:
        return None
    help = did_you_mean(name.id, known)
    return Diagnostic("unknown-name", f"nothing can be `{name.id}`", name.span, help=help)


def no_option(
    callee: str, params: tuple[Param, ...], at: Param, name: Symbol, names: Iterable[str]
) -> Diagnostic:
    """An argument that is a bare name, neither bound nor one that its callee knows; by its
    order it is for the parameter `at`."""
    options = [c for p in params for c in p.choices]
    options += [p.name for p in params if p.kind is Kind.BOOL]
    help = did_you_mean(name.name, [*options, *names])
    expected = listing(at.choices) or f"{at.kind.value} for `{at.name}`"
    return Diagnostic(
        "unknown-name",
        f"`{name.name}` is neither bound here nor an option of `{callee}`",
        name.span,
        expected=None if help else expected,
        help=help,
    )


def _elsewhere(name: str) -> str | None:
    """Where a name that is no block in sight means something."""
    for path in sorted(standard_library().glob("*.arch")):
        if re.search(rf"^block {re.escape(name)}\(", path.read_text("utf-8"), re.MULTILINE):
            return f'it is a block of the standard library: `use "{path.name}"`'
    for op in OPS.values():
        if name in (c for p in op.params for c in p.choices) and not op.loss:
            return f"it is an option of `{op.name}`: `{op.name}(…, {name})`"
    return None
