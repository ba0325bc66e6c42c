"""Runs models for the page: one forward pass, or tokens one by one.

Each task yields answers, JSON data. A wrong request or spec raises `ArchError`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from archdsl.diagnostics import ArchError, fail
from archdsl.execution import inputs
from archdsl.execution.fit import Need, need
from archdsl.graph.cost import format_bytes
from archdsl.graph.nodes import Graph, Input
from archdsl.passes.split_decoding import find_tokens_and_logits
from archdsl.play.arrays import arrays, draw, is_image, lengths, number, summary
from archdsl.play.given import Given
from archdsl.play.inspect import Inspector, Request
from archdsl.play.protocol import GIVEN, RANDOM, RunRequest

if TYPE_CHECKING:
    from archdsl.analysis import Analysis
    from archdsl.model import Model
    from archdsl.text.tokenizer import TextTokenizer

Answer: TypeAlias = dict[str, Any]

_BEST = 5  # of the classes of an image


class Runs:
    """Answers the requests of one page. It keeps the last model with its weights.

    A model that needs more than `memory` bytes is refused before anything is allocated.
    """

    def __init__(self, given: Given, memory: int):
        self.given, self.memory = given, memory
        self._inspector = Inspector(Path(given.folder) if given.folder else None)
        self._last: tuple[object, Model] | None = None
        self._tokenizer: TextTokenizer | ArchError | None = None

    # -- tasks --

    def inputs(self, request: RunRequest) -> Iterator[Answer]:
        """What can be run: the `inputs` with their kinds, `tasks`, `weights`, and `notes`.

        An input is a `text`, `tokens`, an `image`, or `numbers`, which are drawn.
        """
        graph = self._analysis(request).graph
        tokenizer, notes = None, []
        try:
            tokenizer = self._tokenizer_for(graph)
        except ArchError as error:
            notes = [each.message for each in error.diagnostics]
        yield {
            "inputs": [
                {
                    "name": each.name,
                    "kind": _kind(graph, each, tokenizer),
                    "type": str(each.type),
                    "optional": each.default is not None,
                }
                for each in graph.inputs
            ],
            "tasks": [name for name, possible in _POSSIBLE.items() if possible(graph)],
            "weights": [RANDOM, GIVEN] if self._has_weights else [RANDOM],
            "notes": notes,
        }

    def run(self, request: RunRequest) -> Iterator[Answer]:
        """One forward pass: the shape, the mean and the largest values of each output.

        Inputs that are not given are drawn from the seed.
        """
        analysis = self._analysis(request)
        graph = analysis.graph
        tokenizer = self._tokenizer_for(graph)
        given = arrays(graph, request.inputs or {}, tokenizer, self.given.files)
        self._check_memory(graph, max(lengths(graph, given).values(), default=1))
        drawn = draw(graph, given, request.seed)
        values = inputs.check(graph, given | drawn)
        model = self._model(request, analysis)
        predicted = find_tokens_and_logits(graph)
        types = graph.types()
        outputs = []
        for (name, ref), found in zip(graph.outputs, model(**values).values(), strict=True):
            is_text = tokenizer and not isinstance(predicted, str) and name == predicted[1]
            piece = tokenizer.piece if tokenizer and is_text else None
            about = summary(found.numpy()[0], piece)
            outputs.append({"name": name, "type": str(types[ref]), **about})
        yield {"outputs": outputs, "drawn": list(drawn)}

    def generate(self, request: RunRequest) -> Iterator[Answer]:
        """Tokens that follow the given ones: for each a `token`, and its `text` if there is a
        tokenizer; the last one says why it `ended`."""
        from archdsl.generation.text_stream import encode_prompt

        analysis = self._analysis(request)
        graph = analysis.graph
        names = find_tokens_and_logits(graph)
        if isinstance(names, str):
            fail("generation", f"`{graph.name}` cannot generate tokens: {names}")
        tokenizer = self._tokenizer_for(graph)
        value = (request.inputs or {}).get(names[0], "" if tokenizer else None)
        if value is None:
            fail(
                "generation",
                "there is no token to begin with",
                expected="numbers of tokens, such as 1 2 3",
            )
        text = isinstance(value, str) and tokenizer
        prompt = encode_prompt(tokenizer, value) if tokenizer and text else value
        self._check_memory(graph, max(graph.bounds.values(), default=1))
        model = self._model(request, analysis)
        yield {"progress": "compiling kernels"}
        if tokenizer:
            yield from _text(model, tokenizer, prompt, request)
        else:
            yield from _tokens(model, prompt, request)

    def classify(self, request: RunRequest) -> Iterator[Answer]:
        """The most likely classes of an image, with their probabilities."""
        from archdsl.tasks.classify import classify, find_classifier, labels

        analysis = self._analysis(request)
        graph = analysis.graph
        parts = find_classifier(graph)
        values = arrays(graph, request.inputs or {}, None, self.given.files)
        pixels = values.get(parts.image.name)
        if not isinstance(pixels, np.ndarray):
            fail("input", f"there is no image for `{parts.image.name}`")
        self._check_memory(graph, 1)
        probabilities = classify(self._model(request, analysis), pixels)[0]
        folder = Path(self.given.files or "")
        names = labels(folder, parts.classes) if self.given.files else range(parts.classes)
        best = (-probabilities).argsort(kind="stable")[:_BEST].tolist()
        yield {
            "classes": [
                {"label": str(names[index]), "probability": number(probabilities[index])}
                for index in best
            ]
        }

    # -- parts --

    @property
    def _has_weights(self) -> bool:
        return bool(self.given.checkpoint or self.given.weights)

    def _analysis(self, request: RunRequest) -> Analysis:
        return self._inspector.analysis(Request(request.text, request.model, request.values))

    def _model(self, request: RunRequest, analysis: Analysis) -> Model:
        from archdsl.model import Model
        from archdsl.pretrained import from_pretrained

        given = self.given
        seed = request.seed if request.weights == RANDOM else 0
        key = (request.text, request.model, str(request.values or {}), request.weights, seed)
        if self._last and self._last[0] == key:
            return self._last[1]
        self._last = None
        gc.collect()  # frees its memory first
        if request.weights == GIVEN and not self._has_weights:
            fail(
                "argument-value",
                "no weights are given",
                help="`archdsl play FOLDER` opens a model with its weights",
            )
        if request.weights == GIVEN and given.checkpoint and self._is_given(request):
            model = from_pretrained(
                given.checkpoint, None, given.device, given.dtype, 0, "best", None, None, (), {}
            )
        else:
            dtype = given.dtype or "float32"
            model = Model(analysis.graph, analysis.maps, given.device, dtype, seed)
            if request.weights == GIVEN:
                weights = given.weights or given.checkpoint
                assert weights
                model.load(weights, given.map)
        self._last = key, model
        return model

    def _is_given(self, request: RunRequest) -> bool:
        """Whether the model is that of the checkpoint, and nobody has changed it."""
        return request.text == self.given.text and not request.values

    def _check_memory(self, graph: Graph, length: int) -> None:
        found = need(graph, self.given.dtype or "float32", length)
        if found.bytes > self.memory:
            fail(
                "limit",
                f"`{graph.name}` needs more memory than a run may take",
                expected=f"at most {format_bytes(self.memory)}",
                found=_parts(found),
                help="set smaller sizes, or start `archdsl play` with a larger --memory",
            )

    def _tokenizer_for(self, graph: Graph) -> TextTokenizer | None:
        """The tokenizer of the command line, if the model has all its tokens.

        Raises `ArchError` if it cannot be read, although the command line names it.
        """
        names = find_tokens_and_logits(graph)
        if self.given.tokenizer is None or isinstance(names, str):
            return None
        if self._tokenizer is None:
            self._tokenizer = _read_tokenizer(self.given.tokenizer)
        if isinstance(self._tokenizer, ArchError):
            if self.given.needs_tokenizer:
                raise self._tokenizer
            return None
        tokens = next(each for each in graph.inputs if each.name == names[0])
        below = tokens.type.below
        return self._tokenizer if below and self._tokenizer.vocabulary <= below else None


def _text(
    model: Model, tokenizer: TextTokenizer, prompt: list[int], request: RunRequest
) -> Iterator[Answer]:
    from archdsl.generation.sampling import Sampling
    from archdsl.generation.text_stream import stream_text

    chunks = stream_text(
        model,
        tokenizer,
        [prompt],
        max_new_tokens=request.max_new_tokens,
        sampling=Sampling(request.temperature, request.top_k),
        seed=request.seed,
        stop_tokens=tuple(model.ends),
        slide=True,
    )
    for each in chunks:
        yield {"token": each.token, "text": each.text, "ended": each.ended}


def _tokens(model: Model, prompt: Any, request: RunRequest) -> Iterator[Answer]:
    events = model.generate(
        prompt,
        request.max_new_tokens,
        request.temperature,
        request.top_k,
        seed=request.seed,
        slide=True,
    )
    for each in events:
        yield {"token": each.tokens[0], "text": None, "ended": each.ended[0]}


def _read_tokenizer(path: str) -> TextTokenizer | ArchError:
    from archdsl.text.tokenizer import read_tokenizer

    try:
        return read_tokenizer(path)
    except ArchError as error:
        return error


def _kind(graph: Graph, each: Input, tokenizer: TextTokenizer | None) -> str:
    names = find_tokens_and_logits(graph)
    if tokenizer and not isinstance(names, str) and each.name == names[0]:
        return "text"
    if each.type.dtype == "int" and len(each.type.axes) == 1:
        return "tokens"
    return "image" if is_image(each) else "numbers"


def _generates(graph: Graph) -> bool:
    names = find_tokens_and_logits(graph)
    return not isinstance(names, str) and [each.name for each in graph.required] == [names[0]]


def _classifies(graph: Graph) -> bool:
    """Whether `classify` may accept a model; it checks the rest, and imports tinygrad."""
    inputs = graph.required
    return bool(graph.objective("cross_entropy")) and len(inputs) == 1 and is_image(inputs[0])


_POSSIBLE: dict[str, Callable[[Graph], bool]] = {
    "generate": _generates,
    "classify": _classifies,
    "run": lambda graph: True,
}


def _parts(found: Need) -> str:
    """
    >>> _parts(Need(2_000_000, 1_000, 3_000, 2_000_000))
    '2 MB of weights, 1 kB of cache, 3 kB of activations'
    """
    parts = [f"{format_bytes(getattr(found, name))} of {name}" for name in _NEEDS]
    return ", ".join(parts)


_NEEDS = ("weights", "cache", "activations")
