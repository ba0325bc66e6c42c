"""The base Transformer: encodes a source, and decodes 64 tokens one by one.

It is Marian's form, which transformers has: the paper's with a trained bias of the logits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from archdsl.bench.candidates import Subject, inputs, last_position, random_prompt, save_subject
from archdsl.bench.results import Workload
from archdsl.bench.runner import Call, Candidate

BASE = {"vocab": 37000, "act": "relu", "pad_id": 0}
SMALL = {"vocab": 100, "context": 32, "D": 48, "heads": 4, "depth": 2, "inner": 96, "pad_id": 0}


def workloads(folder: Path, small: bool) -> list[Workload]:
    model = save_subject(folder, "marian.arch", SMALL if small else BASE, "CPU")
    length = 8 if small else 64
    options = {"subject": model, "length": length}
    return [
        Workload(
            f"Transformer base, {length} encoded and {length} decoded",
            (
                Candidate("archdsl", ours, options),
                Candidate("PyTorch", theirs, options, ("torch", "transformers")),
            ),
            "tokens",
            length,
        )
    ]


def ours(subject: Subject, length: int) -> Call:
    """archdsl."""
    decoder = subject.load_archdsl().decoder(1)
    source = inputs(subject.graph(), 1, length)["source"]
    tokens = random_prompt(subject, length, 0)[0]

    def once() -> np.ndarray:
        decoder.begin(source=source)
        for token in tokens:
            logits = decoder.feed(np.array([[token]]))
            logits.argmax()
        return last_position(logits)

    return once


def theirs(subject: Subject, length: int) -> Call:
    """transformers with a key-value cache."""
    import torch

    model = subject.load_transformers()
    source = torch.from_numpy(inputs(subject.graph(), 1, length)["source"])
    tokens = random_prompt(subject, length, 0)[0]

    def once() -> np.ndarray:
        memory, cache = (model.get_encoder()(source).last_hidden_state,), None
        for token in tokens:
            out = model(
                encoder_outputs=memory,
                decoder_input_ids=torch.tensor([[token]]),
                past_key_values=cache,
                use_cache=True,
            )
            cache = out.past_key_values
            out.logits.argmax()
        return last_position(out.logits.numpy())

    return once
