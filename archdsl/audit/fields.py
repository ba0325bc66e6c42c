"""Fields of the config: those that are assumed, not read, or read by nobody."""

from __future__ import annotations

from archdsl.audit.findings import NOTE, RISKY, Findings, some
from archdsl.audit.opened import Opened
from archdsl.published.config_values import is_named, quote, value_of
from archdsl.published.configs import decided_by_tensors
from archdsl.published.tensor_fields import is_tensor_field
from archdsl.published.weight_maps import active_lines
from archdsl.syntax import ast

_TIES = "tie_word_embeddings"


def check(opened: Opened, findings: Findings) -> None:
    if opened.known is None or opened.analysis is None:
        return
    block = opened.analysis.maps[opened.known.title].config
    if block is None:
        return
    fields = opened.fields()
    for name, value in _assumed(block, opened).items():
        if name.endswith(_TIES):
            # Tensors that do not fit are a finding of their own.
            findings.add(
                RISKY if opened.weights is None else NOTE,
                opened.name("config.json", name),
                "missing, and the defaults of loaders differ",
                f"takes {quote(value)}, the default of `{opened.known.path.name}`",
            )
    free = _any_value(block, opened)
    unread = [name for name in fields if name in free and fields[name] is not None]
    if unread:
        findings.add(
            NOTE,
            opened.name("config.json", some(unread)),
            "read by other loaders; the result of the model does not depend on it",
            "does not read it",
        )
    if opened.known.ignored:
        findings.add(
            RISKY,
            opened.name("config.json", some(list(opened.known.ignored))),
            "not known to the spec; the model may depend on it",
            "ignores it, because `--ignore` names it",
        )


def _lines(block: ast.Config, opened: Opened) -> list[ast.Setting]:
    """The lines of a block that apply to the model."""
    assert opened.analysis
    lines = active_lines(block.rules, opened.analysis.elaborator, opened.analysis.env)
    return [line for line in lines if isinstance(line, ast.Setting)]


def _any_value(block: ast.Config, opened: Opened) -> set[str]:
    """The fields that a block accepts with any value."""
    lines = [line for line in _lines(block, opened) if is_named(line.value, "any")]
    return {name.id for line in lines for name in line.fields}


def _assumed(block: ast.Config, opened: Opened) -> dict[str, object]:
    """The fields that a config does not have, with the values that the block assumes."""
    assert opened.analysis
    fields, work, env = opened.fields(), opened.analysis.elaborator, opened.analysis.env
    return {
        line.fields[0].id: value_of(line.value, work, env)
        for line in _lines(block, opened)
        if line.default is not None
        if not decided_by_tensors(line) and not is_tensor_field(line.fields[0].id)
        if all(fields.get(name.id) is None for name in line.fields)
        if line.null is None or not any(name.id in fields for name in line.fields)
    }
