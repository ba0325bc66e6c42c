"""The files of the playground's page, for a folder or a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeAlias

from archdsl.diagnostics import CODES, page
from archdsl.editor.textmate import textmate
from archdsl.figure.page import asset
from archdsl.semantics.library import first_comment, library_specs, read_text_file

Engine: TypeAlias = Literal["browser", "server"]

ASSETS = Path(__file__).parent / "assets"
# The first examples; the first of them is what the page opens.
_BASICS = ("gpt.arch", "transformer.arch", "vaswani2017.arch", "vit.arch", "blocks.arch")
# The files that only one engine needs.
_OF: dict[str, Engine] = {
    "worker.js": "browser",
    "server.js": "server",
    "run.js": "server",
    "run.css": "server",
}


def site_files(engine: Engine) -> dict[str, bytes]:
    """The content of each file by its path below the page, but for Python in the browser.

    `engine` is what answers the page: "browser" or "server", at /api/inspect.
    """
    found = {
        each.name: each.read_bytes()
        for each in ASSETS.iterdir()
        if _OF.get(each.name, engine) == engine
    }
    html = found["index.html"].decode()
    found["index.html"] = html.replace(
        'data-engine="browser"', f'data-engine="{engine}"'
    ).encode()
    found |= {name: asset(name).encode() for name in ("figure.js", "figure.css", "formula.js")}
    found["grammar.json"] = _json(textmate())
    found["examples.json"] = _json(examples())
    found |= {f"errors/{code}.md": page(code).read_bytes() for code in CODES}
    found |= {f"specs/{each.name}": each.read_bytes() for each in library_specs()}
    return found


def examples() -> dict[str, list[dict[str, str]]]:
    """The specs of the library in groups, each with its file and a title from its comment.

    >>> examples()["First"][0]
    {'file': 'gpt.arch', 'title': 'GPT'}
    """
    titles = {each.name: _title(read_text_file(each)) for each in library_specs()}
    first = [{"file": name, "title": titles.pop(name)} for name in _BASICS]
    others = sorted(titles.items(), key=lambda each: each[1].casefold())
    return {"First": first, "Library": [{"file": n, "title": title} for n, title in others]}


def _title(text: str) -> str:
    """What the first comment names: its words before the colon, or its first sentence."""
    comment = " ".join(first_comment(text))
    return min((comment.split(mark)[0] for mark in (":", ". ", ", ", " (")), key=len)


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False).encode()
