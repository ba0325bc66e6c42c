"""The layout of the features that rotary positions rotate: two halves, or neighbouring pairs.

A converter that forgets to reorder the rows of queries and keys leaves a model that runs and
computes nonsense. In a trained model, both rows of a rotated pair have about the same norm,
because they see the same frequency; the rows of two frequencies do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.audit.findings import RISKY, Findings
from archdsl.audit.opened import Opened
from archdsl.formats import LazyTensor
from archdsl.graph.nodes import Apply, Graph, walk
from archdsl.graph.sites import parameters

# Trained: the differences within pairs are 0.7 to 1.3 of those of the other layout, and 1.1 to
# 5 with the wrong layout (SmolLM2-135M, medians 0.98 and 2.5). Without training both are 1.
_SUSPICIOUS = 1.5
_LEAST = 4  # pairs; the norms of fewer say nothing


def check_layout(opened: Opened, findings: Findings) -> None:
    if opened.graph is None or opened.weights is None:
        return
    ratios = [
        _ratio(_floats(opened.weights[path]), layout, size)
        for path, layout, size in _rotated(opened.graph)
    ]
    if ratios and np.median(ratios) > _SUSPICIOUS:
        findings.add(
            RISKY,
            "weights: queries and keys",
            "the norms of their rows look like those of the other rotary layout (neighbouring "
            f"pairs or two halves): {np.median(ratios):.2g} times as different within a pair",
            "reads the layout that the config names, and does not reorder rows",
        )


def _rotated(graph: Graph) -> Iterator[tuple[str, str, int]]:
    """The matrices whose rows are rotated: their paths, the layout, and the rotated features
    of a head."""
    nodes = {node.id: node for node, _ in walk(graph.nodes) if isinstance(node, Apply)}
    turned: dict[str, tuple[str, int]] = {}
    for node in nodes.values():
        if node.op == "rotary":
            head = node.type.axes[-1].size.value
            if head == node.attr["size"] and head and head >= 2 * _LEAST:
                source = _source(nodes, node)
                if source:
                    turned[source] = (str(node.attr["layout"]), head)
    for each in parameters(graph):
        if each.node in turned and each.weight.name == "weight":
            yield (each.path, *turned[each.node])


def _source(nodes: Mapping[str, Apply], node: Apply) -> str | None:
    """The product that a rotation rotates, if only a view is between them."""
    before = nodes.get(dict(node.inputs)["x"])
    while before is not None and before.op in ("reshape", "norm"):
        before = nodes.get(dict(before.inputs)["x"])
    return before.id if before is not None and before.op == "linear" else None


def _ratio(matrix: NDArray[Any], layout: str, size: int) -> float:
    """How much the norms of the rows of a pair differ, relative to the other layout."""
    norms = np.sqrt((matrix.astype(np.float64) ** 2).sum(1)).reshape(-1, size)
    logs = np.log(norms + 1e-12)
    halves = np.abs(logs[:, : size // 2] - logs[:, size // 2 :]).mean()
    pairs = np.abs(logs[:, ::2] - logs[:, 1::2]).mean()
    own, other = (halves, pairs) if layout == "halves" else (pairs, halves)
    return float((own + 1e-12) / (other + 1e-12))


def _floats(stored: LazyTensor) -> NDArray[Any]:
    values = stored.read()
    if stored.dtype == "bfloat16":  # bits
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values
