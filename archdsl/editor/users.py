"""The uses of a name in the other files of the folder."""

from __future__ import annotations

import re
from collections.abc import Iterator

from archdsl.diagnostics import ArchError, Span
from archdsl.editor.document import Document, Version
from archdsl.editor.hover import declaration
from archdsl.semantics.library import read_text_file
from archdsl.syntax import ast


def users(version: Version, defined: Span) -> Iterator[tuple[Version, list[Span]]]:
    """Each other file that uses a definition of this one, and its uses.

    The files are read from the disk; while this one is not saved, none is found.
    """
    name = _exported(version, defined)
    place = version.span_of(defined)
    for path in sorted(version.path.parent.glob("*.arch")) if name else ():
        try:
            text = "" if path.name == version.path.name else read_text_file(path)
        except ArchError:
            continue
        if not re.search(rf"\b{re.escape(name)}\b", text):
            continue
        other = Document(path, text).version
        uses = [use for use in other.references if other.is_own(use)]
        found = [use for use in uses if other.references.definition(use) == place]
        if found:
            yield other, found


def _exported(version: Version, defined: Span) -> str:
    """The text that each file has which uses a definition; "" if no other file can."""
    node, item = declaration(version, defined)
    if isinstance(node, ast.SharedLines):
        return node.title.value
    visible = isinstance(item, ast.Block) and isinstance(node, ast.Block | ast.Param)
    return item.name.id if item and visible else ""
