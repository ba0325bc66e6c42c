"""States with linear updates: computed at once and position by position, the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from archdsl.analysis import analyse
from archdsl.backend import interpret
from archdsl.backend.context import ExecutionContext
from archdsl.backend.tensors import to_device
from archdsl.graph.nodes import Graph, Scan
from archdsl.passes import optimise
from archdsl.passes.program import lower
from archdsl.passes.recurrences import plan
from archdsl.passes.select_kernels import CPU
from archdsl.syntax.parser import parse
from tests.suite import some

CORRECTED = """
block corrected(
  s: float[H, K, V], k: float[H, K], v: float[H, V], g: float[H], b: float[H]
): float[H, K, V] {
  kept = contract("H, H K V -> H K V", g, s)
  old = contract("H K V, H K -> H V", kept, k)
  kept + contract("H K, H V -> H K V", k, contract("H V, H -> H V", v + old * -1.0, b))
}
"""
SPEC = """
model M(H = 2, K = 3, V = 4) {{
  input q: float[T <= 40, H, K]
  input k: float[T, H, K]
  input v: float[T, H, V]
  input g: float[T, H]
  input b: float[T, H]
  input d: float[K, V]
  input first: float[H, K, V]
  {body}
}}
"""
STATE = "state s: float[H, K, V] along T ="
WRITE = 'contract("H K, H V -> H K V", k, v)'
READ = 'output y: float[T, H, V] = contract("T H K V, T H K -> T H V", s, q)'
# A body, how it is computed, and how many heads, keys and values there are.
UPDATES = {
    "heads": (f'{STATE} contract("H, H K V -> H K V", g, s) + {WRITE} '
              + READ, "attention", (2, 3, 4)),
    "keys": (f'{STATE} contract("H K, H K V -> H K V", q, s) + {WRITE} '
             + READ, "attention", (2, 3, 4)),
    "numbers": (f'{STATE} contract("K V, H K V -> H K V", d, s) * 0.5 + '
                + WRITE + " " + READ, "attention", (2, 3, 4)),
    "none": (f"state s: float[H, K, V] along T from first = s + {WRITE} * 0.5 " + READ,
             "attention", (2, 3, 4)),
    "turned": (f"{STATE} s * 0.9 + {WRITE} "
               'output y: float[T, V, H] = contract("T H K, T H K V -> T V H", q, s)',
               "attention", (2, 3, 4)),
    "corrected": (f"{STATE} corrected(s, k, v, g, b) " + READ,
                  "delta", (2, 3, 4)),
    "removed": (f'{STATE} contract("H K, H K V -> H K V", q, s) - '
                'contract("H K, H V -> H K V", k, contract("H K V, H K -> H V", s, k)) * 0.5 + '
                f"{WRITE} " + READ, "delta", (2, 3, 4)),
    "states": (f'{STATE} contract("H, H K V -> H K V", g, s) + {WRITE} '
               "output y: float[T, H, K, V] = s", "scan", (1, 1, 1)),
    "vectors": ("state s: float[H] along T = g * s + (b -> tanh) "
                "output y: float[T, H] = s * s", "scan", (1, 1, 1)),
    "squashed": ("state s: float[H] along T = (g * s -> tanh) + b output y: float[T, H] = s",
                 None, (1, 1, 1)),
    "squared": ("state s: float[H] along T = g * s * s + b output y: float[T, H] = s",
                None, (1, 1, 1)),
    "moved": ('state s: float[H, 2] along T = contract("a b -> b a", s) * 0.5 + w '
              "output y: float[T, H, 2] = s", None, (1, 1, 1)),
}  # fmt: skip
RNG = np.random.default_rng(0)


def graph(body: str) -> Graph:
    body = body.replace("+ w", "+ w").replace(" output", "\n  output")
    lines = 'w = contract("T H, T J -> T H J", b, g)\n  ' if "+ w" in body else ""
    blocks = CORRECTED if "corrected" in body else ""
    return optimise(analyse(parse(blocks + SPEC.format(body=lines + body))).graph)


def scan(made: Graph) -> Scan:
    (found,) = (node for node in made.nodes if isinstance(node, Scan))
    return found


@pytest.mark.parametrize("name", UPDATES)
def test_linear_updates_are_recognized(name: str) -> None:
    body, kind, sizes = UPDATES[name]
    made = graph(body)
    found = plan(scan(made), made.types())
    if kind is None or found is None:
        assert found is None
        assert kind is None
        return
    assert kind == ("scan" if found.q is None else "attention" if found.a is None else "delta")
    lengths = [axis.size.at({}) for axis in scan(made).carry_type.axes]
    groups = (found.heads, found.keys, found.values)
    assert sizes == tuple(int(np.prod([lengths[a] for a in axes])) for axes in groups)


def run(made: Graph, target: str | None, given: dict[str, Any]) -> NDArray[np.float32]:
    sizes = {"T": given["q"].shape[1]}
    context = ExecutionContext(lower(made, 2, sizes, target=target), {}, {}, "CPU")
    tensors = {i.name: to_device(given[i.name], "CPU") for i in made.inputs}
    found: NDArray[np.float32] = interpret.forward(context, tensors)["y"].numpy()
    return found


@pytest.mark.few(1)
@pytest.mark.parametrize("target", some([None, CPU], CPU))
@pytest.mark.parametrize("name", [name for name, update in UPDATES.items() if update[1]])
def test_computed_at_once_and_one_by_one(
    name: str, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = graph(UPDATES[name][0])
    kernels = lower(made, 2, {"T": 9}, target=target).launches()
    assert bool(kernels) == (target == CPU)
    given = {
        i.name: RNG.uniform(0.2, 0.9, (2, *(a.size.at({"T": 9}) for a in i.type.axes)))
        for i in made.inputs
    }
    given = {key: value.astype(np.float32) for key, value in given.items()}
    found = run(made, target, given)
    monkeypatch.setattr(interpret, "plan", lambda *_: None)
    wanted = run(made, target, given)
    assert np.allclose(found, wanted, atol=1e-5 * abs(wanted).max())
