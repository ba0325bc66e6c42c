"""SVG -> a page of HTML in one file, which shows what a box is when the pointer is on it."""

from __future__ import annotations

from html import escape
from importlib.resources import files

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{css}
body {{ margin: 0; padding: 1rem; font-family: Helvetica, Arial, sans-serif; text-align: center;
  background: #ffffff; color: #1a1a1a }}
svg {{ max-width: 100%; height: auto }}
@media (prefers-color-scheme: dark) {{ body {{ background: #16181c; color: #f2f2f2 }} }}
</style>
</head>
<body>
<h1>{title}</h1>
{svg}
<script type="module">
{js}
attach(document.querySelector("svg"));
</script>
</body>
</html>
"""


def page(title: str, svg: str) -> str:
    """The text of the page; it loads nothing else."""
    css, js = asset("figure.css"), asset("figure.js").replace("export function", "function")
    return _PAGE.format(title=escape(title), svg=svg, css=css, js=js)


def asset(name: str) -> str:
    """The text of a file that pages with figures hold, such as `figure.js`: an ES module whose
    `attach(svg)` makes a figure answer to the pointer and the keyboard."""
    return files("archdsl.figure").joinpath("assets", name).read_text(encoding="utf-8")
