"""Reads and replaces the inner values of a model by their paths: see `passes.edges`."""

from __future__ import annotations

from collections.abc import (
    Collection,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    ValuesView,
)
from difflib import get_close_matches
from typing import Any, TypeAlias

from numpy.typing import NDArray

from archdsl.diagnostics import fail, listing
from archdsl.execution import inputs
from archdsl.execution.executable import CAPTURES, Executable, Wanted
from archdsl.execution.recent import Recent
from archdsl.graph.nodes import Graph
from archdsl.graph.path_patterns import matches
from archdsl.graph.types import Type
from archdsl.passes.edges import edges, read_and_replace

Value: TypeAlias = NDArray[Any]


class Trace(Mapping[str, Value]):
    """Values of a model's edges for some inputs, by path: arrays [B, …].

    Any edge of the model can be read, also by a pattern with `read`. A value is computed when
    it is first read. Iterating gives the paths that were asked for, in the order of execution.
    """

    def __init__(
        self,
        tracer: Tracer,
        given: Mapping[str, Any],
        names: Iterable[str],
        patches: Mapping[str, Value] | None = None,
    ):
        self._tracer, self._given, self._patches = tracer, given, patches or {}
        self._names = tuple(names)
        self._found: dict[str, Value] = {}

    @property
    def types(self) -> dict[str, Type]:
        """The type of each edge, by path: its dtype, and its axes after the batch."""
        return {name: self._tracer.types[name] for name in self._names}

    def axes(self, name: str) -> tuple[str, ...]:
        """The names of the axes of an edge, such as `("B", "T", "D")`; an axis without a name
        has its size."""
        type = self._tracer.types[self._tracer.path(name)]
        return ("B", *(axis.name or str(axis.size) for axis in type.axes))

    def read(self, names: str | Iterable[str]) -> dict[str, Value]:
        """The values of several edges, computed together. A name may be a pattern:
        `h.*.attention`."""
        paths = self._tracer.paths([names] if isinstance(names, str) else names)
        missing = [path for path in paths if path not in self._found]
        if missing:
            self._found |= self._tracer.read(missing, self._given, self._patches)
        return {path: self._found[path] for path in paths}

    def __getitem__(self, name: str) -> Value:
        path = self._tracer.path(name)
        return self.read([path])[path]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def items(self) -> ItemsView[str, Value]:
        return self.read(self._names).items()

    def values(self) -> ValuesView[Value]:
        return self.read(self._names).values()

    def __repr__(self) -> str:
        return f"Trace({', '.join(f'{name}: {type}' for name, type in self.types.items())})"


class Tracer:
    """The edges of a model, and the programs that read and replace them."""

    def __init__(self, executable: Executable, graph: Graph):
        self.executable, self.graph = executable, graph
        whole = edges(graph)
        self.refs, self.types, self.maps = whole.refs, whole.types(), whole.maps
        self._wanted: Recent[Wanted] = Recent(CAPTURES)

    def path(self, name: str) -> str:
        """The name of an edge; raises `ArchError` if there is none, with the nearest ones."""
        if name not in self.types:
            near = get_close_matches(name, self.types, 3)
            fail(
                "argument-value",
                f"`{self.graph.name}` has no edge `{name}`",
                expected=f"one of its {len(self.types)} edges; `model.edges` lists them",
                help=f"did you mean {listing(near)}?" if near else None,
            )
        return name

    def paths(self, names: Iterable[str]) -> list[str]:
        """The edges that names and patterns match, in the order of execution."""
        found = set[str]()
        for name in names:
            matched = [path for path in self.types if matches(name, path, below=False)]
            found.update(matched or [self.path(name)])
        return [path for path in self.types if path in found]

    def trace(self, names: Iterable[str] | None, given: Mapping[str, Any]) -> Trace:
        """The values of edges for the inputs of the model: see `Model.trace`."""
        arrays = inputs.check(self.graph, given)
        if names is None:
            return Trace(self, arrays, self.types)
        found = Trace(self, arrays, self.paths(names))
        found.values()
        return found

    def patch(self, patches: Mapping[str, Any], given: Mapping[str, Any]) -> Trace:
        """The outputs of the model where some edges have other values: see `Model.patch`."""
        arrays = inputs.check(self.graph, given)
        wanted = {path: each for name, each in patches.items() for path in self.paths([name])}
        found: dict[str, Value] = {}
        for path in (path for path in self.types if path in wanted):
            each = wanted[path]
            if callable(each):
                each = each(self.read([path], arrays, found)[path])
            self._check_once(path, found)
            found[path] = each
        outputs = [name for name, _ in self.graph.outputs if name in self.types]
        run = Trace(self, arrays, outputs, found)
        run.values()
        return run

    def _check_once(self, path: str, patches: Collection[str]) -> None:
        for other in patches:
            if self.refs[other] == self.refs[path]:
                fail("argument-value", f"`{other}` and `{path}` are the same edge")

    def read(
        self, paths: Sequence[str], given: Mapping[str, Any], patches: Mapping[str, Value]
    ) -> dict[str, Value]:
        """The values of edges, where those of `patches` are replaced: [B, …] each."""
        replaced = tuple(patches)
        key = ("edges", tuple(paths), replaced)

        def wanted() -> Wanted:
            found = edges(self.graph, {*paths, *replaced})
            return Wanted.of(read_and_replace(found, paths, replaced), *key)

        program = self._wanted.get(key, wanted)
        arrays = inputs.check(program.graph, {**given, **patches})
        found = self.executable.compute(program, arrays)
        return {path: found[path].numpy() for path in paths}
