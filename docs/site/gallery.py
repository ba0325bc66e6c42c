"""The gallery: a page for each spec, and one that shows all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from html import escape
from typing import NamedTuple

from archdsl.describe.breakdown import breakdown_at
from archdsl.describe.differences import differences
from archdsl.figure.differences import side_by_side
from archdsl.figure.drawing import Drawing
from archdsl.figure.layout import layout
from archdsl.figure.svg import svg
from archdsl.graph.cost import Cost, format_bytes
from docs.site import lineage
from docs.site.links import Page, fenced, raw
from docs.site.specs import Model, Spec

KINDS = {
    "decoder": "predicts the next token",
    "encoder": "does not predict the next token",
    "encoder-decoder": "predicts the next token, and attends to another sequence",
    "vision": "reads an image as patches",
    "state": "keeps a state of fixed size along the sequence",
    "mixture": "has experts, of which each position uses a few",
}
INTRODUCTION = """\
# Gallery

The {count} architectures of the standard library. Their specs alone give figures and facts.
`archdsl check gpt2.arch:xl` finds each spec from any folder. [Architectures](docs/zoo.md) says
how closely their outputs agree with those of published models.
"""


class Subject(NamedTuple):
    """What a page of the gallery is about: a spec, its parents and why, its children."""

    spec: Spec
    parents: list[tuple[Spec, str]]
    children: list[tuple[str, str]]  # their titles and files


def pages(specs: list[Spec], pool: Executor) -> list[Page]:
    """The page of each spec, and the one of all specs, which is that of the folder."""
    known, parents = {each.file: each for each in specs}, lineage.parents(specs)
    children: dict[str, list[tuple[str, str]]] = {each.file: [] for each in specs}
    for file, found in parents.items():
        for parent in found:
            children[parent.file].append((known[file].title, file))
    subjects = [
        Subject(
            each,
            [(known[parent.file], parent.why) for parent in parents.get(each.file, ())],
            children[each.file],
        )
        for each in specs
    ]
    return [Page("specs", "gallery/index.md", index(specs)), *pool.map(page, subjects)]


def page(subject: Subject) -> Page:
    file = subject.spec.file
    text = "\n\n".join(_page(*subject)) + "\n"
    return Page(f"specs/{file}", f"gallery/{file.removesuffix('.arch')}.md", text)


def index(specs: Iterable[Spec]) -> str:
    shown = sorted((s for s in specs if s.models), key=lambda s: (s.year or 9999, s.title))
    buttons = "".join(
        f'<button type="button" data-kind="{kind}" aria-pressed="false" title="{about}">{kind}'
        f" <small>{sum(kind in each.kinds for each in shown)}</small></button>"
        for kind, about in KINDS.items()
    )
    blocks = "\n".join(
        f"- [{each.file}](specs/{each.file}): {each.comment.splitlines()[0]}"
        for each in specs
        if not each.models
    )
    cards = "\n".join(map(_card, shown))
    return "\n".join(
        [
            INTRODUCTION.format(count=len(shown)),
            f'<div class="kinds" role="group" aria-label="Show only">{buttons}</div>',
            f'<div class="cards">\n{cards}\n</div>',
            "\n## Files of blocks\n",
            blocks,
            "",
        ]
    )


def _card(spec: Spec) -> str:
    drawing = layout(spec.models[0].small)
    picture = svg(drawing).replace("\n", "")
    facts = " · ".join(filter(None, [str(spec.year or ""), _parameters(spec)]))
    return (
        f'<a class="card" href="specs/{spec.file}" data-kinds="{" ".join(sorted(spec.kinds))}">'
        f'<span class="figure" aria-hidden="true">{picture}</span>'
        f"<strong>{escape(spec.title)}</strong><small>{facts}</small></a>"
    )


def _parameters(spec: Spec) -> str:
    """Those of the smallest and of the largest size."""
    counts = [size.cost.params for size in spec.sizes]
    return " to ".join(dict.fromkeys(map(short, (min(counts), max(counts))))) if counts else ""


def short(count: int) -> str:
    """A number of parameters, as papers print it.

    >>> short(124_439_808), short(6_738_415_616), short(44_880), short(671_026_419_200)
    ('124M', '6.7B', '45k', '671B')
    """
    for unit, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit * 0.9995:
            size = count / unit
            return f"{size:.1f}{sign}" if size < 9.95 else f"{size:.0f}{sign}"
    return str(count)


def _page(
    spec: Spec, parents: list[tuple[Spec, str]], children: list[tuple[str, str]]
) -> Iterator[str]:
    first, *others = spec.models or (None,)
    yield f"# {spec.title}"
    yield from spec.about.splitlines()
    facts = _facts(spec, parents, children)
    drawn = _drawn(layout(first.figure)) if first else ""
    yield f'<div class="about" markdown>\n\n{facts}\n\n{drawn}\n\n</div>'
    for model in others:
        yield f"## {model.name}"
        yield _drawn(layout(model.figure))
    if spec.sizes:
        yield "## Sizes"
        yield _sizes(spec)
    for model in spec.models:
        yield "## Blocks" + (f" of {model.name}" if others else "")
        yield _parts(model)
    for parent, why in parents:
        yield f"## Differences from {parent.title}"
        yield f"[{parent.title}]({parent.file}) is a parent: {why}."
        yield from _differences(parent.models[0], spec.models[0])
    for model in others:
        yield f"## Differences of {model.name} from {spec.models[0].name}"
        yield from _differences(spec.models[0], model)
    yield "## Spec"
    yield fenced(spec.text, "{.arch .spec linenums=1}")


def _facts(spec: Spec, parents: list[tuple[Spec, str]], children: list[tuple[str, str]]) -> str:
    first = spec.sizes[0] if spec.sizes else None
    rows = {
        "Year": str(spec.year or ""),
        "Source": spec.source,
        "Parameters": _parameters(spec),
        "Context": first.context if first else "",
        "Cache": _cache(first.cost) if first else "",
        "Kind": ", ".join(kind for kind in KINDS if kind in spec.kinds),
        "Models": ", ".join(model.name for model in spec.models),
        "Parents": _links((parent.title, parent.file) for parent, _ in parents),
        "Children": _links(children),
        "Uses": _links((file, file) for file in spec.uses),
        "Check": f"`archdsl check {spec.file}`",
    }
    return "\n\n".join(f"{name}\n:   {text}" for name, text in rows.items() if text)


def _links(specs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"[{title}]({file})" for title, file in specs)


def _drawn(drawing: Drawing) -> str:
    return raw(f'<div class="drawn">{svg(drawing)}</div>')


def _sizes(spec: Spec) -> str:
    several = len(spec.models) > 1
    head = ("size", *(["model"] if several else []), "parameters", "weights", "context")
    rows = [
        (
            f"`{size.name}`",
            *([size.model] if several else []),
            f"{size.cost.params:,}",
            format_bytes(size.cost.weight_bytes),
            size.context,
            _cache(size.cost),
            format_bytes(size.cost.cache_bytes) if size.cost.cache_bytes else "",
        )
        for size in spec.sizes
    ]
    note = "Bytes are those of float32. The cache is what decoding keeps of earlier positions."
    return table((*head, "cache", "cache in all"), rows) + f"\n\n{note}"


def _cache(cost: Cost) -> str:
    """The bytes that a cache grows by with each position, along each axis."""
    terms = cost.cache_formula.terms
    grows = [(axes[0], count) for axes, count in terms if len(axes) == 1]
    texts = [f"{count:,} bytes for each {axis}" for axis, count in grows]
    return ", ".join(texts) or ("of fixed size" if cost.cache_bytes else "")


def _parts(model: Model) -> str:
    rows = [
        (
            "&emsp;" * each.part.level + f"`{each.part.name}`",
            f"{each.part.params:,}" if each.part.params else "",
            f"{each.params_share:.1%}" if each.part.params else "",
            f"`{each.part.flops}`" if each.flops else "",
            f"{each.flops_share:.1%}" if each.flops else "",
        )
        for each in breakdown_at(model.graph, model.graph.bounds)
    ]
    return table(("block", "parameters", "share", "flops", "share"), rows)


def _differences(left: Model, right: Model) -> Iterator[str]:
    words = differences(left.graph, right.graph)
    rows = [(name, escape(ours), escape(theirs)) for name, (ours, theirs) in words.items()]
    yield table(("", left.name, right.name), rows)
    yield _drawn(side_by_side(left.figure, right.figure))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown; a cell may have `|`."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    texts = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    ]
    return "\n".join([texts[0], "| --- " * len(lines[0]) + "|", *texts[1:]])
