"""Transcription: speech to text with an encoder-decoder of log-mel frames, such as Whisper.

The first tokens of the decoder set the language and the task (Radford et al. 2022, section 2.3
and figure 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

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
# The end token of GPT-2's vocabulary, which the English-only models have.
_ENGLISH_END = 50256
_CUT_SECONDS = 5.0  # a window is cut at the quietest point of its last seconds


@dataclass(frozen=True)
class Segment:
    """The text from `start` to `end`, in seconds.

    `finished` is False if the text was cut off at the maximum length.
    """

    start: float
    end: float
    text: str
    language: str
    finished: bool


class AudioInput(NamedTuple):
    """The input [bins, frames] of log-mel frames."""

    name: str
    bins: int
    frames: int


def find_audio_input(graph: Graph) -> AudioInput:
    """Finds the input of log-mel frames; raises `ArchError` for a model of another kind."""
    loss = graph.objective("next_token")
    target = dict(loss.inputs).get("tokens") if loss else None
    others = [each for each in graph.required if each.name != target]
    if target and len(others) == 1 and others[0].type.dtype == "float":
        sizes = [axis.size.value for axis in others[0].type.axes]
        if len(sizes) == 2 and sizes[0] is not None and sizes[1] is not None:
            return AudioInput(others[0].name, sizes[0], sizes[1])
    fail(
        "generation",
        f"`{graph.name}` is not a speech recognition model",
        expected="an input `float[bins, frames]`, an input of tokens, and "
        "`loss next_token(logits, target)`",
    )


class Transcriber:
    """A speech recognition model with its tokenizer.

    `language` is a code such as "en", `task` one of `TASKS`. The defaults are those of
    `config`; without them, the language of each recording is detected, and the task is
    "transcribe". Raises `ArchError` for a model or a tokenizer of another kind.
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
        self._input, _, self._frames = find_audio_input(model.graph)
        self._model, self._session = model, model.session(1)
        self._audio: Mapping[str, Any] = MappingProxyType({})  # the frames of the window
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
        self._max_new_tokens = limit if new is None else new
        self._max_length = limit if length is None or new is not None else min(limit, length)
        multilingual = config.is_multilingual
        if multilingual is None:
            multilingual = self._end != _ENGLISH_END
        self._languages = self._language_tokens() if multilingual else {}
        code = config.language and config.language.strip("<|>")
        self._language = self._check_language(language or code)
        task = task or config.task or "transcribe"
        self._task = () if not multilingual else (self._token(f"<|{task}|>"),)
        if task != "transcribe" and not multilingual:
            fail(
                "generation",
                f"`{model.graph.name}` is an English-only model, which cannot translate",
                expected="the task `transcribe`",
                found=f"the task `{task}`",
            )

    def __call__(self, samples: Samples) -> Iterator[Segment]:
        """Transcribes samples at the spectrogram's rate, window by window."""
        rate = self._spectrogram.rate
        language = self._language
        cut = windows(samples, self._frames * self._spectrogram.hop, rate)
        for start, end in each(cut, "transcribing", "windows", len(cut)):
            self._set_audio(samples[start:end])
            if language is None:
                language = self._detect_language()
            ids, finished = self._decode(language)
            text = self._tokenizer.decode(ids)
            yield Segment(start / rate, end / rate, text.strip(), language, finished)

    def _set_audio(self, samples: Samples) -> None:
        size = self._frames * self._spectrogram.hop
        sound = np.pad(samples, (0, size - len(samples)))
        self._audio = MappingProxyType({self._input: self._spectrogram(sound)[None]})

    def _decode(self, language: str) -> tuple[list[int], bool]:
        """Decodes greedily; returns the tokens, and whether the model ended the text."""
        codes = [self._languages[language]] if self._languages else []
        prompt = [self._start, *codes, *self._task, self._plain]
        events = Generation(
            self._model,
            [prompt],
            max_new_tokens=self._max_new_tokens,
            max_length=self._max_length,
            sampling=Sampling(temperature=0),
            seed=0,
            stop=self._ends,
            slide=False,
            others=self._audio,
            processors=self._processors,
            log_probs=False,
        )
        ids = [token for event in events for token in event.tokens if token is not None]
        finished = events.ended == [STOP_TOKEN]
        return ids[:-1] if finished else ids, finished

    def _detect_language(self) -> str:
        """Returns the language whose token is the most likely after the start token."""
        if not self._languages:
            return "en"
        logits = self._session.next_logits([[self._start]], self._audio)[0]
        return max(self._languages, key=lambda code: float(logits[self._languages[code]]))

    def _check_language(self, language: str | None) -> str | None:
        known: Mapping[str, Any] = self._languages or {"en": None}
        if language is not None and language not in known:
            fail(
                "generation",
                f"the model does not support the language `{language}`",
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
            help="check that the tokenizer belongs to a speech recognition model",
        )

    def _language_tokens(self) -> dict[str, int]:
        """Returns the token of each language, which precede the task tokens."""
        found = {}
        for number in range(self._start + 1, self._token("<|translate|>")):
            match = _LANGUAGE.fullmatch(self._tokenizer.decode([number], skip_special=False))
            if match:
                found[match[1]] = number
        return found


def windows(samples: Sequence[float] | Samples, size: int, rate: int) -> list[tuple[int, int]]:
    """Returns (start, end) of windows of at most `size` samples.

    A window ends at the quietest tenth of a second near its end, so that few words are split.

    >>> windows(np.ones(25, "float32"), 10, 1)
    [(0, 10), (10, 20), (20, 25)]
    """
    sound = np.asarray(samples, np.float64)
    found, start = [], 0
    while len(sound) - start > size:
        latest = start + size
        step = max(rate // 10, 1)
        earliest = max(latest - int(_CUT_SECONDS * rate), start + size // 2)
        energies = [
            float((sound[place - step : place] ** 2).sum())
            for place in range(latest, earliest, -step)
        ]
        cut = latest - step * int(np.argmin(energies)) - step // 2
        found.append((start, cut))
        start = cut
    return [*found, (start, len(sound))]


def join_text(segments: Sequence[Segment]) -> str:
    """Joins the texts of all segments with spaces."""
    return " ".join(segment.text for segment in segments if segment.text)
