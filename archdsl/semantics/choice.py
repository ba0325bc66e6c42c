"""Selects a model of a file, and a variant of it."""

from __future__ import annotations

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.syntax import ast


def choose(file: ast.File, variant: str | None) -> tuple[ast.Model, ast.Variant | None]:
    """The model and variant of this name; without a name, the only model of the file."""
    models = [item for item in file.items if isinstance(item, ast.Model)]
    variants = [item for item in file.items if isinstance(item, ast.Variant)]
    path = file.span.source.path
    if variant is not None:
        chosen = next((v for v in variants if v.name.id == variant), None)
        if chosen is None:
            by_name = next((m for m in models if m.name.id == variant), None)
            if by_name:
                return by_name, None
            names = [v.name.id for v in variants] + [m.name.id for m in models]
            blocks = [item.name.id for item in file.items if isinstance(item, ast.Block)]
            fail(
                "model",
                f"`{path}` has no variant `{variant}`",
                expected=listing(names) if names else None,
                help="it is a block, which only `archdsl draw` takes"
                if variant in blocks
                else did_you_mean(variant, [*names, *blocks]),
            )
        model = next((m for m in models if m.name.id == chosen.call.callee.id), None)
        if model is None:
            names = [m.name.id for m in models]
            fail(
                "unknown-name",
                f"there is no model `{chosen.call.callee.id}` in this file",
                chosen.call.callee.span,
                expected=listing(names) if names else None,
                help=did_you_mean(chosen.call.callee.id, names),
            )
        return model, chosen
    if not models:
        fail(
            "model",
            f"`{path}` has no model",
            help="declare one: `model Name(…) { … }`",
        )
    if len(models) > 1:
        names = [m.name.id for m in models]
        fail(
            "model",
            f"`{path}` has {len(models)} models",
            expected=listing(names),
            help=f"add the name of one: `{path}:{names[0]}`",
        )
    return models[0], None
