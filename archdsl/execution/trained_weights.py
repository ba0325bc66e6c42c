"""Which weights are trained, and what training refuses."""

from __future__ import annotations

from collections.abc import Collection

from archdsl.diagnostics import did_you_mean, fail
from archdsl.execution.executable import Executable
from archdsl.graph.nodes import Graph, walk
from archdsl.graph.sites import parameters


def in_layers(graph: Graph) -> frozenset[str]:
    """The paths of the weights inside of stacks."""
    inside = {node.id for node, around in walk(graph.nodes) if around}
    return frozenset(each.path for each in parameters(graph) if each.node in inside)


def refuse_quantized(trained: Collection[str], quantized: Collection[str]) -> None:
    """Rejects training of weights that are stored in 8 or 4 bits."""
    found = [path for path in trained if path in quantized]
    if found:
        fail(
            "model",
            f"{len(found)} of the weights to train are quantized, such as `{found[0]}`",
            expected="trained weights in float32, bfloat16 or float16",
            help="train an adapter, as with lora_rank=8, or load the model without `quantize`",
        )


def refuse_contrastive(graph: Graph) -> None:
    term = next((each for each in graph.losses if each.loss.op == "contrastive"), None)
    if term is not None:
        fail(
            "model",
            "`contrastive` compares the examples of a batch, so a batch cannot be divided",
            term.loss.span,
            help="train without accumulation, on one device",
        )


def trained_weights(executable: Executable, graph: Graph, frozen: frozenset[str]) -> list[str]:
    """The paths of the weights that the losses need and that are not frozen."""
    for path in sorted(frozen - executable.weights.keys()):
        fail(
            "model",
            f"there is no weight `{path}` to freeze",
            help=did_you_mean(path, executable.weights),
        )
    trained = [each.path for each in parameters(graph) if each.path not in frozen]
    if not trained:
        fail("model", "no weight is left to train", help="freeze fewer weights")
    return trained
