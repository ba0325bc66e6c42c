"""The model that users hold: call, generate, compute a loss, load and save weights."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tinygrad import Tensor

from archdsl.analysis import analyse
from archdsl.backend.target import open_device
from archdsl.describe.facts import check_sizes
from archdsl.diagnostics import fail, listing
from archdsl.execution import adapters, checkpoints, inputs
from archdsl.execution.arguments import check_choice, is_number, whole_number
from archdsl.execution.executable import Executable
from archdsl.execution.recent import Recent
from archdsl.formats.host import LazyTensor
from archdsl.graph.cost import Cost, cost, parameter_count
from archdsl.graph.nodes import Apply, Graph
from archdsl.graph.sites import Parameter
from archdsl.graph.types import Type
from archdsl.passes.lora import adapted, linear_weights
from archdsl.published.end_tokens import ends_of_spec, padding_that_ends
from archdsl.published.peft import own_map, read_adapter, write_adapter
from archdsl.published.recognise import has_config_json
from archdsl.published.weight_maps import WeightMap
from archdsl.semantics.model_parameters import Setting
from archdsl.syntax import ast

if TYPE_CHECKING:
    from archdsl.backend.quantized import Weights
    from archdsl.backend.tuning import Tuner
    from archdsl.execution.decoder import Decoder
    from archdsl.execution.trace import Trace, Tracer
    from archdsl.execution.train_step import Step
    from archdsl.generation.generate import Generation, Session
    from archdsl.generation.text_stream import TextChunk
    from archdsl.text.tokenizer import TextTokenizer
    from archdsl.training.data import Data
    from archdsl.training.events import Report
    from archdsl.training.loop import Result
    from archdsl.training.repeated_step import RepeatedStep
    from archdsl.training.settings import Settings

DECODERS = 4  # decoders kept with their caches; each belongs to one thread


class Model:
    """A model with all sizes fixed, on one device, in one dtype. `archdsl.compile` makes it.

    Weights are allocated on first use. `graph` is the typed graph; `maps` are the `weights`
    blocks of the spec, by title: the published layouts that it can load. `ends` are the end
    tokens that a published config gives, if known.
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
        self.seed = seed
        self.ends: Collection[int] = ()
        self.source: str | None = None  # the path of the published checkpoint
        self._tuner = None if tune is None else _tuner(tune)
        self.executable = Executable(graph, device, dtype, seed, kernels, quantize, self._tuner)
        self._decoders: Recent[Decoder] = Recent(DECODERS)
        self._sessions: Recent[Session] = Recent(DECODERS)
        self._training: RepeatedStep | None = None
        self._traced: Tracer | None = None

    @property
    def weights(self) -> Mapping[str, Parameter]:
        """The description of each weight, by path."""
        return self.executable.weights

    @property
    def dtype(self) -> str:
        return self.executable.dtype

    @property
    def kernels(self) -> str:
        return self.executable.kernels

    @property
    def quantize(self) -> str | None:
        return self.executable.quantize

    @property
    def device(self) -> str:
        """tinygrad's name of the device, opened on first use."""
        return self.executable.device

    @property
    def parameters(self) -> Weights:
        """The weights by path, in the order of the spec; drawn from the seed on first use.

        Change one with tinygrad's `assign`, or all with `load`. Captured programs read these
        tensors.
        """
        return self.executable.parameters

    def __call__(self, *unnamed: Any, outputs: Any = None, **given: Any) -> dict[str, Tensor]:
        """The outputs by name, each [B, …], for inputs by name, each [B, …].

        Inputs are numpy arrays, lists or tinygrad tensors. A value that does not fit its type
        in the spec raises `ArchError`. `outputs` is a name or several: only what they need is
        computed. Later calls do not change the returned tensors. Threads may share a model.
        Dropout is active only under tinygrad's `Context(TRAINING=1)`.
        """
        if unnamed:
            fail(
                "argument-value",
                "a model takes its inputs by name",
                expected=f"model({', '.join(f'{each.name}=…' for each in self.graph.inputs)})",
                found=f"{len(unnamed)} without a name",
            )
        names = [name for name, _ in self.graph.outputs]
        if outputs is not None:
            wanted = [outputs] if isinstance(outputs, str) else list(outputs)
            names = [check_choice("the model has no output", name, names) for name in wanted]
        return self.executable.forward(inputs.check(self.graph, given), names)

    @property
    def edges(self) -> dict[str, Type]:
        """The inner values that `trace` reads and `patch` replaces: their types by path, in the
        order of execution. `passes.edges` says which there are."""
        return dict(self._tracer.types)

    def trace(self, names: str | Iterable[str] | None = None, /, **given: Any) -> Trace:
        """The inner values of the model by path, for inputs by name: arrays [B, …].

        - `names`: edges such as `h.3.attention`, or patterns such as `h.*.attention.weights`;
          only what they need is computed. Without names, a value is computed when it is read.

        `trace["h.3.attention"]` is an array, `trace.axes("h.3.attention")` has the names of its
        axes, and iterating gives the paths; `edges` has all of them. Raises `ArchError` for an
        unknown name, with the nearest ones, and for inputs as a call does.
        """
        return self._tracer.trace([names] if isinstance(names, str) else names, given)

    def patch(self, patches: Mapping[str, Any], /, **given: Any) -> Trace:
        """The outputs of the model where inner values are replaced, for inputs by name.

        - `patches`: an array [B, …], or a function of the value, by edge or pattern. Functions
          are called in the order of execution; each gets a value that follows from the patches
          before it.

        The result also reads other edges, as that of `trace` does. Raises `ArchError` for an
        unknown edge, and for an array that does not have the type of its edge.
        """
        return self._tracer.patch(patches, given)

    @property
    def _tracer(self) -> Tracer:
        from archdsl.execution.trace import Tracer

        if self._traced is None or self._traced.executable is not self.executable:
            self._traced = Tracer(self.executable, self.graph)
        return self._traced

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuses pickling and copying: its memory belongs to a device of this process."""
        fail(
            "model",
            "a model cannot be pickled or copied",
            help="`model.save(path)` saves its weights; compile the spec again and load them",
        )

    def decoder(self, rows: int, limit: int | None = None) -> Decoder:
        """The model fed step by step, `rows` sequences at once: see `Decoder`."""
        from archdsl.execution.decoder import Decoder

        key = (threading.get_ident(), rows, limit)
        return self._decoders.get(key, lambda: Decoder(self.executable, rows, limit))

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
        """Generates tokens for one prompt or several: an iterator of `TokenEvent`s.

        - `ids`: a list of token ids, or a list of such lists; lengths may differ.
        - `temperature`: 0 takes the most likely token.
        - `stop`: tokens that end a row.
        - `slide`: at the end of the context, drop its older half. Without it, that is an error.

        The same seed gives the same tokens. Raises `ArchError` as `generation.generate` does.
        """
        from archdsl.generation.arguments import token_row, token_rows
        from archdsl.generation.generate import generate
        from archdsl.generation.sampling import Sampling

        return generate(
            self,
            token_rows(ids),
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
            seed=whole_number("seed", seed),
            stop=token_row("stop", stop),
            slide=slide,
        )

    def stream_text(
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
    ) -> Iterator[TextChunk]:
        """Generates text for one prompt or several: an iterator of `TextChunk`, one per token.

        `tokenizer` comes from `archdsl.read_tokenizer`. A text ends at an end token of the
        tokenizer, at a token of `stop_tokens`, or before a string of `stop`. The other
        arguments are those of `generate`.
        """
        from archdsl.generation.sampling import Sampling
        from archdsl.generation.text_stream import encode_prompt, stream_text

        given = [prompts] if isinstance(prompts, str) else prompts
        return stream_text(
            self,
            tokenizer,
            [encode_prompt(tokenizer, prompt) for prompt in given],
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
            seed=whole_number("seed", seed),
            stop_strings=stop,
            stop_tokens=stop_tokens,
            slide=slide,
        )

    def session(self, rows: int) -> Session:
        """A decoder for `rows` sequences that reuses cached prefixes: see `Session`."""
        from archdsl.generation.generate import Session

        key = (threading.get_ident(), rows)
        return self._sessions.get(key, lambda: Session(self.executable, rows))

    def loss(self, **given: Any) -> Tensor:
        """The loss of the spec for inputs and labels: a scalar tensor for `.backward()`.

        It is not captured. Dropout is active under tinygrad's `Context(TRAINING=1)`. Call
        `.backward()` before you read the value: reading drops the graph of the computation.
        Warns if the loss skips an end token because it is padding.
        """
        self._check_loss(stacklevel=3)
        return self.executable.loss(self._batch(given))

    def _check_loss(self, stacklevel: int) -> None:
        """Refuses a model without a loss; warns if the loss skips an end token."""
        if not self.graph.losses:
            fail(
                "model",
                f"`{self.graph.name}` has no loss",
                help="add one to the spec: `loss next_token(logits, tokens)`",
            )
        for text in padding_that_ends(self.graph, self.ends):
            warnings.warn(text, stacklevel=stacklevel)

    def _batch(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays of inputs and labels."""
        arrays = inputs.check(self.graph, given, labels=True)
        for term in self.graph.losses:
            if term.loss.op == "next_token":
                _enough_tokens(self.graph, term.loss, arrays)
        return arrays

    def step(self, batch: Mapping[str, Any], rate: float, **settings: Any) -> Step:
        """One step of training on a batch: gradients, then an update of the weights.

        - `batch`: inputs and labels by name, each [B, …], as `loss` takes them.
        - `rate`: the learning rate of this step.
        - `settings`: those of `training.settings` about the optimizer, `clip`, `ema`, `freeze`
          and `seed`, which decides the masks of dropout. All steps have the same. Of a model
          with an adapter, only the adapter is trained.

        Returns the loss before the update, the length of the gradient, and whether the weights
        `moved`: they stay as they are if a number is not finite. The first call captures the
        step. `load` and `fill` begin anew, without the optimizer's state. Raises `ArchError`
        for a model without a loss, an unknown setting, or another setting than before.
        """
        from archdsl.training.repeated_step import RepeatedStep

        if self._training is None:
            self._check_loss(stacklevel=3)
            self._training = RepeatedStep(self.executable, settings)
        found = self._training(self._batch(batch), rate, settings)
        self._forget()
        return found

    def fit(
        self,
        folder: str | Path,
        *,
        data: str | Path | Data,
        tokenizer: str | Path | TextTokenizer | None = None,
        resume: bool = False,
        report: Report | None = None,
        devices: Sequence[str] = (),
        split: str = "batch",
        **settings: Any,
    ) -> Result:
        """Trains the model, and writes the folder of the run: see `training.run_folder`.

        - `data`: a file or folder, as `training.data.open_data` reads it, or its result.
        - `tokenizer`: of texts: `characters`, `bytes`, `bpe:4096`, or a path.
        - `resume`: continues the run in `folder` from its last checkpoint, bit for bit.
        - `report`: receives a `training.events.Event` after each step.
        - `devices`: the model's device, and others that train it too.
        - `split`: what each device has a share of: "batch"; "tensor", the weights, along all
          axes that `passes.split_weights` finds; or named axes of them, as "heads,vocab".
        - `settings`: see `training.settings.Settings`, such as `steps=2000, batch=12`.

        At the end, the model has the weights of the last step, and with `lora_rank` an adapter,
        which is also in the folder. SIGINT and SIGTERM end the run after the current step, with
        a checkpoint. Raises `ArchError` as `training.loop.fit`
        does, for an unknown setting, and for data that do not fit the model.
        """
        from archdsl.training.data import Data, open_data
        from archdsl.training.devices import fit_on
        from archdsl.training.run_spec import spec_of_run
        from archdsl.training.samples import sampler
        from archdsl.training.settings import settings_from
        from archdsl.training.split import fit_split, split_of
        from archdsl.training.trained import ADAPTER

        self._check_loss(stacklevel=3)
        chosen = settings_from(settings)
        if adapted(self.graph):
            help = "merge it first: `archdsl merge`; or train it with `model.step`"
            fail("model", "a run cannot begin with an adapter", help=help)
        if isinstance(data, Data) and tokenizer is not None:
            help = "give it to `open_data`"
            fail("argument-value", "opened data have their tokenizer already", help=help)
        if not isinstance(data, Data):
            given = (chosen.length, tokenizer, chosen.seed, chosen.pack)
            data = open_data(data, self.graph, *given)
        self.adopt(data)
        spec = spec_of_run(self.graph, Path(folder), resume)
        frozen = self.adapt(chosen)
        places = self._places(devices)
        parts = split_of(self.executable.graph, chosen, len(places), split, frozen)
        try:
            options: dict[str, Any] = {
                "spec": spec,
                "frozen": frozen,
                "source": self.source,
                "resume": resume,
                "report": report,
                "sample": sampler(self, data, chosen),
            }
            one = self.executable
            if parts is None:
                models = [one, *map(one.copied_to, places[1:])]
                result = fit_on(models, folder, data, chosen, **options)
            else:
                result = fit_split(one, places, parts, folder, data, chosen, **options)
            if adapted(self.graph):
                self.save_adapter(Path(folder) / ADAPTER, base=self.source)
            return result
        finally:
            self._forget()

    def _places(self, devices: Sequence[str]) -> list[str]:
        """The names of the model's device and of others."""
        names = [open_device(each) for each in devices]
        if names and (names[0] != self.device or len(set(names)) < len(names)):
            fail(
                "argument-value",
                "the model cannot be trained on these devices",
                expected=f"`{self.device}`, the device of the model, then others",
                found=listing([*devices]),
            )
        return names

    def adopt(self, data: Data) -> None:
        """Takes the graph that data need, if it is another one; the weights stay."""
        if data.graph is not None and data.graph is not self.graph:
            self.executable = self.executable.extended(data.graph, {})
            self.graph = data.graph

    def adapt(self, settings: Settings) -> frozenset[str]:
        """Adds the adapter that the settings of a run describe, if any. Returns the paths of
        the weights that the run does not change."""
        from archdsl.training.finetuning import prepare_finetuning

        executable, frozen = prepare_finetuning(self.executable, settings)
        if executable is not self.executable:
            self.executable, self.graph = executable, executable.graph
        self._training = None
        self._decoders.clear()  # a resumed run reads the weights into other memory
        self._sessions.clear()
        return frozen

    def _forget(self) -> None:
        """Drops cached prefixes, which were computed with other weights."""
        for session in self._sessions:
            session.forget()

    def load(self, path: str | Path, map: str | None = None) -> None:
        """Loads all weights from a file or a folder: .safetensors, .pt, .bin, .npz, .gguf,
        CTranslate2's model.bin, shards with their index, or `package:NAME/file`.

        Tensors have the model's own names or those of a `weights` block of the spec; `map` is
        the block's title. Every weight must be in the file, and every tensor of the file must
        be used or ignored by name. Otherwise `ArchError` lists the mismatches, and nothing
        changes.
        """
        self.fill(checkpoints.read(str(path), self.weights, self.maps, map))
        self.source = None

    def fill(self, found: Mapping[str, LazyTensor]) -> None:
        """Sets weights from tensors by path, read one at a time; the others stay."""
        self.executable.fill(found)
        # Their captured programs read the old memory.
        self._training = None
        self._decoders.clear()
        self._sessions.clear()

    def save(self, path: str | Path) -> None:
        """Writes all weights under the model's own names, to a .safetensors or .npz file."""
        checkpoints.write(path, self.parameters)

    def add_lora(
        self, rank: int, alpha: float = 16.0, targets: Sequence[str] = (), seed: int = 0
    ) -> None:
        """Adds low-rank matrices to linear layers: W x becomes W x + alpha / rank * B A x.

        Hu et al. 2021, section 4.1. B is 0 at first; A is drawn from the seed. Other weights
        stay where they are.

        `targets` are patterns of the layers' paths, such as `h.*.attention` or `**.q`. Without
        any, all linear layers inside of stacks get matrices. Raises `ArchError` for a pattern
        that matches none.
        """
        self._replace(adapters.with_lora(self.executable, rank, alpha, targets, seed))

    def load_adapter(self, path: str | Path) -> None:
        """Loads an adapter in PEFT's format, made for these weights.

        `path` is a folder with `adapter_config.json` and `adapter_model.safetensors`. Raises
        `ArchError` if the adapter does not fit the model, or is not only low-rank matrices.
        """
        found = read_adapter(path, self.maps, linear_weights(self.graph))
        self._replace(adapters.with_adapter(self.executable, found))

    def save_adapter(
        self, folder: str | Path, map: str | None = None, base: str | None = None
    ) -> None:
        """Writes the model's low-rank matrices in PEFT's format.

        The layers have the names of a `weights` block with a config, by default of the first,
        or the model's own. `base` is the name of the base model, for PEFT.
        """
        shapes = linear_weights(self.graph)
        named = {
            title: each
            for title, each in self.maps.items()
            if each.config and has_config_json(each.config)
        }
        if map is not None:
            check_choice("there is no `weights` block with a config", map, named)
        chosen = next(iter(named.values()), own_map(shapes)) if map is None else named[map]
        one = self.graph.objective("next_token") and len(self.graph.required) == 1
        task = "CAUSAL_LM" if one else None
        write_adapter(folder, chosen, adapters.adapter_of(self.executable), shapes, base, task)

    def _replace(self, executable: Executable) -> None:
        """Takes another executable, with its graph."""
        self.executable, self.graph = executable, executable.graph
        self._decoders.clear()
        self._sessions.clear()

    def __repr__(self) -> str:
        return f"<model {self.graph.name}: {parameter_count(self.graph):,} parameters>"

    def _repr_svg_(self) -> str:
        """The figure of the model, which notebooks show."""
        from archdsl.figure.fold import fold
        from archdsl.figure.layout import layout
        from archdsl.figure.svg import svg

        return svg(layout(fold(self.graph)), "light")

    def cost(self, **sizes: int) -> Cost:
        """Parameters, flops and bytes at sizes such as `T=1024`. Allocates nothing."""
        check_sizes(self.graph, sizes)
        return cost(self.graph, sizes, self.dtype)


def build(
    spec: str | ast.File,
    variant: str | None,
    settings: Mapping[str, Setting],
    device: str | None,
    dtype: str,
    seed: int,
    kernels: str = "best",
    quantize: str | None = None,
    tune: float | None = None,
) -> Model:
    """`archdsl.compile` with its settings as a mapping."""
    analysis = analyse(spec, variant, settings)
    model = Model(analysis.graph, analysis.maps, device, dtype, seed, kernels, quantize, tune)
    model.ends = ends_of_spec(analysis.file, analysis.model, analysis.elaborator, analysis.env)
    return model


def _tuner(seconds: float) -> Tuner:
    from archdsl.backend.tuning import Tuner  # rarely needed

    if not is_number(seconds) or not 0 < seconds < math.inf:
        fail(
            "argument-value",
            f"tune cannot be {seconds!r}",
            expected="seconds above 0, as in tune=60",
        )
    return Tuner(seconds)


def _enough_tokens(graph: Graph, loss: Apply, arrays: Mapping[str, Any]) -> None:
    """Rejects tokens of which none is predicted."""
    name, ahead = dict(loss.inputs)["tokens"], loss.attr["ahead"]
    assert isinstance(ahead, int)
    each = next((i for i in graph.inputs if i.name == name), None)
    array = arrays.get(name)
    if array is None:
        return
    lengths = (array != each.pad).sum(1) if each and each.pad is not None else [array.shape[1]]
    if max(lengths) <= ahead:
        fail(
            "input",
            f"`{name}` has no next token to predict",
            each.span if each else None,
            expected=f"at least {ahead + 1} tokens",
            found=f"{max(lengths)}",
        )
