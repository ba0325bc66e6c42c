"""A graph with its weights on a device, and the programs that have been captured for it.

Knows no generation and no text: arrays go in, tensors come out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from numpy.typing import NDArray
from tinygrad import Tensor, dtypes

from archdsl.backend import interpret
from archdsl.backend.program import Program as Capture
from archdsl.backend.quantized import Quantized, Weights, quantized
from archdsl.backend.target import kernels_for, open_device, supports
from archdsl.backend.tensors import copied, kept, made, placed, put, spare
from archdsl.backend.tinygrad_seam import TRAINING, one_thread
from archdsl.backend.use import Run
from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.execution.buckets import bucket_length, paddable_axes, padded_inputs
from archdsl.execution.initial_weights import drawn
from archdsl.execution.recent import Recent
from archdsl.formats.host import Stored
from archdsl.graph.cost import BYTES
from archdsl.graph.nodes import Graph
from archdsl.graph.printer import show
from archdsl.graph.sites import Parameter, parameters
from archdsl.graph.types import Type
from archdsl.passes import optimise
from archdsl.passes.eliminate_dead_code import drop_unused
from archdsl.passes.program import Program, lower
from archdsl.passes.select_quantizable import select_quantizable
from archdsl.progress import each

if TYPE_CHECKING:
    from archdsl.backend.tuning import Tuner

T = TypeVar("T")

# What weights can be instead of numbers of the model's dtype: of 8 bits, or as they are in a
# file that has them quantized.
QUANTIZATIONS = ("int8", "stored")
CAPTURES = 32  # forward passes that are kept, by the shapes of their inputs; see `compile`


class _Wanted(NamedTuple):
    """The graph of some outputs alone, their types, and which axes can be padded."""

    graph: Graph
    types: dict[str, Type]
    paddable: frozenset[str]


class _Forward(NamedTuple):
    """A forward pass for inputs of some shapes, and the tensors that it reads them from."""

    capture: Capture[dict[str, Tensor]]
    inputs: dict[str, Tensor]


class Executable:
    """A graph on one device and in one dtype. No weight is allocated until it is needed.

    Several threads may call one: `lock` is held while a forward pass runs, whose memory is
    shared. Several executables run in parallel; only captures wait for one another.
    """

    def __init__(
        self,
        graph: Graph,
        device: str | None,
        dtype: str,
        seed: int,
        kernels: str,
        quantize: str | None,
        tuner: Tuner | None,
    ):
        self.graph = optimise(graph)
        self.dtype = known_value("a model cannot be of dtype", dtype, BYTES)
        self.kernels = known_value("kernels cannot be", kernels, ("best", "tinygrad"))
        self.quantize = quantize and known_value("weights cannot be", quantize, QUANTIZATIONS)
        self.seed, self.tuner = seed, tuner
        self.weights: dict[str, Parameter] = {p.path: p for p in parameters(graph)}
        self.lock = threading.RLock()
        self._version = 0
        self._asked_device = device
        self._device: str | None = None
        self._parameters: Weights | None = None
        self._constants: dict[tuple[object, ...], Tensor] = {}
        self._captures: Recent[_Forward] = Recent(CAPTURES)
        self._wanted: dict[tuple[str, ...], _Wanted] = {}

    @property
    def device(self) -> str:
        """tinygrad's name of the device, opened on first use."""
        # What is there is read without the lock: a capture asks for it, and others that hold
        # the lock may be waiting for that capture.
        if self._device is None:
            with self.lock:
                self._device = self._device or self._opened()
        return self._device

    def _opened(self) -> str:
        device = open_device(self._asked_device)
        if not supports(device, self.dtype):
            fail(
                "device",
                f"{device} cannot compute in {self.dtype} on this machine",
                help="use float32, or another device: `archdsl doctor` lists them",
            )
        return device

    @property
    def target(self) -> str | None:
        """Whose kernels are used beside tinygrad's own."""
        return kernels_for(self.device) if self.kernels == "best" else None

    # -- weights --

    @property
    def parameters(self) -> Weights:
        """The weights by path, in the order of the spec; drawn from the seed on first use."""
        if self._parameters is None:
            with self.lock:
                self._parameters = self._parameters or self._drawn()
        return self._parameters

    def _drawn(self) -> Weights:
        rule, numbers = self.graph.init[0], dict(self.graph.init[1])
        weights = {path: each.weight for path, each in self.weights.items()}
        values = drawn(weights, rule, numbers, self.seed)
        tensors = ((name, placed(value, self.device)) for name, value in values)
        return self._placed(tensors, "drawing weights")

    def fill(self, found: Mapping[str, Stored]) -> None:
        """Takes all weights from tensors by path, read one after the other."""
        with self.lock:
            tensors = ((name, self._stored(stored)) for name, stored in found.items())
            self._parameters = self._placed(tensors, "loading weights")
            self._renew()

    def version(self) -> int:
        """The number of the weights: another one where they lie in other memory than before,
        so that what was captured has to be captured again.

        Weights in whole numbers that a user has assigned to are quantized anew.
        """
        if self.parameters.quantize_assigned():
            with self.lock:
                self._renew()
        return self._version

    def _renew(self) -> None:
        self._captures.clear()  # they read the old weights
        self._version += 1

    def _stored(self, stored: Stored) -> Tensor | Quantized:
        """A weight as it was stored: in whole numbers, if that is wanted and can be."""
        if stored.groups is None or self.quantize != "stored":
            widened = (stored.dtype, self.dtype) == ("float16", "float32")
            return placed(stored.read(), self.device, self.dtype if widened else stored.dtype)
        values, scales, offsets = (
            None if part is None else placed(part, self.device, part.dtype.name)
            for part in stored.groups()
        )
        assert values is not None
        assert scales is not None
        return Quantized(values, scales, offsets)

    def _placed(self, tensors: Iterable[tuple[str, Tensor | Quantized]], what: str) -> Weights:
        """Tensors on the model's device and in its dtype, one at a time in memory twice."""
        found: dict[str, Tensor | Quantized] = {}
        shrunk = select_quantizable(self.graph) if self.quantize == "int8" else frozenset()
        with one_thread:
            for name, tensor in each(tensors, what, "tensors", len(self.weights)):
                if isinstance(tensor, Tensor):
                    moved = tensor.to(self.device).cast(self.dtype)
                    tensor = tensor if moved is tensor else kept(made(moved))
                    if name in shrunk:
                        tensor = quantized(tensor)
                found[name] = tensor
            spare(self.device)  # what the tensors were in before they were cast
        return Weights(found, self.dtype)

    # -- programs --

    def lowered(self, graph: Graph, inputs: Mapping[str, Any], trains: bool = False) -> Program:
        """The program of a graph of the model's, for inputs of these shapes."""
        batch, sizes = interpret.measured(graph, inputs)
        return lower(graph, batch, sizes, self.dtype, self.target, trains)

    def run(self, program: Program) -> Run:
        """What a program of the model's is run with."""
        weights = self.parameters
        return Run(program, weights, self._constants, self.device, weights.quantized)

    def capture(
        self,
        function: Callable[..., T],
        key: tuple[object, ...],
        state: Mapping[str, Tensor] | None = None,
    ) -> Capture[T]:
        """A function of tensors, captured at its first call; tuned if the model is.

        It is stored for later processes by its `key`, which says what the function computes;
        `state` are the tensors beside the weights that it reads and writes, by name.
        """
        return Capture(
            function,
            self.device,
            self.tuner,
            key=(self.dtype, self.kernels, *key),
            known=lambda: self.parameters.in_memory() | dict(state or {}),
            constants=self._constants,
        )

    def placed(self, array: NDArray[Any]) -> Tensor:
        """An input on the device; real numbers in the dtype of the weights."""
        return self._cast(placed(array, self.device, array.dtype.name))

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.cast(self.dtype) if tensor.is_floating_point() else tensor

    # -- whole sequences --

    def forward(
        self, arrays: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        """These outputs by name, each [B, …], for inputs by name, each [B, …].

        An axis that can be padded is, so that few captures serve all its lengths.
        """
        with self.lock:
            self.version()
            wanted = self._outputs(tuple(outputs))
            rows, sizes = interpret.measured(wanted.graph, arrays)
            padded = padded_inputs(wanted.graph, arrays, self._bucket(wanted, sizes))
            shapes = ((name, array.shape) for name, array in padded.items())
            key = (TRAINING.value, tuple(outputs), *shapes)
            capture, places = self._captures.get(key, lambda: self._captured(wanted, padded))
            for name, array in padded.items():
                put(places[name], array)
            found = capture(**places)
            # A capture writes the outputs of every call into the same memory.
            return {
                name: copied(out, (rows, *(axis.size.at(sizes) for axis in type.axes)))
                for (name, type), out in zip(wanted.types.items(), found.values(), strict=True)
            }

    def _outputs(self, names: tuple[str, ...]) -> _Wanted:
        if names not in self._wanted:
            graph = with_outputs(self.graph, names)
            types = graph.types()
            found = {name: types[ref] for name, ref in graph.outputs}
            self._wanted[names] = _Wanted(graph, found, paddable_axes(graph))
        return self._wanted[names]

    def _bucket(self, wanted: _Wanted, sizes: dict[str, int]) -> dict[str, int]:
        """The sizes of the varying axes with which a forward pass is captured."""
        if TRAINING.value:  # dropout draws a number for each element
            return sizes
        return sizes | {
            axis.name: bucket_length(sizes[axis.name], axis.bound)
            for axis in wanted.graph.varying
            if axis.name in wanted.paddable & sizes.keys()
        }

    def _captured(self, wanted: _Wanted, arrays: Mapping[str, NDArray[Any]]) -> _Forward:
        places = {n: placed(a, self.device, a.dtype.name) for n, a in arrays.items()}

        def outputs(**tensors: Tensor) -> dict[str, Tensor]:
            return self.outputs(wanted.graph, tensors)

        return _Forward(self.capture(outputs, ("outputs", show(wanted.graph))), places)

    def outputs(self, graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of a graph of the model's, computed now."""
        given = {n: self._cast(t) for n, t in tensors.items()}
        outputs = interpret.forward(self.run(self.lowered(graph, given)), given)
        # Where an output is an input, or a part of one, the JIT would keep that of the capture.
        realized = [_readable(out).clone() for out in outputs.values()]
        Tensor.realize(*realized)
        return dict(zip(outputs, realized, strict=True))

    def loss(self, arrays: Mapping[str, NDArray[Any]]) -> Tensor:
        """The graph's loss for inputs and labels, []."""
        _ = self.parameters  # drawn now: the lock comes before `one_thread`, as everywhere
        with one_thread:
            tensors = {name: self.placed(array) for name, array in arrays.items()}
            program = self.lowered(self.graph, tensors, trains=True)
            return interpret.loss(self.run(program), tensors)


def with_outputs(graph: Graph, wanted: Sequence[str]) -> Graph:
    """The graph of these outputs alone, and of no loss."""
    outputs = tuple((name, ref) for name, ref in graph.outputs if name in wanted)
    nodes = drop_unused(graph.nodes, {ref for _, ref in outputs})
    return replace(graph, nodes=nodes, outputs=outputs, labels=(), loss=None)


def _readable(out: Tensor) -> Tensor:
    """An output in a dtype that NumPy has too."""
    return out.cast(dtypes.float32) if out.is_floating_point() else out


def known_value(message: str, value: str, known: Collection[str]) -> str:
    """A value that is one of those known; `ArchError` for any other."""
    if value not in known:
        fail(
            "argument-value",
            f"{message} {value}",
            expected=listing(known),
            help=did_you_mean(value, known),
        )
    return value
