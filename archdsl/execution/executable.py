"""A graph with its weights on a device, and its captured programs.

Nothing here knows generation or text: arrays go in, tensors come out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from numpy.typing import NDArray
from tinygrad import Tensor, dtypes

from archdsl.backend import interpret
from archdsl.backend.context import ExecutionContext
from archdsl.backend.fork import refuse_forked_process
from archdsl.backend.program import Program as Capture
from archdsl.backend.quantized import Quantized, Weights, quantize
from archdsl.backend.target import kernels_for, open_device, supports
from archdsl.backend.tensors import (
    copy_in,
    copy_tensor,
    finish_copies,
    make_contiguous,
    realize_outside_capture,
    refuse_full_device,
    to_device,
    trim_memory,
)
from archdsl.backend.tinygrad_seam import TRAINING, one_thread
from archdsl.diagnostics import fail
from archdsl.execution.arguments import check_choice, whole_number
from archdsl.execution.buckets import bucket_length, paddable_axes, padded_inputs
from archdsl.execution.initial_weights import initial_weights
from archdsl.execution.memory import check_memory, check_sizes
from archdsl.execution.overflow import all_finite, report_overflow
from archdsl.execution.ranges import LARGEST, checked
from archdsl.execution.recent import Recent
from archdsl.execution.weight_reader import WeightReader
from archdsl.formats.host import LazyTensor
from archdsl.graph.cost import BYTES
from archdsl.graph.nodes import Graph
from archdsl.graph.printer import show
from archdsl.graph.sites import Parameter, parameters
from archdsl.graph.types import Type
from archdsl.graph.unused import drop_unused
from archdsl.passes import optimise
from archdsl.passes.program import Program, lower
from archdsl.passes.select_quantizable import select_quantizable
from archdsl.progress import each

if TYPE_CHECKING:
    from archdsl.backend.tuning import Tuner

T = TypeVar("T")

# How matrices are kept if not in the model's dtype: in 8 bits, or quantized as in their file.
QUANTIZATIONS = ("int8", "stored")
KEPT_MEMORY = 1 << 26  # bytes of deleted tensors that are kept for new ones
_UNTRIMMED = 2**27  # bytes of weights that are placed before the memory of copies is freed
_FINITE = "all outputs are finite"  # a flag beside the outputs, if the dtype has a small range
CAPTURES = 32  # forward passes kept, one per combination of input shapes; see `compile`


class Wanted(NamedTuple):
    """A graph of the model's weights, the types of its outputs, and the axes that can be
    padded. The `key` identifies it among the graphs of the model."""

    key: tuple[object, ...]
    graph: Graph
    types: dict[str, Type]
    paddable: frozenset[str]

    @staticmethod
    def of(graph: Graph, *key: object) -> Wanted:
        types = graph.types()
        found = {name: types[ref] for name, ref in graph.outputs}
        return Wanted(key, graph, found, paddable_axes(graph))


class _Forward(NamedTuple):
    """A forward pass captured for some input shapes, and the tensors that hold its inputs."""

    capture: Capture[dict[str, Tensor]]
    inputs: dict[str, Tensor]


class Executable:
    """A graph on one device, in one dtype. Weights are allocated on first use.

    Threads may share an executable: a forward pass holds `lock`, since its memory is shared.
    Different executables run in parallel; only their captures wait for each other.
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
        check_sizes(graph)
        self.graph = optimise(graph)
        self.dtype = check_choice("a model cannot be of dtype", dtype, BYTES)
        self.kernels = check_choice("kernels cannot be", kernels, ("best", "tinygrad"))
        self.quantize = quantize and check_choice("weights cannot be", quantize, QUANTIZATIONS)
        self.seed, self.tuner = whole_number("seed", seed), tuner
        self.weights: dict[str, Parameter] = {p.path: p for p in parameters(graph)}
        self.lock = threading.RLock()
        self._version = 0
        self._full: frozenset[str] = frozenset()  # weights that are never quantized
        self._asked_device = device
        self._device: str | None = None
        self._parameters: Weights | None = None
        self._constants: dict[tuple[object, ...], Tensor] = {}
        self.devices: tuple[str, ...] = ()  # those that the weights are split over, if any
        self._split: Mapping[str, int] = {}  # the axis of each weight that is split
        self._holder: Executable | None = None  # has the weights, after `split_over`
        self._captures: Recent[_Forward] = Recent(CAPTURES)
        self._wanted: dict[tuple[str, ...], Wanted] = {}

    @property
    def device(self) -> str:
        """tinygrad's name of the device, opened on first use."""
        # Read without the lock if it is set: a capture reads it, and a thread that holds the
        # lock may be waiting for that capture.
        if self._device is None:
            with self.lock:
                self._device = self._device or self._open_device()
        return self._device

    def _open_device(self) -> str:
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
        """The device whose kernels of ours are used, None if only tinygrad's are."""
        return kernels_for(self.device) if self.kernels == "best" else None

    # -- weights --

    @property
    def parameters(self) -> Weights:
        """The weights by path, in the order of the spec; drawn from the seed on first use."""
        if self._parameters is None:
            with self.lock:
                self._parameters = self._parameters or self._initial_weights()
        return self._parameters

    def _initial_weights(self) -> Weights:
        if self._holder is not None:
            holder, self._holder = self._holder, None
            return self._moved(holder)
        rule, numbers = self.graph.init[0], dict(self.graph.init[1])
        weights = {path: each.weight for path, each in self.weights.items()}
        check_memory(self.graph, weights, self.device)
        values = initial_weights(weights, rule, numbers, self.seed)
        tensors = ((name, to_device(value, self.device)) for name, value in values)
        return self._placed_weights(tensors, "drawing weights")

    def fill(self, found: Mapping[str, LazyTensor]) -> None:
        """Sets weights from tensors by path, read one at a time; the others stay."""
        with self.lock:
            own = self.parameters.stored() if self.weights.keys() - found.keys() else {}
            ranged = checked(found, self.dtype)
            reader = WeightReader(self.device, self.dtype, self.quantize, found.values())
            tensors = ((name, reader.read(stored)) for name, stored in ranged)
            new = self._placed_weights(tensors, "loading weights").stored()
            self._set_weights({**own, **new})
            self._drop_captures()

    def extended(self, graph: Graph, more: Mapping[str, NDArray[Any]]) -> Executable:
        """A model of another graph: it has the weights `more`, float32, and shares the other
        ones with this model. Those of `more` are never quantized."""
        found = self._another(graph, self.device, self.quantize)
        found._full = self._full | more.keys()
        with one_thread:
            placed = {
                path: realize_outside_capture(to_device(each, self.device).cast(self.dtype))
                for path, each in more.items()
            }
        found._set_weights(self.parameters.stored() | placed)
        return found

    def copied_to(self, device: str) -> Executable:
        """An equal model on another device. Its weights are copies, and not quantized.

        Raises `ArchError` (`model`) if weights are quantized.
        """
        if self.parameters.quantized:
            fail(
                "model",
                "a model with quantized weights cannot be copied to another device",
                help="load it without `quantize`, or use one device",
            )
        found = self._another(self.graph, device, quantize=None)
        found.weights = dict(self.weights)
        with one_thread:
            found._set_weights(
                {
                    path: realize_outside_capture(each.to(found.device))
                    for path, each in self.parameters.items()
                }
            )
        return found

    def split_over(self, devices: Sequence[str], axes: Mapping[str, int]) -> Executable:
        """The same model with its weights on several devices. This one has none until it is
        used again: it then takes them back.

        `axes` has the axis of each weight of which a device holds a share; it holds the others
        whole. tinygrad's kernels alone compute on several devices. Raises `ArchError` (`model`)
        if weights are quantized.
        """
        if self.quantize is not None:
            fail(
                "model",
                "a model with quantized weights cannot be split over devices",
                help="load it without `quantize`, or use one device",
            )
        found = self._another(self.graph, devices[0], None, kernels="tinygrad")
        found.weights = dict(self.weights)
        found.devices, found._split = tuple(map(open_device, devices)), axes
        if self._parameters is not None:
            found._parameters = found._moved(self)
        self._holder = found
        return found

    def _moved(self, other: Executable) -> Weights:
        """The weights of an equal model, moved to the devices of this one, one at a time."""
        stored = other.parameters.stored()
        other._parameters = None
        other._drop_captures()
        self._drop_captures()
        moving = ((path, stored.pop(path)) for path in self.weights)
        return self._placed_weights(moving, "moving weights")

    def _another(
        self, graph: Graph, device: str, quantize: str | None, kernels: str | None = None
    ) -> Executable:
        kernels = kernels or self.kernels
        return Executable(graph, device, self.dtype, self.seed, kernels, quantize, self.tuner)

    def _set_weights(self, found: Mapping[str, Tensor | Quantized]) -> None:
        self._parameters = Weights({path: found[path] for path in self.weights}, self.dtype)

    def version(self) -> int:
        """A number that changes when the weights move to other memory, so that programs must be
        captured again.

        Quantized weights that a user has assigned to are quantized again.
        """
        if self.parameters.quantize_assigned():
            with self.lock:
                self._drop_captures()
        return self._version

    def _drop_captures(self) -> None:
        self._captures.clear()  # they read the old memory
        self._version += 1

    def _placed_weights(
        self, tensors: Iterable[tuple[str, Tensor | Quantized]], what: str
    ) -> Weights:
        try:
            return self._load_weights(tensors, what)
        except (MemoryError, RuntimeError) as error:
            refuse_full_device(error, self.device)
            raise

    def _load_weights(
        self, tensors: Iterable[tuple[str, Tensor | Quantized]], what: str
    ) -> Weights:
        """Moves tensors to the device and its dtype; only one at a time is in memory twice."""
        found: dict[str, Tensor | Quantized] = {}
        shrunk = select_quantizable(self.graph) if self.quantize == "int8" else frozenset()
        shrunk -= self._full
        waiting = 0
        with one_thread:
            for name, tensor in each(tensors, what, "tensors", len(self.weights)):
                if isinstance(tensor, Tensor):
                    moved = self._on_devices(name, tensor).cast(self.dtype)
                    tensor = (
                        tensor
                        if moved is tensor
                        else realize_outside_capture(make_contiguous(moved))
                    )
                    if name in shrunk:
                        tensor = quantize(tensor)
                waiting += 4 * prod(self.weights[name].weight.shape)
                found[name] = tensor
                # The memory of the tensors before the cast, and of their copies on the host.
                if waiting > _UNTRIMMED and self.device != "CPU":
                    finish_copies(self.device)
                    waiting = 0
            finish_copies(self.device)
        return Weights(found, self.dtype)

    def _on_devices(self, path: str, tensor: Tensor) -> Tensor:
        """A weight on the device, or split over the devices."""
        if not self.devices:
            return tensor.to(self.device)
        on_one = tensor if isinstance(tensor.device, str) else tensor.to(self.device)
        return on_one.shard(self.devices, self._split.get(path))

    # -- programs --

    def lowered(
        self,
        graph: Graph,
        inputs: Mapping[str, Any],
        trains: bool = False,
        rows: int | None = None,
    ) -> Program:
        """The program of one of the model's graphs, for inputs of these shapes. Without inputs
        the batch has `rows`."""
        batch, sizes = interpret.measured(graph, inputs)
        return lower(graph, rows or batch, sizes, self.dtype, self.target, trains)

    def run(self, program: Program) -> ExecutionContext:
        """The weights, constants and device that a program runs with."""
        weights = self.parameters
        for name, tensor in weights.in_memory().items():
            if isinstance(tensor.device, tuple) and not self.devices:
                _, _, path = name.partition(" ")
                fail(
                    "device",
                    f"the weight `{path}` is spread over {len(tensor.device)} devices",
                    expected="a model on one device: captured layers share no other memory",
                    help="assign whole tensors; use a smaller dtype if it does not fit",
                )
        return ExecutionContext(
            program,
            weights,
            self._constants,
            self.device,
            weights.quantized,
            devices=self.devices,
        )

    def capture(
        self,
        function: Callable[..., T],
        key: tuple[object, ...],
        state: Mapping[str, Tensor] | None = None,
    ) -> Capture[T]:
        """Captures a function of tensors at its first call, and tunes it if the model is tuned.

        The capture is stored for later processes under `key`, which must identify what the
        function computes. `state` are the tensors besides the weights that it reads or
        writes, by name.
        """
        return Capture(
            function,
            self.device,
            self.tuner,
            key=(self.dtype, self.kernels, *key),
            known=lambda: self.parameters.in_memory() | dict(state or {}),
            constants=self._constants,
            spread=bool(self.devices),
        )

    def placed(self, array: NDArray[Any]) -> Tensor:
        """An input on the device; floats in the dtype of the weights."""
        return self.cast(self.copied_in(array))

    def copied_in(self, array: NDArray[Any]) -> Tensor:
        """An array on the device, or whole on each of several devices."""
        found = to_device(array, self.device, array.dtype.name)
        return realize_outside_capture(found.to(self.devices)) if self.devices else found

    def cast(self, tensor: Tensor) -> Tensor:
        return tensor.cast(self.dtype) if tensor.is_floating_point() else tensor

    # -- whole sequences --

    def forward(
        self, arrays: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        """These outputs by name, each [B, …], for inputs by name, each [B, …]."""
        names = tuple(outputs)
        with self.lock:
            if names not in self._wanted:
                self._wanted[names] = Wanted.of(with_outputs(self.graph, names), *names)
            return self.compute(self._wanted[names], arrays)

    def compute(self, wanted: Wanted, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """The outputs of a graph by name, each [B, …], for its inputs by name, each [B, …].

        Axes that can be padded are, so that a few captures serve all lengths.
        """
        with self.lock:
            self.version()
            rows, sizes = interpret.measured(wanted.graph, arrays)
            padded = padded_inputs(wanted.graph, arrays, self._bucket(wanted, sizes))
            shapes = ((name, array.shape) for name, array in padded.items())
            key = (TRAINING.value, wanted.key, *shapes)
            capture, places = self._captures.get(key, lambda: self._captured(wanted, padded))
            for name, array in padded.items():
                copy_in(places[name], array)
            found = capture(**places)
            if _FINITE in found and not found[_FINITE].item():
                self._report_overflow(wanted.graph, arrays)
            # Every call of a capture writes its outputs to the same memory.
            copies = {
                name: copy_tensor(
                    found[name], (rows, *(axis.size.at(sizes) for axis in type.axes))
                )
                for name, type in wanted.types.items()
            }
            # Outputs of the next call may reuse the memory of those of the last one.
            size = sum(int(each.nbytes()) for each in copies.values())
            trim_memory(self.device, max(2 * size, KEPT_MEMORY))
            return copies

    def _bucket(self, wanted: Wanted, sizes: dict[str, int]) -> dict[str, int]:
        """The sizes of the varying axes that the capture of a forward pass has."""
        if TRAINING.value:  # dropout draws one number per element
            return sizes
        return sizes | {
            axis.name: bucket_length(sizes[axis.name], axis.bound)
            for axis in wanted.graph.varying
            if axis.name in wanted.paddable & sizes.keys()
        }

    def _captured(self, wanted: Wanted, arrays: Mapping[str, NDArray[Any]]) -> _Forward:
        places = {n: to_device(a, self.device, a.dtype.name) for n, a in arrays.items()}

        def outputs(**tensors: Tensor) -> dict[str, Tensor]:
            return self.outputs(wanted.graph, tensors)

        return _Forward(self.capture(outputs, ("outputs", show(wanted.graph))), places)

    def outputs(self, graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes the outputs of one of the model's graphs."""
        given = {n: self.cast(t) for n, t in tensors.items()}
        outputs = interpret.forward(self.run(self.lowered(graph, given)), given)
        # Cloned, since the JIT would always return the input of the capture for an output that
        # is an input or a part of one.
        found = {name: _to_numpy_dtype(out).clone() for name, out in outputs.items()}
        floats = [out for out in found.values() if out.is_floating_point()]
        if self.dtype in LARGEST and floats:
            found[_FINITE] = all_finite(floats)
        Tensor.realize(*found.values())
        return found

    def _report_overflow(self, graph: Graph, arrays: Mapping[str, NDArray[Any]]) -> None:
        with one_thread:
            tensors = {name: self.placed(array) for name, array in arrays.items()}
            report_overflow(self.run(self.lowered(graph, tensors)), tensors)

    def loss(self, arrays: Mapping[str, NDArray[Any]]) -> Tensor:
        """The sum of the graph's losses for inputs and labels, []."""
        refuse_forked_process()
        _ = self.parameters  # loaded first: everywhere `lock` is taken before `one_thread`
        with one_thread:
            tensors = {name: self.placed(array) for name, array in arrays.items()}
            program = self.lowered(self.graph, tensors, trains=True)
            return interpret.loss(self.run(program), tensors)


def with_outputs(graph: Graph, wanted: Sequence[str]) -> Graph:
    """The graph that computes only these outputs, without its loss."""
    outputs = tuple((name, ref) for name, ref in graph.outputs if name in wanted)
    nodes = drop_unused(graph.nodes, {ref for _, ref in outputs})
    return replace(graph, nodes=nodes, outputs=outputs, labels=(), losses=())


def _to_numpy_dtype(out: Tensor) -> Tensor:
    """An output in a dtype that NumPy has."""
    return out.cast(dtypes.float32) if out.is_floating_point() else out
