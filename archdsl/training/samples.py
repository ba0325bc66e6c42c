"""The samples of a run: texts that the model generates, with their steps in `samples.txt`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from archdsl.diagnostics import fail
from archdsl.formats.atomic import replacing
from archdsl.generation.generate import Predictor
from archdsl.generation.sampling import Sampling
from archdsl.generation.text_stream import encode_prompt, stream_text
from archdsl.training import metrics
from archdsl.training.data import Data
from archdsl.training.settings import Settings

NAME = "samples.txt"
_TOKENS = 200  # new tokens of a sample, at most
_PROMPT = 8  # tokens of a prompt that is taken from the data
_SAMPLING = Sampling(temperature=0.8)


def sampler(model: Predictor, data: Data, settings: Settings) -> Callable[[], str] | None:
    """A function that generates a text with the model's weights of the moment.

    It continues `sample_prompt`, or else the begin of the first example. Each call draws the
    same random numbers, so that samples differ by the weights alone. None if no samples are
    wanted. Raises `ArchError` if the data have no tokenizer, if the model does not continue
    texts, or for a prompt that the tokenizer cannot encode.
    """
    if not settings.sample_every:
        return None
    tokenizer, loss = data.tokenizer, model.graph.objective("next_token")
    if tokenizer is None or loss is None or len(model.graph.required) != 1:
        reason = "the data have no tokenizer" if loss else "it does not predict the next token"
        fail(
            "argument-value",
            f"`{model.graph.name}` cannot write samples: {reason}",
            help="leave out `sample_every`",
        )
    if settings.sample_prompt:
        prompt = encode_prompt(tokenizer, settings.sample_prompt)
    else:
        tokens = dict(loss.inputs)["tokens"]
        prompt = data.train.batch(np.zeros(1, np.int64))[tokens][0, :_PROMPT].tolist()
    bound = max(each.bound for each in model.graph.varying)
    if not 0 < len(prompt) < bound:
        fail(
            "argument-value",
            "sample_prompt has no tokens" if not prompt else "sample_prompt is too long",
            expected=f"1 to {bound - 1} tokens",
            found=f"{len(prompt)}",
        )

    def sample() -> str:
        session = model.session(1)
        session.forget()
        room = min(_TOKENS, session.decoder.limit - len(prompt))
        chunks = stream_text(
            model,
            tokenizer,
            [prompt],
            max_new_tokens=room,
            sampling=_SAMPLING,
            seed=settings.seed,
        )
        return tokenizer.decode(prompt) + "".join(chunk.text for chunk in chunks)

    return sample


def write(folder: Path) -> None:
    """Writes the samples of a run, each under its step."""
    lines = metrics.read(folder / metrics.NAME)
    texts = (
        f"-- step {each['step']} --\n{each['sample']}\n\n" for each in lines if "sample" in each
    )
    with replacing(folder / NAME) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(texts)
