"""The candidates of a spec: archdsl, and transformers if it can read the exported model.

All get the same weights and the same inputs. transformers loads the export with the class
that its config names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import archdsl
from archdsl.analysis import analyse
from archdsl.bench.results import Workload
from archdsl.bench.runner import THREADS, Call, Candidate
from archdsl.graph.cost import BYTES, cost
from archdsl.graph.nodes import Graph, Input, Mixture
from archdsl.graph.ops import OPERATORS
from archdsl.graph.sites import parameters, sites
from archdsl.model import Model, build
from archdsl.passes.split_decoding import find_tokens_and_logits, split_decoding
from archdsl.pretrained import export
from archdsl.semantics.model_parameters import Setting

Arrays: TypeAlias = dict[str, NDArray[Any]]

# transformers' name of each of our inputs.
INPUT_NAMES = {
    "tokens": "input_ids",
    "segments": "token_type_ids",
    "source": "input_ids",
    "target": "decoder_input_ids",
    "pixels": "pixel_values",
    "mel": "input_features",
}


@dataclass(frozen=True)
class Subject:
    """A model on disk, which each candidate loads in its own process.

    `published` is the folder of its export for transformers, or None. archdsl loads `weights`,
    or `published` if there are none.
    """

    spec: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    weights: str | None = None
    published: str | None = None
    device: str | None = None
    dtype: str = "float32"
    quantize: str | None = None

    def graph(self) -> Graph:
        """Returns the graph; reads no weights."""
        return analyse(self.spec, settings=self.settings).graph

    def load_archdsl(self) -> Model:
        if self.weights is None and self.published:
            return archdsl.from_pretrained(
                self.published, device=self.device, dtype=self.dtype, quantize=self.quantize
            )
        settings = (self.settings, self.device, self.dtype, 0, "best", self.quantize)
        model = build(self.spec, None, *settings)
        if self.weights:
            model.load(self.weights)
        return model

    def load_transformers(self) -> Any:
        import torch
        import transformers

        torch.set_num_threads(THREADS)
        torch.set_grad_enabled(False)
        quiet: Any = transformers.utils.logging
        quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        assert self.published is not None
        config = transformers.AutoConfig.from_pretrained(self.published)
        model_class = getattr(transformers, config.architectures[0])
        return model_class.from_pretrained(
            self.published, dtype=getattr(torch, self.dtype)
        ).eval()


def save_subject(
    folder: str | Path,
    spec: str,
    settings: Mapping[str, Setting],
    device: str | None = None,
    dtype: str = "float32",
) -> Subject:
    """Saves a spec with random weights to a folder, and its export if the spec has one."""
    analysis = analyse(spec, settings=settings)
    weights, published = f"{folder}/weights.safetensors", f"{folder}/published"
    build(spec, None, settings, device, dtype, 0).save(weights)
    if not any(map.config for map in analysis.maps.values()):
        return Subject(spec, settings, weights, None, device, dtype)
    export(analysis, weights, published, None, 2**40)
    return Subject(spec, settings, weights, published, device, dtype)


def workloads(subject: Subject, rows: int, length: int, new: int) -> list[Workload]:
    """Returns the workloads of a model: a forward pass, and decoding for a language model.

    transformers is a candidate if it can read the export and knows all inputs.
    """
    graph = subject.graph()
    at = {v.name: v.near(length) for v in graph.varying}
    comparable = subject.published is not None and all(
        i.name in INPUT_NAMES for i in graph.inputs
    )

    def pair(ours: Any, theirs: Any, **options: Any) -> tuple[Candidate, ...]:
        options = {"subject": subject, "length": length, **options}
        other = Candidate("transformers", theirs, options, ("torch", "transformers"))
        return (Candidate("archdsl", ours, options), *([other] if comparable else []))

    sizes = "".join(f", {name} = {size}" for name, size in at.items())
    found = [
        Workload(
            f"forward, batch of {rows}{sizes}",
            pair(forward, transformers_forward, rows=rows),
            flops=rows * cost(graph, at).flops,
        )
    ]
    if not isinstance(find_tokens_and_logits(graph), str):
        bound = graph.bounds[split_decoding(graph).axis]
        before = max(min(length, bound - new), 1)
        found.append(
            Workload(
                f"decoding, {new} tokens after {before}",
                pair(decode, transformers_decode, length=before, new=new),
                "tokens",
                new,
                bytes=new * read_bytes(graph, subject.dtype),
            )
        )
    return found


def read_bytes(graph: Graph, dtype: str) -> int:
    """Returns the bytes of weights that a decoding step reads, of experts the chosen ones."""
    plan = split_decoding(graph)
    shapes = {p.path: p.weight.shape for p in parameters(graph)}
    numbers = 0
    for node, around, here in sites(plan.step):
        if node.op in ("embed", "posenc"):  # reads one row per token
            continue
        tied = node.attr.get("tied")
        read = (
            [shapes[f"{tied}.weight"]]
            if tied
            else [w.shape for w in OPERATORS[node.op].weights(here)]
        )
        numbers += sum(map(prod, read)) * prod(
            each.chosen if isinstance(each, Mixture) else each.count for each in around
        )
    return numbers * BYTES[dtype]


def inputs(graph: Graph, rows: int, length: int) -> Arrays:
    """Returns random inputs [rows, …]; varying axes have this length, up to their bound."""
    sizes = {v.name: v.near(length) for v in graph.varying}
    return {
        each.name: _random_array(
            each, (rows, *(axis.size.at(sizes) for axis in each.type.axes))
        )
        for each in graph.inputs
    }


def _random_array(each: Input, shape: tuple[int, ...]) -> NDArray[Any]:
    rng = np.random.default_rng(1)
    if each.type.dtype == "int":
        # Not the first tokens, which are often special ones such as padding.
        below = each.type.below or 2
        return rng.integers(min(8, below - 1), below, shape)
    return rng.standard_normal(shape, np.float32)


def comparable_output(outputs: Mapping[str, Any]) -> NDArray[Any]:
    """Returns the logits, or the first output, at the last position."""
    name = "logits" if "logits" in outputs else next(iter(outputs))
    return last_position(outputs[name].numpy())


def last_position(out: NDArray[Any]) -> NDArray[Any]:
    """Returns [rows, values] of an output [rows, values] or [rows, positions, values]."""
    return np.asarray(out[:, -1] if out.ndim == 3 else out, np.float32)


# -- forward passes --


def forward(subject: Subject, rows: int, length: int) -> Call:
    """A forward pass with archdsl."""
    model = subject.load_archdsl()
    given = inputs(model.graph, rows, length)
    return lambda: comparable_output(model(**given))


def transformers_forward(
    subject: Subject, rows: int, length: int, compiled: bool = False
) -> Call:
    """A forward pass with transformers, optionally with torch.compile."""
    import torch

    model = subject.load_transformers()
    given = _transformers_inputs(subject, rows, length)
    call = torch.compile(model) if compiled else model

    def once() -> NDArray[Any]:
        out = call(**given)
        return last_position((out.logits if "logits" in out else out[0]).float().numpy())

    return once


def _transformers_inputs(subject: Subject, rows: int, length: int) -> dict[str, Any]:
    """Returns the same inputs as PyTorch tensors, with the names of transformers."""
    import torch

    dtype = getattr(torch, subject.dtype)
    tensors = {
        INPUT_NAMES[name]: torch.from_numpy(array)
        for name, array in inputs(subject.graph(), rows, length).items()
    }
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}


# -- decoding --


def prefill(subject: Subject, length: int) -> Call:
    """A prefill with archdsl: from a prompt to the logits of the next token."""
    decoder, (prompt, _) = subject.load_archdsl().decoder(1), random_prompt(subject, length, 0)
    return lambda: decoder.prefill([prompt])


def decode(subject: Subject, length: int, new: int) -> Call:
    """Decoding with archdsl: `new` tokens one by one after a prompt of this length; with a
    carried state, which cannot be taken back, behind those of the calls before."""
    decoder, (prompt, following) = (
        subject.load_archdsl().decoder(1),
        random_prompt(subject, length, new),
    )
    along = (decoder.plan.tokens, *decoder.plan.along)
    given = inputs(subject.graph(), 1, length)
    decoder.begin(**{name: array for name, array in given.items() if name not in along})
    decoder.prefill([prompt])
    goes_on = _carries(subject)

    def once() -> NDArray[Any]:
        if (
            not goes_on and decoder.truncate(length) < length
        ):  # a sliding-window cache has dropped tokens
            decoder.prefill([prompt])
        for token in following:
            logits = decoder.feed(np.array([[token]]))
            logits.argmax()
        return last_position(logits)

    return once


def transformers_prefill(subject: Subject, length: int, compiled: bool = False) -> Call:
    """A prefill with transformers: from a prompt to the logits, with a filled cache."""
    import torch

    model = subject.load_transformers()
    prompt = torch.tensor([random_prompt(subject, length, 0)[0]])
    call = torch.compile(model) if compiled else model
    return lambda: last_position(
        call(prompt, use_cache=True, logits_to_keep=1).logits.float().numpy()
    )


def transformers_decode(subject: Subject, length: int, new: int) -> Call:
    """Decoding with transformers and its cache, as `decode` does."""
    import torch

    model = subject.load_transformers()
    prompt, following = random_prompt(subject, length, new)
    name = INPUT_NAMES[_tokens(subject).name]
    given = _transformers_inputs(subject, 1, length)
    out = model(**{**given, name: torch.tensor([prompt])}, use_cache=True)
    cache_name = "cache_params" if "cache_params" in out else "past_key_values"
    cache, goes_on = out[cache_name], _carries(subject)
    del given[name]
    if "encoder_last_hidden_state" in out:
        given = {"encoder_outputs": (out.encoder_last_hidden_state,)}

    def once() -> NDArray[Any]:
        for token in following:
            step = {**given, name: torch.tensor([[token]])}
            logits = model(**step, **{cache_name: cache}, use_cache=True).logits
            logits.argmax()
        if not goes_on:
            cache.crop(-new)
        return last_position(logits.float().numpy())

    return once


def _carries(subject: Subject) -> bool:
    """Whether decoding carries a state from token to token."""
    return any(state.carried for state in split_decoding(subject.graph()).states)


def _tokens(subject: Subject) -> Input:
    graph = subject.graph()
    tokens = split_decoding(graph).tokens
    return next(each for each in graph.inputs if each.name == tokens)


def random_prompt(subject: Subject, length: int, new: int) -> tuple[list[int], list[int]]:
    """Returns a random prompt of this length, and the `new` tokens that follow."""
    tokens = _random_array(_tokens(subject), (length + new,)).tolist()
    return tokens[:length], tokens[length:]
