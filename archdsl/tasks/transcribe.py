"""What is said in a sound, written down by an encoder-decoder of log-mel frames.

The decoder's first tokens tell it the language and the task (Radford et al. 2022, section 2.3
and figure 1). Reading sound is left to `sound`, the steps of the decoder to `decoding`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.generation.generate import STOP_TOKEN, Generation
from archdsl.generation.generation_config import GenerationConfig
from archdsl.generation.sampling import Sampling
from archdsl.graph.nodes import Graph
from archdsl.model import Model
from archdsl.progress import each
from archdsl.tasks.sound import Samples, Spectrogram
from archdsl.text.tokenizer import TextTokenizer

TASKS = ("transcribe", "translate")

_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
# GPT-2's vocabulary, which the English-only models have, ends with this one.
_ENGLISH_END = 50256
_QUIET = 5.0  # seconds before a window's end in which the quietest moment is looked for


@dataclass(frozen=True)
class Segment:
    """What is said from `start` to `end`, in seconds; `finished` is false where the model came
    to no end within its context."""

    start: float
    end: float
    text: str
    language: str
    finished: bool


def listener(graph: Graph) -> tuple[str, int, int]:
    """The input of log-mel frames, how many bins it has and how many frames; raises `ArchError`
    for a model that does not write down sound."""
    target = dict(graph.loss.inputs).get("tokens") if graph.loss else None
    others = [each for each in graph.inputs if each.name != target]
    if target and len(others) == 1 and others[0].type.dtype == "float":
        sizes = [axis.size.value for axis in others[0].type.axes]
        if len(sizes) == 2 and sizes[0] is not None and sizes[1] is not None:
            return others[0].name, sizes[0], sizes[1]
    fail(
        "generation",
        f"`{graph.name}` does not write down what is said",
        expected="an input `float[bins, frames]`, a target, and "
        "`loss next_token(logits, target)`",
    )


class Transcriber:
    """A model that writes down sound, with its tokenizer.

    `language` is a code such as "en", `task` one of `TASKS`. Where None they are what `config`
    says, else the most likely language of each recording, and "transcribe". Raises `ArchError`
    for a model or a tokenizer that does no such thing.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: TextTokenizer,
        spectrogram: Spectrogram,
        config: GenerationConfig,
        language: str | None = None,
        task: str | None = None,
    ):
        self._input, _, self._frames = listener(model.graph)
        self._model, self._session = model, model.session(1)
        self._heard: Mapping[str, Any] = MappingProxyType({})  # the frames of the window
        self._tokenizer = tokenizer
        self._spectrogram = spectrogram
        self._start, self._end, self._plain = (
            self._token(name)
            for name in ("<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>")
        )
        self._ends = (self._end, *config.eos_token_id)
        self._processors = config.processors(self._ends)
        limit = self._session.decoder.limit
        new, length = config.max_new_tokens, config.max_length
        self._most = limit if new is None else new
        self._longest = limit if length is None or new is not None else min(limit, length)
        multilingual = config.is_multilingual
        if multilingual is None:
            multilingual = self._end != _ENGLISH_END
        self._languages = self._codes() if multilingual else {}
        code = config.language and config.language.strip("<|>")
        self._language = self._known(language or code)
        task = task or config.task or "transcribe"
        self._task = () if not multilingual else (self._token(f"<|{task}|>"),)
        if task != "transcribe" and not multilingual:
            fail(
                "generation",
                f"`{model.graph.name}` knows English alone, and translates nothing",
            )

    def __call__(self, samples: Samples) -> Iterator[Segment]:
        """What is said in samples at the spectrogram's rate, a window after the other."""
        rate = self._spectrogram.rate
        language = self._language
        cut = windows(samples, self._frames * self._spectrogram.hop, rate)
        for start, end in each(cut, "transcribing", "windows", len(cut)):
            self._hear(samples[start:end])
            if language is None:
                language = self._most_likely()
            ids, finished = self._write(language)
            text = self._tokenizer.decode(ids)
            yield Segment(start / rate, end / rate, text.strip(), language, finished)

    def _hear(self, samples: Samples) -> None:
        size = self._frames * self._spectrogram.hop
        sound = np.pad(samples, (0, size - len(samples)))
        self._heard = MappingProxyType({self._input: self._spectrogram(sound)[None]})

    def _write(self, language: str) -> tuple[list[int], bool]:
        """The best token at each step, to the end of the text or of the context."""
        told = [self._languages[language]] if self._languages else []
        prompt = [self._start, *told, *self._task, self._plain]
        segments = Generation(
            self._model,
            [prompt],
            max_new_tokens=self._most,
            max_length=self._longest,
            sampling=Sampling(temperature=0),
            seed=0,
            stop=self._ends,
            slide=False,
            others=self._heard,
            processors=self._processors,
            log_probs=False,
        )
        ids = [token for segment in segments for token in segment.tokens if token is not None]
        finished = segments.ended == [STOP_TOKEN]
        return ids[:-1] if finished else ids, finished

    def _most_likely(self) -> str:
        """The language whose token the model puts behind the first."""
        if not self._languages:
            return "en"
        logits = self._session.next_logits([[self._start]], self._heard)[0]
        return max(self._languages, key=lambda code: float(logits[self._languages[code]]))

    def _known(self, language: str | None) -> str | None:
        known: Mapping[str, Any] = self._languages or {"en": None}
        if language is not None and language not in known:
            fail(
                "generation",
                f"`{self._tokenizer.origin}` knows no language `{language}`",
                expected=listing(known),
                help=did_you_mean(language, known),
            )
        return language

    def _token(self, name: str) -> int:
        ids = self._tokenizer.encode(name, add_special=False)
        if len(ids) == 1:
            return ids[0]
        fail(
            "tokenizer",
            f"`{self._tokenizer.origin}` has no token `{name}`",
            help="is it the tokenizer of a model that writes down speech?",
        )

    def _codes(self) -> dict[str, int]:
        """The tokens of the languages by code: those between the start and the tasks."""
        found = {}
        for number in range(self._start + 1, self._token("<|translate|>")):
            match = _LANGUAGE.fullmatch(self._tokenizer.decode([number], skip_special=False))
            if match:
                found[match[1]] = number
        return found


def windows(samples: Sequence[float] | Samples, size: int, rate: int) -> list[tuple[int, int]]:
    """Where a recording is cut into windows of at most `size` samples: at the quietest tenth
    of a second near the end of each, so that few words are cut in two.

    >>> windows(np.ones(25, "float32"), 10, 1)
    [(0, 10), (10, 20), (20, 25)]
    """
    sound = np.asarray(samples, np.float64)
    found, start = [], 0
    while len(sound) - start > size:
        latest = start + size
        step = max(rate // 10, 1)
        earliest = max(latest - int(_QUIET * rate), start + size // 2)
        loud = [
            float((sound[place - step : place] ** 2).sum())
            for place in range(latest, earliest, -step)
        ]
        cut = latest - step * int(np.argmin(loud)) - step // 2
        found.append((start, cut))
        start = cut
    return [*found, (start, len(sound))]


def join_text(segments: Sequence[Segment]) -> str:
    """The text of all segments, with a space between two."""
    return " ".join(segment.text for segment in segments if segment.text)
