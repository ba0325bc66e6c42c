"""SVG -> a page of HTML in one file, which shows what a box is when the pointer is on it."""

from __future__ import annotations

from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 0; padding: 1rem; font-family: Helvetica, Arial, sans-serif; text-align: center;
  background: #ffffff; color: #1a1a1a }}
svg {{ max-width: 100%; height: auto }}
g[data-id]:hover > .box, g[data-id]:hover > .sign {{ stroke-width: 2 }}
#facts {{ position: fixed; display: none; max-width: 26rem; padding: .5rem .7rem;
  text-align: left; white-space: pre-wrap; font-size: .8rem; line-height: 1.35;
  border-radius: .3rem;   background: #1a1a1a; color: #f2f2f2; pointer-events: none }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #16181c; color: #f2f2f2 }}
  #facts {{ background: #f2f2f2; color: #1a1a1a }}
}}
</style>
</head>
<body>
<h1>{title}</h1>
{svg}
<div id="facts" role="tooltip"></div>
<script>
const facts = document.getElementById("facts");
for (const group of document.querySelectorAll("svg g[data-id]")) {{
  const title = group.querySelector("title");
  if (!title) continue;
  const text = title.textContent;
  title.remove();
  group.setAttribute("aria-label", text);
  group.addEventListener("pointermove", event => {{
    facts.textContent = text;
    facts.style.display = "block";
    const x = Math.min(event.clientX + 14, innerWidth - facts.offsetWidth - 8);
    const y = Math.min(event.clientY + 14, innerHeight - facts.offsetHeight - 8);
    facts.style.left = x + "px";
    facts.style.top = y + "px";
  }});
  group.addEventListener("pointerleave", () => facts.style.display = "none");
}}
</script>
</body>
</html>
"""


def page(title: str, svg: str) -> str:
    """The text of the page; it loads nothing else."""
    return _PAGE.format(title=escape(title), svg=svg)
