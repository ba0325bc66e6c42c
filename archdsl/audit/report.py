"""All checks of an audit."""

from __future__ import annotations

from collections.abc import Collection

from archdsl.audit import fields, generation, templates, tokens, weights
from archdsl.audit.findings import Finding, Findings
from archdsl.audit.opened import open_all

_CHECKS = (fields.check, weights.check, tokens.check, templates.check, generation.check)


def audit(path: str, ignore: Collection[str] = ()) -> list[Finding]:
    """Returns what a loader could do wrong with a folder or a GGUF file, the worst first.

    All weights are read. Raises `ArchError` "file" if there is no such folder or file.
    """
    findings = Findings()
    opened = open_all(path, ignore, findings)
    for check in _CHECKS:
        check(opened, findings)
    return findings.sorted()
