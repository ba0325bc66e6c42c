"""A model as candidates of a race: archdsl's own, and the library's that published its form.

All are given the same weights and the same inputs. The other library is transformers, which
reads what we export; which class it takes is in the config.
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
from archdsl.graph.nodes import Graph, Input
from archdsl.graph.ops import OPERATORS
from archdsl.graph.sites import parameters, sites
from archdsl.model import Model, build
from archdsl.passes.split_decoding import find_tokens_and_logits, split_decoding
from archdsl.pretrained import export
from archdsl.semantics.models import Setting

Arrays: TypeAlias = dict[str, NDArray[Any]]

# What transformers calls an input of ours, by its name.
THEIRS = {
    "tokens": "input_ids",
    "segments": "token_type_ids",
    "source": "input_ids",
    "target": "decoder_input_ids",
    "pixels": "pixel_values",
    "mel": "input_features",
}


@dataclass(frozen=True)
class Subject:
    """A model as every candidate opens it for itself.

    `published` is its published form, where it has one, which ours opens too where there are
    no `weights` of a form of our own.
    """

    spec: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    weights: str | None = None
    published: str | None = None
    device: str | None = None
    dtype: str = "float32"
    quantize: str | None = None

    def graph(self) -> Graph:
        """The model, for which no weight is read."""
        return analyse(self.spec, settings=self.settings).graph

    def ours(self) -> Model:
        """The model on archdsl."""
        if self.weights is None and self.published:
            return archdsl.from_pretrained(
                self.published, device=self.device, dtype=self.dtype, quantize=self.quantize
            )
        settings = (self.settings, self.device, self.dtype, 0, "best", self.quantize)
        model = build(self.spec, None, *settings)
        if self.weights:
            model.load(self.weights)
        return model

    def theirs(self) -> Any:
        """The model of transformers."""
        import torch
        import transformers

        torch.set_num_threads(THREADS)
        torch.set_grad_enabled(False)
        quiet: Any = transformers.utils.logging
        quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        assert self.published is not None
        config = transformers.AutoConfig.from_pretrained(self.published)
        kind = getattr(transformers, config.architectures[0])
        return kind.from_pretrained(self.published, dtype=getattr(torch, self.dtype)).eval()


def subject(
    folder: str | Path,
    spec: str,
    settings: Mapping[str, Setting],
    device: str | None = None,
    dtype: str = "float32",
) -> Subject:
    """A spec with drawn weights, kept in a folder; published there too where that can be."""
    analysis = analyse(spec, settings=settings)
    weights, published = f"{folder}/weights.safetensors", f"{folder}/published"
    build(spec, None, settings, device, dtype, 0).save(weights)
    if not any(map.config for map in analysis.maps.values()):
        return Subject(spec, settings, weights, None, device, dtype)
    export(analysis, weights, published, None, 2**40)
    return Subject(spec, settings, weights, published, device, dtype)


def workloads(subject: Subject, rows: int, length: int, new: int) -> list[Workload]:
    """A forward pass, and decoding where the model predicts tokens; beside transformers where
    it can read the model."""
    graph = subject.graph()
    at = {v.name: min(length, v.bound) for v in graph.varying}
    beside = subject.published is not None and all(i.name in THEIRS for i in graph.inputs)

    def pair(ours: Any, theirs: Any, **options: Any) -> tuple[Candidate, ...]:
        options = {"subject": subject, "length": length, **options}
        other = Candidate("transformers", theirs, options, ("torch", "transformers"))
        return (Candidate("archdsl", ours, options), *([other] if beside else []))

    sizes = "".join(f", {name} = {size}" for name, size in at.items())
    found = [
        Workload(
            f"forward, batch of {rows}{sizes}",
            pair(forward, their_forward, rows=rows),
            flops=rows * cost(graph, at).flops,
        )
    ]
    if not isinstance(find_tokens_and_logits(graph), str):
        bound = {v.name: v.bound for v in graph.varying}[split_decoding(graph).axis]
        before = max(min(length, bound - new), 1)
        found.append(
            Workload(
                f"decoding of {new} behind {before}",
                pair(decode, their_decode, length=before, new=new),
                "tokens",
                new,
                bytes=new * read_bytes(graph, subject.dtype),
            )
        )
    return found


def read_bytes(graph: Graph, dtype: str) -> int:
    """The bytes of the weights that a step of decoding reads, all experts' among them."""
    plan = split_decoding(graph)
    shapes = {p.path: p.weight.shape for p in parameters(graph)}
    numbers = 0
    for node, around, here in sites(plan.step):
        if node.op in ("embed", "posenc"):  # a row for each token
            continue
        tied = node.attr.get("tied")
        read = (
            [shapes[f"{tied}.weight"]]
            if tied
            else [w.shape for w in OPERATORS[node.op].weights(here)]
        )
        numbers += sum(map(prod, read)) * prod(stack.count for stack in around)
    return numbers * BYTES[dtype]


def inputs(graph: Graph, rows: int, length: int) -> Arrays:
    """Drawn inputs, each [rows, …]; axes that vary have this length, or what bounds them."""
    sizes = {v.name: min(length, v.bound) for v in graph.varying}
    return {
        each.name: _drawn(each, (rows, *(axis.size.at(sizes) for axis in each.type.axes)))
        for each in graph.inputs
    }


def _drawn(each: Input, shape: tuple[int, ...]) -> NDArray[Any]:
    rng = np.random.default_rng(1)
    if each.type.dtype == "int":
        # None of the first few tokens: those are where padding and other special ones are.
        below = each.type.below or 2
        return rng.integers(min(8, below - 1), below, shape)
    return rng.standard_normal(shape, np.float32)


def told(outputs: Mapping[str, Any]) -> NDArray[Any]:
    """What is compared: the logits, or the first output, at the last position."""
    name = "logits" if "logits" in outputs else next(iter(outputs))
    return last(outputs[name].numpy())


def last(out: NDArray[Any]) -> NDArray[Any]:
    """[rows, numbers] of an output [rows, numbers] or [rows, positions, numbers]."""
    return np.asarray(out[:, -1] if out.ndim == 3 else out, np.float32)


# -- all at once --


def forward(subject: Subject, rows: int, length: int) -> Call:
    """archdsl, one forward pass."""
    model = subject.ours()
    given = inputs(model.graph, rows, length)
    return lambda: told(model(**given))


def their_forward(subject: Subject, rows: int, length: int, compiled: bool = False) -> Call:
    """transformers, one forward pass, by PyTorch's compiler or without."""
    import torch

    model = subject.theirs()
    given = _theirs(subject, rows, length)
    call = torch.compile(model) if compiled else model

    def once() -> NDArray[Any]:
        out = call(**given)
        return last((out.logits if "logits" in out else out[0]).float().numpy())

    return once


def _theirs(subject: Subject, rows: int, length: int) -> dict[str, Any]:
    """The same inputs for a model of transformers."""
    import torch

    dtype = getattr(torch, subject.dtype)
    tensors = {
        THEIRS[name]: torch.from_numpy(array)
        for name, array in inputs(subject.graph(), rows, length).items()
    }
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}


# -- step by step --


def prefill(subject: Subject, length: int) -> Call:
    """archdsl, from a prompt to the logits of its next token."""
    decoder, (prompt, _) = subject.ours().decoder(1), prompt_of(subject, length, 0)
    return lambda: decoder.prefill([prompt])


def decode(subject: Subject, length: int, new: int) -> Call:
    """archdsl, `new` tokens one by one behind a prompt of this length."""
    decoder, (prompt, following) = subject.ours().decoder(1), prompt_of(subject, length, new)
    others = inputs(subject.graph(), 1, length)
    del others[decoder.plan.tokens]
    decoder.begin(**others)
    decoder.prefill([prompt])

    def once() -> NDArray[Any]:
        if decoder.truncate(length) < length:  # what has left a window is gone
            decoder.prefill([prompt])
        for token in following:
            logits = decoder.feed(np.array([[token]]))
            logits.argmax()
        return last(logits)

    return once


def their_prefill(subject: Subject, length: int, compiled: bool = False) -> Call:
    """transformers, from a prompt to the logits of its next token, its cache filled."""
    import torch

    model = subject.theirs()
    prompt = torch.tensor([prompt_of(subject, length, 0)[0]])
    call = torch.compile(model) if compiled else model
    return lambda: last(call(prompt, use_cache=True, logits_to_keep=1).logits.float().numpy())


def their_decode(subject: Subject, length: int, new: int) -> Call:
    """transformers with its cache, `new` tokens one by one behind a prompt of this length."""
    import torch

    model = subject.theirs()
    prompt, following = prompt_of(subject, length, new)
    name = THEIRS[_tokens(subject).name]
    given = _theirs(subject, 1, length)
    out = model(**{**given, name: torch.tensor([prompt])}, use_cache=True)
    cache = out.past_key_values
    del given[name]
    if "encoder_last_hidden_state" in out:
        given = {"encoder_outputs": (out.encoder_last_hidden_state,)}

    def once() -> NDArray[Any]:
        for token in following:
            step = {**given, name: torch.tensor([[token]])}
            logits = model(**step, past_key_values=cache, use_cache=True).logits
            logits.argmax()
        cache.crop(-new)
        return last(logits.float().numpy())

    return once


def _tokens(subject: Subject) -> Input:
    graph = subject.graph()
    tokens = split_decoding(graph).tokens
    return next(each for each in graph.inputs if each.name == tokens)


def prompt_of(subject: Subject, length: int, new: int) -> tuple[list[int], list[int]]:
    """A prompt of this length, and the tokens that follow."""
    tokens = _drawn(_tokens(subject), (length + new,)).tolist()
    return tokens[:length], tokens[length:]
