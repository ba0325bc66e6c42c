"""Lets the loss of a language model count answers alone, which the data mark."""

from __future__ import annotations

from dataclasses import replace

from archdsl.graph.nodes import Graph, Input, Term
from archdsl.graph.types import Type
from archdsl.passes.decoding_analysis import unused_name


def count_answers(graph: Graph) -> Graph | None:
    """The graph whose `next_token` loss counts the tokens that a new label bool[T] marks.

    None if there is no such loss, or if it already says which tokens count.

    >>> from archdsl.analysis import analyse
    >>> graph = count_answers(analyse("gpt.arch").graph)
    >>> print(graph.labels[0].name, graph.labels[0].type, dict(graph.losses[0].loss.inputs))
    answers bool[T] {'logits': '%12', 'tokens': 'tokens', 'where': 'answers'}
    >>> count_answers(graph) is None
    True
    """
    loss = graph.objective("next_token")
    given = dict(loss.inputs) if loss else {}
    tokens = next((each for each in graph.inputs if each.name == given.get("tokens")), None)
    if loss is None or tokens is None or "where" in given:
        return None
    name = unused_name("answers", {each.name for each in (*graph.inputs, *graph.labels)})
    counted = replace(loss, inputs=(*loss.inputs, ("where", name)))
    losses = (
        Term(term.weight, counted) if term.loss is loss else term for term in graph.losses
    )
    label = Input(name, Type("bool", tokens.type.axes))
    return replace(graph, labels=(*graph.labels, label), losses=tuple(losses))
