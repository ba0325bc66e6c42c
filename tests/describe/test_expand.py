"""`expand`: a spec without library blocks and defaults that compiles to the same graph."""

from __future__ import annotations

from pathlib import Path

import pytest

import archdsl
from archdsl.analysis import analyse
from archdsl.describe.compare import difference
from archdsl.describe.expand import expand
from archdsl.diagnostics import ArchError
from archdsl.graph.nodes import Apply, Graph
from archdsl.graph.sites import parameters
from archdsl.semantics.library import standard_library
from archdsl.syntax import ast
from archdsl.syntax.traversal import walk
from tests.semantics.small import graph, model
from tests.specs import used_only
from tests.suite import mostly_long

SPECS = sorted(standard_library().glob("*.arch"))


def same_again(made: Graph) -> str:
    """The expanded text of a graph, after a check that it compiles to the same graph."""
    text = archdsl.format(expand(made))
    tree = archdsl.parse(text)
    assert archdsl.format(tree) == text
    back = analyse(tree).graph
    assert difference(made, back) is None
    weights, again = ([(p.path, p.weight) for p in parameters(g)] for g in (made, back))
    assert weights == again
    chosen = {
        each for node in walk(tree) if isinstance(node, ast.Repeat) for each in walk(node)
    }
    others = (node for node in walk(tree) if node not in chosen)
    assert not any(isinstance(node, ast.Use | ast.When) for node in others)
    # All parameters are tensors, since numbers are written out.
    params = (node for node in walk(tree) if isinstance(node, ast.Param))
    assert all(isinstance(param.type, ast.Type) for param in params)
    return text


@pytest.mark.few(6)
@pytest.mark.parametrize("path", mostly_long(SPECS), ids=[path.stem for path in SPECS])
def test_every_spec_and_variant_expands_to_the_same_graph(path: Path) -> None:
    file = archdsl.parse(path.read_text(encoding="utf-8"), str(path))
    for item in file.items:
        if isinstance(item, ast.Variant) or (
            isinstance(item, ast.Model) and all(p.default for p in item.params.params)
        ):
            same_again(analyse(f"{path}:{item.name.id}").graph)


SUBLAYER = """
block spread(x: float[T, D]): float[T, D] {
  weight weight: float[D] = zeros
  weight whole: float = normal(std = 0.5)
  weight exp: float[3, D]
  x * (weight + whole) - (exp -> mean)
}
block alike(x: float[T, D]): float[T, 2, 2] {
  H = 2
  h = 2
  weight first: float[H]
  weight second: float[h]
  y = x -> linear(4) -> reshape("T (H h) -> T H h", H = H)
  y * first - second / y
}

block sublayer(x: float[T, D], z: float[S, D], heads = 2): float[T, D] {
  a = x + (x -> norm -> attention(heads, over = z))
  a + (a -> norm(rms) -> mlp(4, D))
}
block both(x: float[T, D], y: float[T, D]): float[T, D] { x + (y -> norm) }
block swapped(x: float[T, D], y: float[T, D]): float[T, D] { (y -> relu) + x }
block middle(x: float[T, C]): float[T, 2] { x -> slice(C, 1, 3) }
block doubled(x: float[T, D]): float[T + T, D] { concat(x, x -> norm, T) }
block twice(x: float[T, D]): float[T, 2 * D] { concat(x -> norm, x -> norm) }
block pair(x: float[T, D]): float[T, 2 * D] { concat(x, x) }
block placed(x: float[T, D]): float[T, D] {
  p = 30 - positions(T) // 2
  y = x -> posenc(learned, at = p) -> both(p -> sinusoid(D))
  y -> posenc(sinusoidal, at = positions(T))
}
block around(x: float[T, D], z: float[T, D]): float[T, D] {
  x -> inner: sublayer(z) * 2 -> norm -> inner_2: { norm -> linear(D) * 2 } * 3
}
"""


@pytest.mark.few(20)
@pytest.mark.parametrize(
    "body",
    [
        "float[T, D] = x -> { norm -> { norm -> relu } * 2 } * 3",
        "float[T, D] = x -> { norm -> norm * 2 * 2 } * 3",
        "float[T, D] = x -> h: norm * 3",
        "float[T, D] = x -> h: { norm } * 3",
        "float[T, D] = x -> h: { { norm } * 2 } * 3",
        "float[T, D] = x -> relu * 3",
        "float[T, D] = x -> a: { b: { c: norm -> c_2: norm } }",
        "float[T, D] = x -> h: sublayer(x) * 2",
        "float[T, D] = x -> around(x -> norm)",
        "float[T, D] = x -> h: around(x) * depth",
        "float[T, D] = both(x -> norm, x -> linear(D))",
        "float[T, D] = swapped(x -> norm, x -> linear(D))",
        "float[T, D] = both(x, x) -> { both(x) -> norm } * 2",
        "float[T, D] = x + x * 0.5 + (x -> norm -> gelu) * -0.25",
        "float[T, D] = x * 1e-05 * 12345678901234567890.0 -> scale(3)",
        "float[T, 2] = x -> middle",
        'float[2, T] = x -> middle -> reshape("T (a b) -> (a b) T", a = 2)',
        "float[T, D] = x -> softmax(T) -> softmax(D) -> softmax",
        "float[D] = x -> mean(T)",
        "float[D] = x -> mean",
        "float[T + 1, D] = x -> prepend(cls) -> { norm -> attention(2) } * 2",
        "float[D] = x -> prepend(cls) -> prepend(sep) -> h: { norm } * 2 -> readout(cls)",
        "float[D] = x -> prepend(cls) -> at: linear(D) -> first",
        "float[T + T, D] = x -> doubled",
        "float[T, 2 * D] = x -> norm -> pair",
        "float[T, 2 * D] = x -> twice",
        "float[T, 10] = tokens -> tok: embed(10, D) -> norm -> unembed(tok)",
        "float[T, D] = tokens -> tok: embed(10, D) -> { unembed(tok) -> linear(D) } * 2",
        "float[T, D] = tokens -> a: { b: embed(10, D) -> unembed(b) -> linear(D) }",
        "float[T, D] = tokens -> embed_2: embed(10, D) -> unembed(embed_2) -> linear(D)",
        "float[T, D] = x -> both(x) -> relu: linear(D) -> relu -> add: linear(D) -> both(x)",
        "float[T, D] = x -> mixture(x -> top(2), { relu -> linear(D) }) -> norm",
        "float[T, D] = x -> both(x) -> both(x) -> add_2: linear(D) -> both(x -> norm)",
        "float[T, D] = x -> total: norm -> product: norm -> sqrt: norm",
        "float[T, D] = x -> dropout(0.5)",
        "float[T, D] = 1 - x / 2 - (x -> spread) / exp(x)",
        "float[T, D] = x -> spread -> h: { spread } * 2 -> spread_2: norm -> spread",
        "float[T, D] = x -> a: spread -> norm -> tied(a) -> b: spread * 2 tied",
        "float[T, 2, 2] = x -> alike",
        "float[T, D] = x -> placed * 2 -> placed",
        "float[T + 2, D] = concat(positions(2) -> embed(2, D), x, T) -> placed * 2",
        "float[T, D] = x -> h: { mlp(4 + i, D) -> norm } * 4 as i",
        "float[T, D] = x -> h: (norm if i % 3 == 2 else sublayer(x)) * 7 as i",
        "float[T, D] = x -> (sublayer(x, 1 if i < 2 else 2) if i > 0 else relu) * 5 as i",
        "float[T, D] = x -> h: { sublayer(x) * 2 tied -> norm } * 3 tied",
        "float[T, D] = x -> h: sublayer(x) * 3 -> tied(h) -> norm",
        "float[T, D] = x -> h: { norm -> norm } * 2 -> tied(h) -> j: relu * 2 tied",
        "float[T, D] = x -> f: linear(D) -> tied(f) -> g: attention(1) -> tied(g, over = x)",
        "float[T, D] = x -> both(x) -> a: mlp(4, D, act = relu) -> tied(a, act = gelu)",
        "float[T, D] = x -> h: (norm if i == 1 else relu) * 3 tied as i",
    ],
)
def test_odd_bodies(body: str) -> None:
    same_again(graph(model(body, blocks=SUBLAYER)))


def test_a_stack_that_is_used_again_with_another_memory() -> None:
    text = same_again(
        graph(
            used_only(
                SUBLAYER
                + """
        model M(D = 8) {
          input x: float[T <= 4, D]
          u = x -> norm
          w = x -> relu
          y = x -> h: sublayer(u) * 3 -> tied(h, z = w)
          output out: float[T, D] = y + u + w
        }
        """
            )
        )
    )
    assert text.count("block h_layer") == 1
    assert '-> tied("h", normed = relu_2)' in text


def test_a_block_names_an_axis_as_its_steps_do() -> None:
    text = same_again(
        graph(
            """
            block halves(x: float[T, D]): float[T, D] {
              x + (x -> reshape("T (H h) -> T H h", H = 2) -> reshape("T H h -> T (H h)"))
            }
            model M(D = 8) {
              input tokens: int[2 <= N <= 8] < 10
              ids = positions(N - 1) -> sinusoid(D)
              output out: float[N - 1, D] = ids -> h: halves * 3
              output whole: float[N, D] = tokens -> embed(10, D)
            }
            """
        )
    )
    assert "block h_layer(x: float[T, 8]): float[T, 8]" in text


def test_a_stack_that_is_used_again_with_more_inside() -> None:
    text = "float[T, D] = x -> h: sublayer(x) * 3 -> tied(h, z = x -> relu)"
    with pytest.raises(ArchError) as error:
        expand(graph(model(text, blocks=SUBLAYER)))
    assert error.value.diagnostics[0].code == "stack"
    assert "used again with other operators" in str(error.value)


def test_inputs_outputs_and_losses() -> None:
    text = same_again(
        graph("""
        use "blocks.arch"
        block average(x: float[T, D]): float[D] { x -> mean(T) }
        block again(x: float[T, D]): float[D] { x -> mean }
        model M(n = 6, D = 4) {
          input source: int[S <= n] < 9 pad 1
          input other: float[S, T <= 3]
          input target: int[T] < 9
          init normal(std = 0.5)
          z = source -> tok: embed(9, D)
          output first_z: float[S, D] = z
          output same: float[S, D] = z
          output back: int[T] = target
          h = target -> embed(tied = tok) -> { cross_attention_block(z, 2) -> norm } * 2
          h2 = h -> norm
          output logits: float[T, 9] = h -> unembed(tok)
          output mean: float[D] = h -> average
          output o: float[S, T] = other
          output last: float[D] = h -> again
          loss cross_entropy(logits, label: int[T] < 9)
          expect h2: float[T, D]
        }
        """)
    )
    assert "init normal(std = 0.5)" in text
    assert "loss cross_entropy(logits, label: int[T] < 9, smoothing = 0.0)" in text
    assert "input source: int[S <= 6] < 9 pad 1\n" in text
    assert "expect normed: float[T, 4]" in text
    # A name that would hide an operator is bound last.
    assert text.index("output mean: float[4] = mean_2") > text.index("output logits")


def test_a_rule_without_numbers() -> None:
    made = graph(
        "model M(n = 3) { input x: float[n] init xavier output y: float[n] = x -> norm }"
    )
    assert "  init xavier\n" in same_again(made)


def test_a_long_sum_has_no_deeply_nested_brackets() -> None:
    lines = [f"e{i + 1} = (e{i} -> relu) + x" for i in range(60)]
    edges = "\n".join(["input e0: float[T, D]", *lines, "output y0"])
    text = same_again(graph(model("float[T, D] = e60").replace("output y0", edges)))
    assert text.count("total") == 16  # 8 of 60 have a name


def test_the_text_of_a_small_decoder() -> None:
    sizes = {"vocab": 11, "context": 7, "D": 8, "heads": 2, "depth": 3}
    made = analyse("gpt.arch", settings=sizes).graph
    assert same_again(made) == (
        "block self_attention_block_layer(x: float[T, 8]): float[T, 8] {\n"
        "  total = x + (\n"
        "    x\n"
        "      -> norm: norm(kind = layer, eps = 1e-05, scale = true, bias = true)\n"
        "      -> attention: attention(\n"
        "        heads = 2,\n"
        "        mask = causal,\n"
        "        kv_heads = 2,\n"
        "        head_size = 4,\n"
        "        scale = 0.5,\n"
        "        bias = true,\n"
        "        out_bias = true,\n"
        "      )\n"
        "  )\n"
        "  total + (\n"
        "    total\n"
        "      -> norm_2: norm(kind = layer, eps = 1e-05, scale = true, bias = true)\n"
        "      -> mlp: mlp(32, 8, act = gelu, bias = true)\n"
        "  )\n"
        "}\n"
        "\n"
        "model GPT() {\n"
        "  input tokens: int[T <= 7] < 11\n"
        "  init normal(std = 0.02)\n"
        "\n"
        "  output logits: float[T, 11] = tokens\n"
        "    -> embed: embed(vocab = 11, dim = 8)\n"
        "    -> posenc: posenc(kind = learned, context = 7, layout = pairs)\n"
        "    -> self_attention_block: self_attention_block_layer * 3\n"
        "    -> norm: norm(kind = layer, eps = 1e-05, scale = true, bias = true)\n"
        "    -> linear: linear(dim = 11, bias = true)\n"
        "\n"
        "  loss next_token(logits, tokens, ahead = 1, smoothing = 0.0)\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model M(n = 3) { input norm: float[n] output y: float[n] = norm -> f }\n"
            "block f(x: float[D]): float[D] { x -> norm }",
            "`norm` of `M` has the same name as an operator or a choice that the model uses",
        ),
        (
            model("float[T, D] = x -> h: attention(2, over = (x -> norm)) * 2"),
            "`h` of `M` repeats an operator together with the computation of its arguments",
        ),
    ],
)
def test_graphs_that_cannot_be_written(text: str, message: str) -> None:
    with pytest.raises(ArchError) as found:
        expand(graph(text))
    (diagnostic,) = found.value.diagnostics
    assert diagnostic.message == message


def test_a_table_is_named_by_its_path() -> None:
    tied = 'float[T, 10] = tokens -> a: {{ tok: embed(10, D) }} -> unembed(tied = "{}")'
    made = graph(model(tied.format("a.tok")))
    last = made.nodes[-1]
    assert isinstance(last, Apply)
    assert last.attr["tied"] == "a.tok"
    with pytest.raises(ArchError) as found:
        graph(model(tied.format("a.tik")))
    (diagnostic,) = found.value.diagnostics
    assert diagnostic.code == "unknown-name"
    assert diagnostic.message == 'no earlier `embed` has the path "a.tik"'
    assert diagnostic.expected == "`a.tok`"
