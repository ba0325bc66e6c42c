"""Transcription: suitable models, windows of a recording, and the text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.generation.generation_config import (
    SPEECH,
    GenerationConfig,
    read_generation_config,
)
from archdsl.tasks.sound import Spectrogram
from archdsl.tasks.transcribe import (
    Segment,
    Transcriber,
    find_audio_input,
    join_text,
    windows,
)

SIZES = {"vocab": 24, "bins": 6, "length": 5, "context": 9, "D": 8, "heads": 2, "depth": 1}
NAMES = (
    *("<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"),
    *("<|notimestamps|>", "<|endoftext|>"),
)


class Words:
    """Seven special tokens, and then letters."""

    origin = "words"

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return [NAMES.index(text)] if text in NAMES else [0, 0]

    def decode(self, ids: list[int], skip_special: bool = True) -> str:
        return "".join(NAMES[i] if i < len(NAMES) else chr(90 + i) for i in ids)


def transcriber(config: GenerationConfig, **asked: str) -> Transcriber:
    model = archdsl.compile("whisper.arch", device="CPU", seed=3, **SIZES)
    return Transcriber(model, Words(), Spectrogram(6), config, **asked)  # type: ignore[arg-type]


def test_models_that_do_not_transcribe() -> None:
    model = archdsl.compile("whisper.arch", **SIZES)
    assert find_audio_input(model.graph) == ("mel", 6, 10)
    for spec in ("gpt.arch", "vit.arch", "marian.arch"):
        with pytest.raises(ArchError, match="is not a speech recognition model"):
            find_audio_input(archdsl.compile(spec).graph)


def test_recordings_are_cut_at_quiet_places() -> None:
    sound = np.ones(350)
    sound[80:90] = 0  # too early: less than half of a window would remain
    sound[165:175] = 0
    cuts = windows(sound, 200, 10)
    assert all(0 < end - start <= 200 for start, end in cuts)
    assert [start for start, _ in cuts[1:]] == [end for _, end in cuts[:-1]]
    assert (cuts[0][0], cuts[-1][1]) == (0, 350)
    assert 165 <= cuts[0][1] <= 175
    assert windows(sound[:200], 200, 10) == [(0, 200)]


@pytest.mark.long
def test_suppressed_tokens_are_never_generated() -> None:
    sound = np.sin(np.arange(1600) / 9).astype(np.float32)
    (free,) = transcriber(GenerationConfig(suppress_tokens=tuple(range(7))), language="en")(
        sound
    )
    assert not free.finished  # its end is suppressed too
    assert len(free.text) == 9 - 4  # the rest of the context after four tokens
    first = ord(free.text[0]) - 90
    never = GenerationConfig(suppress_tokens=(*range(7), first))
    (other,) = transcriber(never, language="en")(sound)
    assert free.text[0] not in other.text
    begin = GenerationConfig(suppress_tokens=tuple(range(7)), begin_suppress_tokens=(first,))
    (third,) = transcriber(begin, language="en")(sound)
    assert third.text[0] == other.text[0]
    ends = GenerationConfig(suppress_tokens=tuple(i for i in range(24) if i != 6))
    (none,) = transcriber(ends, language="en")(sound)
    assert (none.text, none.finished) == ("", True)


def test_a_long_recording_is_transcribed_in_windows() -> None:
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, 4000).astype(np.float32)
    write = transcriber(GenerationConfig(suppress_tokens=tuple(range(7))))
    segments = list(write(sound))
    assert len(segments) >= 3
    assert [p.start for p in segments[1:]] == [p.end for p in segments[:-1]]
    assert (segments[0].start, segments[-1].end) == (0, 0.25)
    assert len({p.language for p in segments}) == 1
    # A window does not depend on the one before it.
    start, end = (round(t * 16000) for t in (segments[1].start, segments[1].end))
    write._language = segments[0].language
    (alone,) = write(sound[start:end])
    assert alone.text == segments[1].text


def test_unsupported_languages_and_tasks() -> None:
    with pytest.raises(ArchError, match="does not support the language `ed`"):
        transcriber(GenerationConfig(), language="ed")
    english = GenerationConfig(is_multilingual=False)
    with pytest.raises(ArchError, match="does not support the language `de`"):
        transcriber(english, language="de")
    with pytest.raises(ArchError, match="cannot translate"):
        transcriber(english, task="translate")


def test_the_generation_config_is_used(tmp_path: Path) -> None:
    assert read_generation_config(tmp_path, SPEECH) == GenerationConfig()
    text = {
        "suppress_tokens": list(range(7)),
        "begin_suppress_tokens": None,
        "is_multilingual": True,
        "language": "<|de|>",
        "lang_to_id": {"<|de|>": 2},
        "return_timestamps": False,
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(text))
    config = read_generation_config(tmp_path, SPEECH)
    assert config == GenerationConfig(
        suppress_tokens=tuple(range(7)), is_multilingual=True, language="<|de|>", own=True
    )
    sound = np.sin(np.arange(1600) / 9).astype(np.float32)
    (german,) = transcriber(replace(config, max_length=6))(sound)
    assert (german.language, german.finished, len(german.text)) == ("de", False, 2)
    (english,) = transcriber(config, language="en")(sound)
    assert english.language == "en"
    (tmp_path / "generation_config.json").write_text(json.dumps({"return_timestamps": True}))
    with pytest.raises(ArchError, match="return_timestamps is true, which is not supported"):
        read_generation_config(tmp_path, SPEECH)


def test_silence_leaves_no_gap_in_the_text() -> None:
    segments = [Segment(0, 1, text, "en", True) for text in ("a", "", "b")]
    assert join_text(segments) == "a b"
