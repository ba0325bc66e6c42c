"""Positions and prefixes: decoding step by step, and of unequal rows, gives the whole."""

from __future__ import annotations

import numpy as np
import pytest

import archdsl
from archdsl.execution.decoder import Decoder
from tests.reference.agreement import apart
from tests.specs import used_only
from tests.suite import some

LAYER = """
use "blocks.arch"
block layer(x: float[T, D], heads): float[T, D] {
  at = positions(T) + 3
  q = x -> q: linear(D) -> reshape("T (H h) -> T H h", H = heads) -> rotary(at = at)
  k = x -> k: linear(D) -> reshape("T (H h) -> T H h", H = heads) -> rotary
  x + (attend(q, k, k, causal) -> reshape("T H h -> T (H h)"))
}
"""
REMEMBERING = """
block remembering(x: float[T, D], heads): float[T, D] {
  start = x -> slice(T, 0, 2)
  y = x -> layer(heads)
  y + (y -> attention(heads, over = start))
}
"""
MODELS = {
    "arithmetic": """
        p = 20 - (positions(T) * 2 + 1) // 3
        h = (x + (p -> table: embed(21, D)) + (p -> sinusoid(D))) -> layer(2) * 3
    """,
    "comparisons": """
        late = positions(T) >= 4
        marked = tokens == 3
        h = x * late + (x -> linear(D)) * marked -> attention(2, mask = causal & keys(late)) * 2
    """,
    "learned": "h = x -> posenc(learned, at = positions(T) + 2) -> attention(2, causal) * 2",
    "trained prefix": """
        prompt = positions(3) -> prompt: embed(3, D)
        h = concat(prompt, x, T) -> posenc(learned) -> layer(2) * 3 -> slice(T, 3)
    """,
    "two prefixes": """
        front = positions(2) -> prompt: embed(2, D)
        h = concat(front, x -> prepend(a), T) -> layer(2) * 2 -> slice(T, 3)
    """,
    "given prefix": """
        input image: float[4, D]
        h = concat(image -> linear(D), x, T) -> layer(2) * 3 -> slice(T, 4)
    """,
    "read prefix": """
        y = x -> prepend(a) -> prepend(b) -> remembering(2) * 3
        start = y -> slice(T, 0, 1)
        h = y -> attention(2, over = start) -> slice(T, 2)
    """,
    "a prefix in each layer": "h = x -> { longer(2) } * 3",
}
LONGER = """
block longer(x: float[T, D], heads): float[T, D] {
  own = positions(2) -> own: embed(2, D)
  concat(own, x, T) -> layer(heads) -> slice(T, 2)
}
"""


@pytest.mark.parametrize("name", some(MODELS, "learned"))
def test_steps_give_what_the_whole_gives(name: str) -> None:
    lines = MODELS[name]
    others = [REMEMBERING] if "remembering" in lines else [LONGER] if "longer" in lines else []
    blocks = [LAYER, *others] if others or "layer(" in lines else []
    text = f"""{"".join(blocks)}model M(D = 8, n = 15) {{
      init normal(std = 0.5)
      input tokens: int[T <= n] < 9
      x = tokens -> embed(9, D)
      {lines}
      output logits: float[T, 9] = h -> head: linear(9)
      loss next_token(logits, tokens)
    }}"""
    model = archdsl.compile(archdsl.parse(used_only(text)), device="CPU", seed=3)
    random = np.random.default_rng(0)
    tokens = random.integers(0, 9, (2, 15))  # up to the bound
    given = {"image": random.standard_normal((2, 4, 8))} if "image" in text else {}
    whole = model(tokens=tokens, **given)["logits"].numpy()
    decoder = Decoder(model.executable, rows=2)
    if given:
        decoder.begin(**given)
    pieces = [decoder.feed(piece) for piece in np.split(tokens, [1, 2, 12], axis=1)]
    assert apart(np.concatenate(pieces, axis=1), whole) < 1e-5
    last = decoder.prefill([tokens[0, :9].tolist(), tokens[1, :4].tolist()])
    assert apart(last, [whole[0, 8], whole[1, 3]]) < 1e-5


@pytest.mark.long
def test_a_value_of_a_prefix_depends_on_no_token() -> None:
    model = archdsl.compile(
        archdsl.parse(
            used_only(
                LAYER
                + """
                model M(D = 8) {
                  input x: float[T <= 9, D]
                  output y: float[D] = x -> prepend(a) -> layer(2) * 2 -> readout(a)
                }"""
            )
        ),
        device="CPU",
    )
    random = np.random.default_rng(0)
    first, second = (random.standard_normal((1, n, 8)) for n in (3, 7))
    assert apart(model(x=first)["y"].numpy(), model(x=second)["y"].numpy()) < 1e-6


@pytest.mark.slow
def test_a_table_is_read_at_a_constant() -> None:
    made = archdsl.compile(
        archdsl.parse("""use "blocks.arch"
model M() {
  input x: float[4]
  output y: float[4] = x + (positions(3) // 3 -> table: embed(2, 4) -> first)
  loss squared_error(y, right: float[4])
}
"""),
        device="CPU",
    )
    x, row = np.ones((2, 4), np.float32), made.parameters["table.weight"].numpy()[0]
    assert apart(made(x=x)["y"], x + row) < 1e-6
    assert apart(made.loss(x=x, right=x), (row**2).mean()) < 1e-5
