"""The page of a report: one file of HTML, which loads nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any

import archdsl
from archdsl.describe.breakdown import shorten
from archdsl.figure.page import asset
from archdsl.graph.cost import format_bytes, format_count
from archdsl.report.markup import formula, sizes_at, table
from archdsl.report.plot import Curve, plot
from archdsl.report.timing import timing

Data = Mapping[str, Any]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: a report</title>
<style>
{css}
</style>
</head>
<body>
{body}
<script type="module">
{js}
for (const svg of document.querySelectorAll("svg.archdsl")) attach(svg);
for (const table of document.querySelectorAll("table.sortable")) sortable(table);
</script>
</body>
</html>
"""


def report_page(data: Data, figure: str, command: str) -> str:
    """The page of a report's data and the SVG of the model's figure.

    `command` is the command line that reports on this model, which the page shows.
    """
    css = asset("figure.css") + _asset("report.css")
    js = (asset("figure.js") + _asset("table.js")).replace("export function", "function")
    body = "\n".join(_sections(data, figure, command))
    return _PAGE.format(title=escape(data["facts"]["model"]), css=css, js=js, body=body)


def _asset(name: str) -> str:
    return files("archdsl.report").joinpath("assets", name).read_text(encoding="utf-8")


def _sections(data: Data, figure: str, command: str) -> Iterator[str]:
    facts = data["facts"]
    yield f"<header><h1>{escape(facts['model'])}</h1>"
    yield f'<p class="quiet"><code>{escape(command)}</code>, archdsl {archdsl.__version__}</p>'
    yield f"{_tiles(data)}</header>"
    yield _heading("Architecture")
    yield _architecture(data, figure)
    yield _heading("Blocks")
    yield from _blocks(data)
    yield _heading("FLOPs and memory")
    yield from _costs(data)
    yield _heading("Cache")
    yield from _cache(data)
    if "programs" in data:
        yield _heading("Program")
        yield from _programs(data["programs"])
    yield _heading("Time")
    yield from timing(data, command)


def _heading(text: str) -> str:
    return f'<h2 id="{text.split()[0].lower()}">{text}</h2>'


# -- the model --


def _tiles(data: Data) -> str:
    facts, cache = data["facts"], data["cache"]
    at = sizes_at(facts["sizes"])
    tiles = [
        ("parameters", f"{facts['params']:,}", ""),
        ("weights", format_bytes(facts["weight_bytes"]), "float32"),
        ("forward pass", format_count(facts["flops"], "FLOP"), at),
        (
            "activations",
            format_bytes(facts["activation_bytes"]),
            f"at their peak{at and ', '}{at}",
        ),
    ]
    if "states" in cache:
        each = format_bytes(cache["bytes_per_token"])
        tiles.append(("cache", format_bytes(cache["bytes"]), f"{each} per token"))
    return (
        '<dl class="tiles">'
        + "".join(
            f'<div><dt>{name}</dt><dd>{value}</dd><span class="note">{note}</span></div>'
            for name, value, note in tiles
        )
        + "</dl>"
    )


def _architecture(data: Data, figure: str) -> str:
    facts = data["facts"]
    rows = [(f"input <b>{escape(n)}</b>", escape(t)) for n, t in facts["inputs"].items()]
    rows += [(f"output <b>{escape(n)}</b>", escape(t)) for n, t in facts["outputs"].items()]
    rows += [
        (escape(name), escape(text))
        for name, text in data["features"].items()
        if text != "none"
        and name not in ("parameters", "flops")  # stand above
        and not name.startswith(("input ", "output "))
    ]
    # A wide figure, such as an encoder beside its decoder, stands above its table.
    high, wide = (
        float(size) for size in re.findall(r'(?:height|width)="([\d.]+)pt"', figure)[1::-1]
    )
    return (
        f'<div class="pair{" wide" if wide > high else ""}"><figure>{figure}</figure>'
        f"{table(('', ''), rows)}</div>"
    )


def _blocks(data: Data) -> Iterator[str]:
    if not data["blocks"]:
        yield "<p>No block has parameters or FLOPs.</p>"
        return
    at = sizes_at(data["facts"]["sizes"])
    yield (
        '<p class="quiet">All layers of a block together'
        + (f"; FLOPs at {at}" if at else "")
        + ". A click on a heading sorts.</p>"
    )
    heads = "".join(
        f'<th class="number"><button type="button">{name}</button></th>'
        for name in ("parameters", "share", "FLOPs", "share")
    )
    rows = "\n".join(map(_block_row, data["blocks"]))
    yield (
        f'<div class="scroll"><table class="sortable"><thead><tr><th>block</th>{heads}'
        f"<th>formula of its FLOPs</th></tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _block_row(part: Data) -> str:
    cells = [
        f'<th style="padding-left:{0.6 + 1.2 * part["level"]:g}rem" '
        f'title="{escape(part["path"])}">{escape(shorten(part["name"]))}</th>'
    ]
    for number, share, text in (
        (part["params"], part["params_share"], f"{part['params']:,}"),
        (part["flops"], part["flops_share"], format_count(part["flops"], "FLOP")),
    ):
        cells.append(
            f'<td class="number" data-value="{number}">{text if number else ""}</td>'
            f'<td class="number bar" style="--share:{share:.1%}" data-value="{share}">'
            f"{f'{share:.1%}' if number else ''}</td>"
        )
    cells.append(f"<td>{formula(part['flops_formula']) if part['flops'] else ''}</td>")
    return f'<tr data-level="{part["level"]}">{"".join(cells)}</tr>'


# -- its cost --


def _costs(data: Data) -> Iterator[str]:
    facts = data["facts"]
    yield (
        f"<p>One forward pass of one example takes {formula(facts['flops_formula'])} FLOPs: "
        "two for each multiply-add of matrix products and attention. A batch of <i>b</i> "
        "takes <i>b</i> times the FLOPs, the activations and the cache, and the same weights. "
        "Bytes are those of float32. Activations are the most values alive at once, with all "
        "scores of an attention.</p>"
    )
    for curve in data["curves"]:
        yield from _curve(curve)


def _curve(curve: Data) -> Iterator[str]:
    axis, sizes = curve["axis"], curve["sizes"]
    at = sizes_at(curve["others"])
    where = f"over <i>{escape(axis)}</i>" + (f", at {at}" if at else "")
    powers = {
        int(power): values
        for power, values in curve["flops_by_power"].items()
        if max(values) > 0
    }
    work = [Curve("all", "all", tuple(curve["flops"]))]
    if len(powers) > 1:
        work += [
            Curve(_power(axis, power), f"power-{min(power, 3)}", tuple(values))
            for power, values in powers.items()
        ]
    memory = [
        Curve(name, name, tuple(curve[key]))
        for name, key in (
            ("weights", "weight_bytes"),
            ("activations", "activation_bytes"),
            ("cache", "cache_bytes"),
        )
        if max(curve[key])
    ]
    yield '<div class="plots">'
    for title, curves, write, stacked in (
        ("FLOPs", work, format_count, False),
        ("Memory", memory, lambda n: format_count(n, "B"), True),
    ):
        if any(max(each.values) for each in curves):
            svg = plot(title, axis, sizes, curves, write, stacked)
            yield f"<figure><figcaption>{title} {where}</figcaption>{svg}</figure>"
    yield "</div>"
    rows = zip(
        (f"{size:,}" for size in sizes),
        (format_count(n, "FLOP") for n in curve["flops"]),
        *(map(format_bytes, map(int, each.values)) for each in memory),
        strict=True,
    )
    heads = (f"<i>{escape(axis)}</i>", "FLOPs", *(each.name for each in memory))
    numbers = table(heads, rows, frozenset(range(len(heads))))
    yield f"<details><summary>The numbers {where}</summary>{numbers}</details>"


def _power(axis: str, power: int) -> str:
    """What grows with a power of an axis.

    >>> _power("T", 2), _power("T", 1), _power("T", 0)
    ('T²', 'T', 'constant')
    """
    if power < 2:
        return axis if power else "constant"
    return axis + str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _cache(data: Data) -> Iterator[str]:
    cache = data["cache"]
    if "not_decoded" in cache:
        reason = re.sub("`(.+?)`", r"<code>\1</code>", escape(cache["not_decoded"]))
        yield f"<p>Nothing is decoded token by token: {reason}.</p>"
        return
    axis = f"<i>{escape(cache['axis'])}</i>"
    yield (
        f"<p>Decoding along {axis} keeps {format_bytes(cache['bytes_per_token'])} for each "
        f"token, and {format_bytes(cache['bytes'])} in all at "
        f"{sizes_at(data['facts']['sizes'])}.</p>"
    )
    rows = (
        (
            f'<span class="path" title="{escape(state["path"])}">'
            f"{escape(shorten(state['path']))}</span>",
            f"{state['layers']:,}",
            escape(state["type"]),
            _kept(state),
            format_bytes(state["bytes_per_token"]) if state["bytes_per_token"] else "",
            format_bytes(state["bytes"]),
        )
        for state in cache["states"]
    )
    heads = ("value", "layers", "type in a layer", "kept", "per token", "in all")
    yield table(heads, rows, frozenset({1, 4, 5}))


def _kept(state: Data) -> str:
    match state["kind"]:
        case "carried":
            return "one state, replaced by each token"
        case "once":
            return "computed once"
    span = f"the last {state['window']:,}" if state["window"] else "all"
    what = "one latent of all heads, " if state["latent"] else ""
    return f"{what}{span} positions"


# -- its programs --


def _programs(programs: Iterable[Data]) -> Iterator[str]:
    yield (
        '<p class="quiet">The kernels of archdsl on a CPU in float32, for one row, as '
        "<code>archdsl show --emit program</code> prints them. Other operators are left to "
        "tinygrad, which fuses them into kernels of its own.</p>"
    )
    for program in programs:
        sizes = {"B": program["batch"], **program["sizes"]}
        yield f"<h3>{escape(program['title'])}, {sizes_at(sizes)}</h3>"
        rows = [
            (
                f"<code>{escape(each['kernel'])}</code>",
                f"{each['launches']:,}",
                _counted(each["operators"]),
                _counted(each["fused"]),
            )
            for each in program["kernels"]
        ]
        if program["tinygrad"]:
            rows.append(("tinygrad", "", _counted(program["tinygrad"]), ""))
        yield table(("kernel", "launches", "operators", "fused into it"), rows, frozenset({1}))
        yield (
            "<details><summary>The program, line by line</summary>"
            f"<pre>{escape(program['text'])}</pre></details>"
        )


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {escape(name)}" for name, count in numbers.items())
