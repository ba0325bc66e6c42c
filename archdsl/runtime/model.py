"""A compiled model: its graph, its weights, and the forward pass that runs under a JIT."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor, dtypes
from tinygrad.helpers import TRAINING

from archdsl.backend import walk
from archdsl.backend.program import Program, kept
from archdsl.backend.quantized import Quantized, Weights, quantized
from archdsl.backend.target import kernels_for, open_device, supports
from archdsl.backend.tensors import copied, made, placed, put, spare
from archdsl.backend.use import Run
from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, listing
from archdsl.formats.host import Stored
from archdsl.graph.cost import BYTES, Cost, cost
from archdsl.graph.nodes import Graph
from archdsl.graph.printer import show
from archdsl.graph.sites import Parameter, parameters
from archdsl.passes.quantizable import quantizable
from archdsl.progress import each
from archdsl.runtime import checkpoints, inputs
from archdsl.runtime.initial import drawn
from archdsl.semantics.weight_maps import WeightMap

if TYPE_CHECKING:
    from archdsl.backend.tuning import Tuner
    from archdsl.runtime.decoding import Decoder
    from archdsl.runtime.generation import Generation, Reader, Said
    from archdsl.runtime.texts import TextTokenizer

T = TypeVar("T")


# What weights can be instead of numbers of the model's dtype: of 8 bits, or as they are in a
# file that has them quantized.
QUANTIZATIONS = ("int8", "stored")


class _Forward(NamedTuple):
    """A forward pass for inputs of some shapes, and the tensors that it reads them from."""

    program: Program[dict[str, Tensor]]
    inputs: dict[str, Tensor]


class Model:
    """A model with all its sizes fixed, on one device and in one dtype.

    Made by `archdsl.compile`; no weight is allocated until it is needed. `graph` is the
    typed graph, `maps` the published checkpoints that its spec can read.
    """

    def __init__(
        self,
        graph: Graph,
        maps: Mapping[str, WeightMap],
        device: str | None = None,
        dtype: str = "float32",
        seed: int = 0,
        kernels: str = "best",
        quantize: str | None = None,
        tune: float | None = None,
    ):
        self.graph = graph
        self.maps = dict(maps)
        self.dtype = _known("a model cannot be of dtype", dtype, BYTES)
        self.seed = seed
        self.kernels = _known("kernels cannot be", kernels, ("best", "tinygrad"))
        self.quantize = quantize and _known("weights cannot be", quantize, QUANTIZATIONS)
        self._text = show(graph)
        self._tuner = None if tune is None else _tuner(tune)
        self.weights: dict[str, Parameter] = {p.path: p for p in parameters(graph)}
        self._asked_device = device
        self._device: str | None = None
        self._parameters: Weights | None = None
        self._constants: dict[tuple[object, ...], Tensor] = {}
        self._decoders: dict[tuple[int, int | None], Decoder] = {}
        self._readers: dict[int, Reader] = {}
        self._programs: dict[tuple[object, ...], _Forward] = {}

    @property
    def device(self) -> str:
        """tinygrad's name of the device, opened on first use."""
        if self._device is None:
            device = open_device(self._asked_device)
            if not supports(device, self.dtype):
                raise ArchError(
                    Diagnostic(
                        "device",
                        f"{device} cannot compute in {self.dtype} on this machine",
                        help="use float32, or another device: `archdsl doctor` lists them",
                    )
                )
            if self.kernels == "best":
                kernels_for(device)  # programs ask whether our own runner is there
            self._device = device
        return self._device

    @property
    def parameters(self) -> Weights:
        """The weights by path, in the order of the spec; drawn from the seed on first use.

        Change one by tinygrad's `assign`, or all by `load`: captured passes read these tensors.
        """
        if self._parameters is None:
            rule, numbers = self.graph.init[0], dict(self.graph.init[1])
            weights = {path: each.weight for path, each in self.weights.items()}
            values = drawn(weights, rule, numbers, self.seed)
            tensors = ((name, placed(value, self.device)) for name, value in values)
            self._parameters = self._placed(tensors, "drawing weights")
        return self._parameters

    def _placed(self, tensors: Iterable[tuple[str, Tensor | Quantized]], what: str) -> Weights:
        """Tensors on the model's device and in its dtype, one at a time in memory twice."""
        found: dict[str, Tensor | Quantized] = {}
        shrunk = quantizable(self.graph) if self.quantize == "int8" else frozenset()
        for name, tensor in each(tensors, what, "tensors", len(self.weights)):
            if isinstance(tensor, Tensor):
                moved = tensor.to(self.device).cast(self.dtype)
                tensor = tensor if moved is tensor else kept(made(moved))
                if name in shrunk:
                    tensor = quantized(tensor)
            found[name] = tensor
        spare(self.device)  # what the tensors were in before they were cast
        return Weights(found, self.dtype)

    def __call__(self, **given: Any) -> dict[str, Tensor]:
        """The outputs by name, each [B, …], for inputs by name, each [B, …].

        Inputs are numpy arrays, lists or tinygrad tensors; what does not fit the spec's types
        raises `ArchError`. The outputs are the caller's own: no later call changes them.
        Dropout acts under tinygrad's `Context(TRAINING=1)` alone.
        """
        arrays = inputs.check(self.graph, given)
        key = (TRAINING.value, *((name, array.shape) for name, array in arrays.items()))
        if key not in self._programs:
            places = {n: placed(a, self.device, a.dtype.name) for n, a in arrays.items()}
            self._programs[key] = _Forward(self.program(self._outputs, ("outputs",)), places)
        program, places = self._programs[key]
        for name, array in arrays.items():
            put(places[name], array)
        outputs = program(**places)
        # A program writes every call's outputs into the same memory, so they are copied out.
        return {name: copied(out) for name, out in outputs.items()}

    def program(
        self,
        function: Callable[..., T],
        key: tuple[object, ...] | None = None,
        state: dict[str, Tensor] | None = None,
    ) -> Program[T]:
        """A function of tensors as a program on the model's device, tuned if the model is.

        With a `key`, which tells it from the model's others, it is stored for later processes;
        `state` are the tensors beside the weights that it reads and writes, by name.
        """
        return Program(
            function,
            self.device,
            self._tuner,
            key=key and (self._text, self.dtype, self.kernels, *key),
            known=lambda: self.parameters.in_memory() | (state or {}),
            constants=self._constants,
        )

    def decoder(self, rows: int, limit: int | None = None) -> Decoder:
        """The model fed step by step, `rows` sequences at once: see `Decoder`."""
        from archdsl.runtime.decoding import Decoder

        key = (rows, limit)
        if key not in self._decoders:
            self._decoders[key] = Decoder(self, rows, limit)
        return self._decoders[key]

    def generate(
        self,
        ids: Sequence[int] | Sequence[Sequence[int]],
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[int] = (),
        slide: bool = False,
    ) -> Generation:
        """The tokens that follow a prompt, or each of several, piece by piece: see `Piece`.

        `ids` is a list of tokens, or a list of such lists, of whatever lengths; `temperature`
        0 takes the likeliest token; `stop` are tokens that end a row; with `slide` the older
        half of the context is forgotten at its end, which else is an error. The same seed
        gives the same tokens. Raises `ArchError` as `generation.generate` does.
        """
        from archdsl.runtime.generation import generate
        from archdsl.runtime.sampling import Sampling

        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        prompts: Any = ids if len(ids) and np.ndim(ids[0]) else [ids]
        return generate(
            self,
            prompts,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop=stop,
            slide=slide,
        )

    def say(
        self,
        tokenizer: TextTokenizer,
        prompts: str | Sequence[str],
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        stop_tokens: Sequence[int] = (),
        slide: bool = False,
    ) -> Iterator[Said]:
        """The text that follows a prompt, or each of several, as it comes: see `Said`.

        The tokenizer is one of `archdsl.read_tokenizer`'s. A text ends with any of its end
        tokens and of `stop_tokens`, and before any text of `stop`. All else as in `generate`.
        """
        from archdsl.runtime.generation import prompted, saying
        from archdsl.runtime.sampling import Sampling

        given = [prompts] if isinstance(prompts, str) else prompts
        return saying(
            self,
            tokenizer,
            [prompted(tokenizer, prompt) for prompt in given],
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
            seed=seed,
            stop_strings=stop,
            stop_tokens=stop_tokens,
            slide=slide,
        )

    def reader(self, rows: int) -> Reader:
        """A decoder for `rows` sequences that knows what it was fed: see `Reader`."""
        from archdsl.runtime.generation import Reader

        if rows not in self._readers:
            self._readers[rows] = Reader(self, rows)
        return self._readers[rows]

    def _given(self, array: NDArray[Any]) -> Tensor:
        """An input on the device; real numbers in the dtype of the weights."""
        return self._cast(placed(array, self.device, array.dtype.name))

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.cast(self.dtype) if tensor.is_floating_point() else tensor

    def _outputs(self, **tensors: Tensor) -> dict[str, Tensor]:
        outputs = walk.forward(self._run(), {n: self._cast(t) for n, t in tensors.items()})
        # Where an output is an input, or a part of one, the JIT would keep that of the capture.
        realized = [_readable(out).clone() for out in outputs.values()]
        Tensor.realize(*realized)
        return dict(zip(outputs, realized, strict=True))

    def _run(self) -> Run:
        return self.running(self.graph)

    def running(self, graph: Graph) -> Run:
        """What a graph of the model's is computed with."""
        target = kernels_for(self.device) if self.kernels == "best" else None
        weights = self.parameters
        return Run(
            graph, weights, self._constants, self.device, target, quantized=weights.quantized
        )

    def loss(self, **given: Any) -> Tensor:
        """The spec's loss, a scalar that `.backward()` can follow, for inputs and labels.

        It is not captured by the JIT; dropout acts under tinygrad's `Context(TRAINING=1)`.
        `.backward()` comes before its value is read: tinygrad then forgets how it was made.
        """
        if self.graph.loss is None:
            raise ArchError(
                Diagnostic(
                    "model",
                    f"`{self.graph.name}` has no loss",
                    help="state one in the spec: `loss next_token(logits, tokens)`",
                )
            )
        arrays = inputs.check(self.graph, given, labels=True)
        if self.graph.loss.op == "next_token":
            _two_tokens(self.graph, arrays)
        tensors = {name: self._given(array) for name, array in arrays.items()}
        return walk.loss(replace(self._run(), trains=True), tensors)

    def load(self, path: str | Path, map: str | None = None) -> None:
        """Takes all weights from a file or a folder: .safetensors, .pt, .bin, .npz, .gguf,
        CTranslate2's model.bin, shards with their index, or `package:NAME/file`.

        The file's names are the model's own or those of one of the spec's `weights` blocks,
        which `map` can name. Every weight must be in the file, and every tensor of the file
        be used or ignored by name, else `ArchError` lists what is not, and nothing changes.
        """
        self.fill(checkpoints.read(str(path), self.weights, self.maps, map))

    def fill(self, found: Mapping[str, Stored]) -> None:
        """Takes all weights from tensors by path, read one after the other."""
        tensors = ((name, self._stored(name, stored)) for name, stored in found.items())
        self._parameters = self._placed(tensors, "loading weights")
        # What was captured reads the old weights.
        self._programs.clear()
        self._decoders.clear()
        self._readers.clear()

    def _stored(self, name: str, stored: Stored) -> Tensor | Quantized:
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

    def save(self, path: str | Path) -> None:
        """Writes all weights under their own names, to .safetensors or .npz by the suffix."""
        checkpoints.write(path, self.parameters)

    def cost(self, **sizes: int) -> Cost:
        """Parameters, flops and bytes at sizes such as `T=1024`; allocates nothing."""
        bounds = {v.name: v.bound for v in self.graph.varying}
        for name, size in sizes.items():
            if name not in bounds or not 1 <= size <= bounds[name]:
                known = [f"{n} from 1 to {b}" for n, b in bounds.items()]
                raise ArchError(
                    Diagnostic(
                        "argument-value",
                        f"a cost cannot be told for {name} = {size}",
                        expected=", ".join(known) or "no size: none varies",
                        help=did_you_mean(name, bounds) if name not in bounds else None,
                    )
                )
        return cost(self.graph, sizes, self.dtype)


def _readable(out: Tensor) -> Tensor:
    """An output in a dtype that NumPy has too."""
    return out.cast(dtypes.float32) if out.is_floating_point() else out


def _known(message: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise ArchError(
            Diagnostic(
                "argument-value",
                f"{message} {value}",
                expected=listing(known),
                help=did_you_mean(value, known),
            )
        )
    return value


def _tuner(seconds: float) -> Tuner:
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 < seconds < math.inf:
        raise ArchError(
            Diagnostic(
                "argument-value",
                f"tune cannot be {seconds!r}",
                expected="seconds above 0, as in tune=60",
            )
        )
    from archdsl.backend.tuning import Tuner

    return Tuner(seconds)


def _two_tokens(graph: Graph, arrays: Mapping[str, Any]) -> None:
    assert graph.loss is not None
    name = dict(graph.loss.inputs)["tokens"]
    each = next((i for i in graph.inputs if i.name == name), None)
    array = arrays.get(name)
    if array is None:
        return
    lengths = (array != each.pad).sum(1) if each and each.pad is not None else [array.shape[1]]
    if max(lengths) < 2:
        raise ArchError(
            Diagnostic(
                "input",
                f"`{name}`: there is no next token to predict",
                each.span if each else None,
                expected="a sequence of two tokens or more",
                found="one token",
            )
        )
