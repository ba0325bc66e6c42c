"""How much longer a `tokenizer.json` can make a text.

Each step of a tokenizer may replace a letter by several, and forty steps in a row may double a
text forty times. The package `tokenizers` has no limit, so such files are refused before use.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from archdsl.diagnostics import fail

Growth: TypeAlias = tuple[float, float]

_MOST, _MOST_ADDED = 1000, 100_000
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")


def parts(library: Any) -> dict[str, Any]:
    """Returns the parts of a `tokenizers.Tokenizer` but its model, as in `tokenizer.json`."""
    found = {name: getattr(library, name) for name in _PARTS}
    return {name: each and json.loads(each.__getstate__()) for name, each in found.items()}


def check_growth(library: Any, path: Path) -> None:
    """Reports a part of a tokenizer that can make a text more than 1000 times longer."""
    for name, part in parts(library).items():
        factor, added = _growth(part)
        if factor > _MOST or added > _MOST_ADDED:
            fail(
                "tokenizer",
                f"{path}: the {name} can make a text too long",
                expected=f"at most {_MOST} times as long, and {_MOST_ADDED} characters more",
                found=f"{factor:.3g} times as long, and {added:.3g} characters more",
                help=f"remove repeated steps from `{name}`",
            )


def _growth(part: Any) -> Growth:
    """Returns f and a: n letters become at most f * n + a."""
    match part:
        case {"type": "Sequence"}:
            factor, added = 1.0, 0.0
            for step in next((part[name] for name in _LISTS if name in part), ()):
                f, a = _growth(step)
                factor, added = f * factor, f * added + a
            return factor, added
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old:
            return max(1.0, len(new) / len(old)), 0.0
        case {"type": "Replace", "content": str(new)}:  # an expression may match nothing
            return 1.0 + len(new), float(len(new))
        case {"type": "Prepend", "prepend": str(new)}:
            return 1.0, float(len(new))
        case {"type": "Precompiled", "precompiled_charsmap": str(data)}:
            return _longest_replacement(base64.b64decode(data)), 0.0
        case {"type": "ByteLevel"}:  # half of the bytes become letters of two bytes
            return 2.0, 1.0
        case {"type": "TemplateProcessing", "single": list(single)}:
            return _template_growth(single, part.get("special_tokens") or {})
    return 1.0, 0.0


def _template_growth(single: list[Any], tokens: Mapping[str, Any]) -> Growth:
    added = 0
    for each in single:
        name = each.get("SpecialToken", {}).get("id")
        added += len(tokens.get(name, {}).get("ids", ()))
    return float(sum("Sequence" in each for each in single)), float(added)


def _longest_replacement(table: bytes) -> float:
    """Returns the bytes of the longest replacement in a table of SentencePiece.

    The table is the size of a trie in four bytes, the trie, and texts that end with a zero.
    """
    texts = table[4 + int.from_bytes(table[:4], "little") :]
    return float(max(map(len, texts.split(b"\0")), default=1) or 1)
