"""Hover, completion, navigation, outline, hints and fixes at marked places of a text.

`‸` marks a place in the texts of these tests.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from archdsl.diagnostics import ArchError
from archdsl.editor.completion import completions
from archdsl.editor.document import Document
from archdsl.editor.fixes import fixes
from archdsl.editor.hints import hints
from archdsl.editor.hover import hover
from archdsl.editor.navigation import find_definition, find_references, find_renamed, rename
from archdsl.editor.places import Edit, Position
from archdsl.editor.problems import problems
from archdsl.editor.symbols import Symbol, symbols
from archdsl.graph.ops import CALLED
from archdsl.semantics.library import standard_library

TEXT = """\
use "blocks.arch"

# Two sublayers (Vaswani et al. 2017).
block layer(x: float[T, D], heads, causal = false): float[T, D] {
  a = x + (x -> norm(rms, eps = 1e-6) -> attention(heads, causal))
  a + (a -> norm -> gated_mlp(4 * D))
}

model Tiny(vocab = 100, D = 16, heads = 4, depth = 2, task: one_of(lm, tag) = lm) {
  input tokens: int[T <= 32] < vocab

  h = tokens -> tok: embed(vocab, D) -> h: layer(heads, causal) * depth
  output logits: float[T, vocab] if task == lm = h -> unembed(tok)
  output tags: float[T, 3] if task == tag = h -> linear(3)

  loss next_token(logits, tokens) if task == lm
}

variant small = Tiny(depth = 1, task = tag)
"""


def opened(text: str = TEXT) -> Document:
    document = Document(standard_library() / "tiny.arch", text)
    document.finish()
    return document


@pytest.fixture(scope="module")
def tiny() -> Document:
    return opened()


def place(document: Document, before: str, after: str = "") -> Position:
    """The place between two parts of a text, which come together once."""
    text = document.version.text
    assert text.count(before + after) == 1, before + after
    return document.version.lines.position(text.index(before + after) + len(before))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "tok: ",
            "embed",
            ["embed(x: tensor, vocab", "Looks up", "→ `float[T, D = 16]`", "1,600 param"],
        ),
        (
            "-> h: ",
            "layer",
            ["block layer(x: float[T, D], heads", "Two sublayers", "→ `float[T, D = 16]`"],
        ),
        (
            "norm(",
            "rms",
            ["kind: layer | rms | l2 = layer", "value of `kind` of operator `norm`"],
        ),
        ("rms, ", "eps", ["eps: number = 1e-05", "parameter of operator `norm`"]),
        ("output ", "logits", ["logits: float[T, 100]", "output of model `Tiny`"]),
        ("embed(vocab, ", "D", ["D = 16", "parameter of model `Tiny`"]),
        ("  a + (", "a", ["a: float[T, D = 16]", "edge of block `layer`"]),
        ("model ", "Tiny", ["model Tiny(vocab = 100", "parameters"]),
        ("unembed(", "tok", ["tok", "label of model `Tiny`"]),
    ],
)
def test_hover(tiny: Document, before: str, after: str, expected: list[str]) -> None:
    found = hover(tiny, place(tiny, before, after))
    assert found is not None
    for each in expected:
        assert each in found.markdown


def test_hover_of_no_name(tiny: Document) -> None:
    assert hover(tiny, place(tiny, "vocab = ", "100")) is None
    assert hover(tiny, place(tiny, "# Two", " sublayers")) is None


def test_every_operator_has_a_hover() -> None:
    """A call of each, even of one with mistakes, shows its row of the table."""
    names = [op.name for op in CALLED.values() if not op.loss]
    steps = "\n".join(f"  x{number} = x -> {name}" for number, name in enumerate(names))
    document = opened(f"block f(x: float[D]): float[D] {{\n{steps}\n  x\n}}\n")
    for name in names:
        found = hover(document, place(document, "x -> ", f"{name}\n"))
        assert found is not None
        assert f"{name}(" in found.markdown


COMPLETIONS = [
    (
        "-> h: layer(heads, causal) * depth",
        "-> ‸",
        {"layer", "norm", "gated_mlp"},
        {"next_token", "D"},
    ),
    ("norm(rms, eps = 1e-6)", "norm(‸", {"rms", "l2", "eps = ", "heads"}, {"x = "}),
    ("norm(rms, eps = 1e-6)", "norm(kind = l‸", {"layer", "rms"}, {"eps = "}),
    ("norm(rms, eps = 1e-6)", "norm(rms, eps = 1e-6, ‸", {"scale = ", "bias"}, {"eps = "}),
    ("layer(heads, causal) *", "layer(‸) *", {"heads = ", "causal"}, {"eps = "}),
    ("loss next_token(logits, tokens)", "loss ‸", {"next_token", "z_loss"}, {"norm"}),
    ("next_token(logits, tokens)", "next_token(‸", {"logits", "where = "}, {"z_loss"}),
    ("next_token(logits, tokens)", "z_loss(logits) + ‸", {"next_token"}, {"logits"}),
    ("a = x + (x", "a = x + (‸", {"x", "heads", "norm"}, {"loss"}),
    ("block layer(x", "block layer(‸x", set(), {"norm", "x"}),
    ("task == tag", "task == ‸", {"lm", "tag"}, {"norm"}),
    (
        "Tiny(depth = 1, task = tag)",
        "Tiny(depth = 1, ‸)",
        {"vocab = ", "task = "},
        {"depth = "},
    ),
    ("Tiny(depth = 1, task = tag)", "Tiny(task = ‸)", {"lm", "tag"}, {"vocab = "}),
    ("= Tiny(depth", "= ‸ (depth", {"Tiny"}, {"norm"}),
    ('use "blocks.arch"', 'use "‸', {"blocks.arch", "gpt.arch"}, {"tiny.arch"}),
    (
        "  output tags",
        "  ‸\n  output tags",
        {"input", "output", "expect", "h", "tokens"},
        set(),
    ),
    ("  a + (a", "  ‸\n  a + (a", {"weight", "state", "a", "causal"}, {"input", "output"}),
    ("variant small", "‸\nvariant small", {"block", "model", "use"}, {"norm"}),
    ("# Two", "# ‸ Two", set(), {"norm"}),
    ("[T <= 32] < vocab", "[T <= 32] = ‸", {"vocab", "sqrt"}, {"input"}),
    ("  a = x + (x", "  a = ) x ‸ + (x", {"norm", "gated_mlp"}, set()),
]


@pytest.mark.parametrize(
    ("old", "new", "some", "none"), COMPLETIONS, ids=[c[1] for c in COMPLETIONS]
)
def test_completion(old: str, new: str, some: set[str], none: set[str]) -> None:
    assert TEXT.count(old) == 1
    text = TEXT.replace(old, new)
    document = Document(standard_library() / "tiny.arch", text.replace("‸", ""))
    at = document.version.lines.position(text.index("‸"))
    found = {each.text for each in completions(document, at)}
    assert some <= found
    assert not none & found


def test_definitions(tiny: Document) -> None:
    for before, after, defined in [
        ("-> h: ", "layer", "block "),
        ("norm -> ", "gated_mlp", "block "),
        ("embed(vo", "cab, D)", "model Tiny("),
        ("next_token(logits, tokens", ")", "input "),
        ("layer(heads, ", "causal)", "heads, "),  # the switch of the block
        ("unembed(t", "ok)", "tokens -> "),
        ("task == ", "tag", "one_of(lm, "),
        ("small = ", "Tiny", "model "),
        ("task = ", "tag)", "one_of(lm, "),
    ]:
        found = find_definition(tiny.version, place(tiny, before, after))
        assert found is not None, after
        line = found.path.read_text("utf-8") if found.path != tiny.path else TEXT
        start = line.split("\n")[found.range.start.line][: found.range.start.column]
        assert start.endswith(defined), (after, start)
    used = find_definition(tiny.version, place(tiny, 'use "blo', "cks.arch"))
    assert used is not None
    assert used.path == standard_library() / "blocks.arch"


def test_references(tiny: Document) -> None:
    at = place(tiny, "embed(vo", "cab, D)")
    lines = sorted(each.range.start.line for each in find_references(tiny.version, at, True))
    assert lines == [8, 9, 11, 12]
    assert len(find_references(tiny.version, at, False)) == 3


def applied(document: Document, edits: list[Edit] | tuple[Edit, ...]) -> str:
    lines, text = document.version.lines, document.version.text
    for each in sorted(edits, key=lambda e: lines.offset(e.range.start), reverse=True):
        start, end = lines.offset(each.range.start), lines.offset(each.range.end)
        text = text[:start] + each.text + text[end:]
    return text


@pytest.mark.long
def test_renaming(tiny: Document) -> None:
    at = place(tiny, "block la", "yer")
    text = applied(tiny, rename(tiny, at, "sublayers_of")[tiny.path])
    assert text == TEXT.replace("block layer", "block sublayers_of").replace(
        "h: layer(", "h: sublayers_of("
    )
    at = place(tiny, "task == ", "tag")
    text = applied(tiny, rename(tiny, at, "label")[tiny.path])
    assert text == TEXT.replace("lm, tag)", "lm, label)").replace("== tag", "== label").replace(
        "task = tag", "task = label"
    )


def test_names_in_other_files(tmp_path: Path) -> None:
    blocks = "block twice(x: float[D], act = gelu): float[D] {\n  x -> act -> act\n}\n"
    model = 'use "b.arch"\n\nmodel M(D = 2) {\n  input x: float[D]\n'
    model += "  output y: float[D] = x -> twice(act = relu)\n}\n"
    (tmp_path / "a.arch").write_text(model)
    (tmp_path / "b.arch").write_text(blocks)
    (tmp_path / "c.arch").write_text("block twice(x: float[D]): float[D] {\n  x\n}\n")
    document = Document(tmp_path / "b.arch", blocks)
    for new, name in (("two", "twice"), ("function", "act")):
        at = place(document, "block " if name == "twice" else "x: float[D], ", name)
        found = find_references(document.version, at, False)
        assert [each.path.name for each in found].count("a.arch") == 1
        edits = rename(document, at, new)
        assert [each.name for each in edits] == ["b.arch", "a.arch"]
        other = Document(tmp_path / "a.arch", model)
        assert applied(other, edits[other.path]) == model.replace(name, new)
    with pytest.raises(ArchError, match=r"a\.arch would have another meaning"):
        rename(document, place(document, "block ", "twice"), "M")


@pytest.mark.parametrize(
    ("before", "after", "new", "message"),
    [
        (
            "embed(vo",
            "cab, D)",
            "D",
            "with the name `D` for `vocab`, tiny.arch would have another",
        ),
        ("embed(vo", "cab, D)", "2D", "`2D` cannot be a name"),
        ("norm -> ", "gated_mlp", "mlp2", "`gated_mlp` is defined in blocks.arch"),
        ("tok: ", "embed", "table", "there is no name that can be renamed here"),
        ("embed(vo", "cab, D)", "model", "with the name `model` for `vocab`"),
    ],
)
def test_a_name_that_cannot_be_renamed(
    tiny: Document, before: str, after: str, new: str, message: str
) -> None:
    with pytest.raises(ArchError) as caught:
        rename(tiny, place(tiny, before, after), new)
    assert message in str(caught.value)


def test_what_can_be_renamed(tiny: Document) -> None:
    assert find_renamed(tiny.version, place(tiny, "embed(vo", "cab, D)")) is not None
    assert find_renamed(tiny.version, place(tiny, "norm -> ", "gated_mlp")) is None


def outline(found: list[Symbol] | tuple[Symbol, ...], indent: str = "") -> Iterator[str]:
    for each in found:
        yield f"{indent}{each.kind} {each.name} {each.detail}".rstrip()
        yield from outline(each.children, indent + "  ")


def test_outline(tiny: Document) -> None:
    assert list(outline(symbols(tiny.version))) == [
        "use blocks.arch",
        "block layer float[T, D]",
        "  parameter x float[T, D]",
        "  parameter heads",
        "  parameter causal = false",
        "  edge a",
        "model Tiny",
        "  parameter vocab = 100",
        "  parameter D = 16",
        "  parameter heads = 4",
        "  parameter depth = 2",
        "  parameter task one_of(lm, tag) = lm",
        "  input tokens int[T <= 32] < vocab",
        "  edge h",
        "  output logits float[T, vocab]",
        "  output tags float[T, 3]",
        "variant small Tiny",
    ]


def test_an_item_with_a_syntax_error_is_missing_in_the_outline() -> None:
    document = opened(TEXT.replace("block layer(", "block layer(("))
    assert [each.name for each in symbols(document.version)] == ["blocks.arch", "Tiny", "small"]


def test_inlay_hints(tiny: Document) -> None:
    found = [(each.position.line, each.text) for each in hints(tiny, 0, 99)]
    assert found == [(4, ": float[T, D = 16]"), (11, ": float[T, D = 16]")]
    assert hints(tiny, 5, 10) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-> norm -> gated", "-> nrom -> gated"),
        ("next_token(logits, tokens)", "next_token(logits, tokns)"),
        ('"blocks.arch"', '"bloks.arch"'),
        ("eps = 1e-6", "epps = 1e-6"),
    ],
)
def test_fixes_of_misspelt_names(old: str, new: str) -> None:
    document = opened(TEXT.replace(old, new))
    *_, last = document.check()
    found = [
        f for each in problems(document.version, last) for f in fixes(document.version, each)
    ]
    assert applied(document, found[0].edits) == TEXT


def test_a_fix_that_adds_a_use() -> None:
    text = "# A comment.\n\nmodel M(D = 4) {\n  input x: float[3, D]\n"
    text += "  output y: float[3, D] = x -> gated_mlp(2)\n}\n"
    document = opened(text)
    *_, last = document.check()
    (found,) = fixes(document.version, problems(document.version, last)[0])
    assert found.title == 'Add `use "blocks.arch"`'
    document.update(applied(document, found.edits))
    *_, last = document.check()
    assert last == []
    assert document.formatted() == document.version.text


def test_a_fix_that_removes_a_use() -> None:
    document = opened(TEXT.replace('"blocks.arch"\n', '"blocks.arch"\nuse "adapters.arch"\n'))
    *_, last = document.check()
    (found,) = [
        f for each in problems(document.version, last) for f in fixes(document.version, each)
    ]
    assert applied(document, found.edits) == TEXT


def test_formatting(tiny: Document) -> None:
    assert tiny.formatted() == TEXT
    assert opened(TEXT.replace(" = ", "=")).formatted() == TEXT
    assert opened("model").formatted() is None


def test_an_untitled_document_needs_no_file() -> None:
    document = Document(Path("Untitled-1"), TEXT)
    *_, last = document.check()
    assert last == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_place_of_any_text_has_an_answer(seed: int) -> None:
    """Parts of a text are removed or doubled; no request then fails."""
    numbers = random.Random(seed)
    document = opened(TEXT)
    for _ in range(15):
        text = TEXT
        for _ in range(numbers.randrange(3)):
            start = numbers.randrange(len(text))
            end = start + numbers.randrange(12)
            text = (
                text[:start] + numbers.choice(("", text[start:end] * 2, "(", '"')) + text[end:]
            )
        document.update(text)
        *_, last = document.check()
        for each in problems(document.version, last):
            fixes(document.version, each)
        hints(document, 0, 99)
        symbols(document.version)
        document.formatted()
        for _ in range(6):
            at = document.version.lines.position(numbers.randrange(len(text)))
            hover(document, at)
            completions(document, at)
            find_definition(document.version, at)
            find_renamed(document.version, at)
            find_references(document.version, at, True)
