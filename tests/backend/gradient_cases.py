"""Models for the gradient of each operator: the lines of a spec with float outputs.

The key is an operator, a form, or another kind of node. All float inputs and weights get
gradients. Inputs are draws without ties or zeros, so operators with a kink have slopes.
"""

from __future__ import annotations

X = "input x: float[T <= 7, 4]\n"
PADDED = """
    input tokens: int[T <= 7] < 9 pad 0
    input given: float[T, 4]
    x = (tokens -> embed(9, 4)) + given
"""
PAIR = f"{X} input other: float[T, 4]\n"
HEADS = 'reshape("T (H h) -> T H h", H = 2)'
FLAT = 'reshape("T H h -> T (H h)")'
ATTENTION = """
    input q: float[T <= 7, 4, 6]
    input k: float[T, 2, 6]
    input v: float[T, 2, 5]
"""
Y = "output y: float[T, 4] = "


def attended(how: str, more: str = "") -> str:
    return f"{ATTENTION} {more} output y: float[T, 4, 5] = attend(q, k, v, {how})"


def pointwise(*names: str) -> dict[str, list[str]]:
    return {name: [f"{X} {Y} x -> {name}"] for name in names}


CASES: dict[str, list[str]] = {
    # -- tokens and positions --
    "embed": ["input t: int[T <= 7] < 9 output y: float[T, 4] = t -> embed(9, 4) -> tanh"],
    "unembed": [
        """
        input t: int[T <= 7] < 9
        output y: float[T, 9] = t -> words: embed(9, 4) -> tanh -> unembed(words)
        """
    ],
    "sinusoid": [f"{X} {Y} x * sinusoid(positions(T), 4)"],
    "posenc": [
        *(
            f"{X} {Y} x -> posenc({how}) -> tanh"
            for how in ("learned", "sinusoidal", "learned, 9, at = positions(T) + 2")
        ),
        "input x: float[6, 4] output y: float[6, 4] = x -> posenc(learned, grid = 3, rows = 2)",
    ],
    "rotary": [
        f"{X} {Y} x -> {HEADS} -> rotary({how}) -> {FLAT}"
        for how in (
            "",
            "layout = pairs",
            "at = positions(T) + 3",
            "scaling = yarn, factor = 4, original = 8",
        )
    ],
    "alibi": [attended("bias = bias", f"bias = q -> {FLAT} -> alibi(4)")],
    "relative_bias": [attended("bias = bias", f"bias = q -> {FLAT} -> relative_bias(4, 8, 5)")],
    # -- products and norms --
    "norm": [f"{X} {Y} x -> norm({kind})" for kind in ("layer", "rms", "l2")],
    "linear": [
        f"{X} output y: float[T, 3] = x -> linear(3, bias = {bias})"
        for bias in ("true", "false")
    ],
    "mlp": [f"{X} {Y} x -> mlp(8, 4, {act})" for act in ("gelu", "silu", "gelu_tanh")],
    "conv1d": [
        *(
            f"{X} output y: float[T, 6] = x -> conv1d(6, 3, {how})"
            for how in ("padding = 1", "causal, groups = 2", "causal, dilation = 2")
        ),
        f"{X} {Y} x -> conv1d(4, 3, causal, groups = 4)",
        f"{PADDED} output y: float[T, 6] = x -> conv1d(6, 3, padding = 1)",
        "input x: float[8, 4] output y: float[3, 5] = x -> conv1d(5, 3, stride = 2)",
    ],
    # -- attention --
    "attention": [
        f"{X} {Y} x -> attention(2, causal)",
        f"{PADDED} {Y} x -> attention(2, kv_heads = 1)",
        f"{X} input m: float[S <= 9, 3] {Y} x -> attention(2, over = m)",
    ],
    "attend": [
        *(
            attended(how)
            for how in (
                "causal",
                "scale = 0.7",
                "causal, 2",
                "causal, softcap = 1.5",
                "mask = causal & (within(2) | prefix(1))",
                "mask = within(2)",
                "mask = chunk(3)",
            )
        ),
        attended("causal, sink = sink", "weight sink: float[4]"),
        attended("bias = b", "input b: float[4, T, T]"),
        attended("mask = causal | seen", "input seen: bool[T, T]"),
        attended("mask = same(n)", "input n: int[T] < 3"),
        f"{PADDED} h = x -> {HEADS} output y: float[T, 2, 2] = attend(h, h, h, causal)",
        """
        input x: float[3, 5, 2, 4]
        output y: float[3, 5, 2, 4] = attend(x, x, x)
        """,
    ],
    "scores": [
        f"{ATTENTION} output y: float[4, T, T] = scores(q, k) output z: float[T, 2, 5] = v"
    ],
    "mix": [
        f"{ATTENTION} output y: float[T, 4, 5] = "
        f"mix(scores(q, k) -> softmax(mask = {mask}), v, mask = {mask})"
        for mask in ("causal", "within(2)")
    ],
    "softmax": [
        *(f"{X} {Y} x -> softmax{how}" for how in ("", "(T)")),
        f"{PADDED} {Y} x -> softmax(T)",
        "input x: float[4, 4] output y: float[4, 4] = x -> softmax(mask = causal)",
    ],
    # -- elementwise --
    **pointwise(
        *("relu", "gelu", "gelu_tanh", "silu", "quick_gelu", "tanh", "sigmoid"),
        *("exp", "abs", "sin", "cos", "softplus"),
    ),
    **{name: [f"{X} {Y} x -> sigmoid -> {name}"] for name in ("log", "sqrt", "reciprocal")},
    **{
        name: [
            f"{PAIR} {Y} tanh(x) {sign} exp(other)",
            f"{X} weight other: float[4] {Y} tanh(x) {sign} exp(other)",
        ]
        for name, sign in {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}.items()
    },
    "compare": [f"{PAIR} {Y} other * (x > 0) + x * (other < x * 0)"],
    "scale": [f"{X} {Y} tanh(x) * 0.7"],
    "shift": [f"{X} {Y} tanh(x + 0.3)"],
    "weight": [f"{X} weight w: float[4] {Y} x * w"],
    # -- shapes --
    "patches": [
        "input x: float[2, 6, 6] output y: float[9, 8] = x -> patches(2) -> tanh",
        """
        input x: float[2, 5, 5]
        output y: float[9, 18] = x -> patches(3, stride = 2, padding = 1) -> tanh
        """,
    ],
    "readout": [
        f"""
        {X} weight first: float[1, 4]
        output y: float[4] = concat(first, x, T, name = cls) -> attention(2) -> readout(cls)
        """
    ],
    "at": [
        f"""
        input t: int[T <= 7] < 4
        input x: float[T, 4]
        output y: float[4] = x -> tanh -> at({how})
        """
        for how in ("t", "t, 2")
    ],
    "at_end": [f"{PADDED} output y: float[4] = x -> tanh -> at_end"],
    "mean": [
        *(f"{each} output y: float[4] = x -> tanh -> mean" for each in (X, PADDED)),
        "input x: float[3, 4] output y: float[4] = tanh(x) -> mean",
    ],
    "sum": [
        f"{X} output y: float[T] = x -> tanh -> sum",
        f"{PADDED} output y: float[4] = x -> tanh -> sum(T)",
    ],
    "max": [
        f"{X} output y: float[T] = x -> max",
        f"{PADDED} output y: float[4] = x -> max(T)",
    ],
    "top": [f"{X} {Y} x * top(x, 2)"],
    "contract": [
        f'{X} weight w: float[4, 3] output y: float[T, 3] = contract("T D, D E -> T E", x, w)',
        f'{PAIR} output y: float[T, T] = contract("i k, j k -> i j", x, other)',
        f'{PAIR} output y: float[4, T] = contract("T D, T D -> D T", x, other)',
        f'{PADDED} output y: float[4, 4] = contract("T D, T E -> D E", x, tanh(x))',
    ],
    "take": [
        """
        input ids: int[5] < 3
        weight table: float[3, 4]
        output y: float[5, 4] = take(table, ids) -> tanh
        """,
        """
        input x: float[T <= 7, 6]
        input ids: int[T, 3] < 6
        output y: float[T, 3] = take(x, ids, "T R, T S -> T S") -> tanh
        """,
    ],
    "concat": [
        f"{PAIR} output y: float[T, 8] = concat(x, other) -> tanh",
        f"{X} weight w: float[2] output y: float[T, 6] = concat(x, w) -> tanh",
    ],
    "reshape": [
        f'{X} output y: float[2, T, 2] = x -> reshape("T (a b) -> b T a", a = 2) -> tanh'
    ],
    "slice": [
        f"{X} a, b = x -> split(2) output y: float[T, 2] = tanh(a) * b",
    ],
    "delay": [f"{X} {Y} x -> tanh -> delay(2)"],
    # -- forms, and other nodes --
    "mixture": [
        f"""
        {X} input gates: float[T, 3]
        {Y} x -> experts: mixture({gates}, {{ linear(4) -> tanh }})
        """
        for gates in ("gates * top(gates, 2)", "gates")
    ],
    "Stack": [
        f"{X} {Y} x -> layer: {{ linear(4) -> tanh }} * 3",
        f"{X} {Y} x -> layer: {{ linear(4) -> tanh }} * 3 tied",
        f"{X} {Y} x -> layer: {{ linear(4) -> {{ tanh if i == 1 else sigmoid }} }} * 3 as i",
    ],
    "Scan": [
        f"""
        {PAIR} decay = sigmoid(other)
        state s: float[4] along T = s * decay + x
        output y: float[T, 4] = s
        """,
        f"""
        {PADDED} k = x -> linear(3)
        state s: float[3, 4] along T = s * 0.9 + contract("K, D -> K D", k, x)
        output y: float[T, 4] = contract("T K D, T K -> T D", s, k)
        """,
        f"""
        {PAIR} k = x -> norm(l2)
        state s: float[4, 4] along T =
          s + contract("K, D -> K D", k, other - contract("K D, K -> D", s, k))
        output y: float[T, 4] = contract("T K D, T K -> T D", s, x)
        """,
        f"{X} state s: float[4] along T = tanh(s + x) output y: float[T, 4] = s",
    ],
}

# Operators without a gradient of their own.
WITHOUT = {
    "positions": "whole numbers",
    "renumber": "whole numbers",
    "dropout": "its masks are drawn in training alone; see `test_dropout`",
    "split": "only its slices are in a graph",
}
