"""Helpers for passes: new ids, and new operators with inferred types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from archdsl.diagnostics import Span
from archdsl.graph.mixture import mixture_type
from archdsl.graph.nodes import Apply, Graph, Mixture
from archdsl.graph.ops import OPERATORS
from archdsl.graph.signature import Site
from archdsl.graph.types import Type, Varying


class Builder:
    """Creates operators with unused ids, and tracks the types of values."""

    def __init__(self, graph: Graph, varying: tuple[Varying, ...] | None = None):
        axes = graph.varying if varying is None else varying
        self.varying = {axis.name: axis for axis in axes}
        self.types: dict[str, Type] = graph.types()
        used = [*self.types, *(term.loss.id for term in graph.losses)]
        self._ids = count(max(map(self._number, used), default=0) + 1)

    @staticmethod
    def _number(id: str) -> int:
        return int(id[1:]) if id[1:].isdecimal() else 0

    def id(self) -> str:
        return f"%{next(self._ids)}"

    def apply(
        self,
        name: str,
        path: str,
        inputs: Mapping[str, str],
        span: Span | None = None,
        **attr: Any,
    ) -> Apply:
        """Creates an operator with default settings, except those given, and its type."""
        op = OPERATORS[name]
        settings = {p.name: p.default for p in op.settings} | attr
        here = self._site(inputs, settings)
        settings |= op.resolve_defaults(here)
        settled = tuple((p.name, settings[p.name]) for p in op.settings_of(settings))
        node = Apply(self.id(), name, tuple(inputs.items()), settled, path, Type("float"), span)
        return self.typed(node)

    def typed(self, node: Apply) -> Apply:
        """Infers the type of a node from its inputs, and records it."""
        here = self._site(dict(node.inputs), dict(node.attrs))
        node = replace(node, type=OPERATORS[node.op].infer(here))
        self.types[node.id] = node.type
        return node

    def mixed(self, node: Mixture) -> Mixture:
        """Infers the type of a mixture from its inputs, and records it."""
        types = self.types
        type = mixture_type(types[node.input], types[node.gates], types[node.result])
        types[node.id] = type
        return replace(node, type=type)

    def _site(self, inputs: Mapping[str, str], attr: Mapping[str, Any]) -> Site:
        tensors = {param: self.types[ref] for param, ref in inputs.items()}
        return Site(tensors, attr, self.varying, {})


def join_path(path: str, part: str) -> str:
    """The path of a part of an operator."""
    return f"{path}.{part}" if path else part
