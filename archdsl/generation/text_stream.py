"""The text of a generation, token by token, until an end token or a stop string."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from archdsl.diagnostics import fail, listing
from archdsl.generation.generate import STOP_STRING, STOP_TOKEN, Generation, Predictor, generate
from archdsl.generation.processors import ForbidRows, Processor
from archdsl.generation.sampling import Sampling
from archdsl.text.tokenizer import TextTokenizer

_TEXT_CONTEXT = 8  # last prompt tokens, which the text of the first new token depends on


class TextChunk(NamedTuple):
    """A new token of a row, with the text that it completes.

    `text` is empty while a character or a possible stop string is incomplete. It contains no
    stop strings and no stop tokens. `ended` is that of `TokenEvent`.
    """

    row: int
    text: str
    token: int
    log_prob: float
    ended: str | None


def stream_text(
    model: Predictor,
    tokenizer: TextTokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    stop_strings: Sequence[str] = (),
    stop_tokens: Sequence[int] = (),
    slide: bool = False,
    processors: Sequence[Processor] = (),
    max_length: int | None = None,
) -> Iterator[TextChunk]:
    """Generates text: `generate`, with the text of each token.

    A token that the tokenizer does not have is never chosen: a model may have more rows.

    A row ends after an end token of the tokenizer, after a token of `stop_tokens`, and before
    a string of `stop_strings`, which may start and end inside a token.
    """
    if not all(stop_strings):
        fail("generation", "a stop string is empty", expected="one character or more")
    stop = (*tokenizer.eos, *stop_tokens)
    unknown = _without_text(model, tokenizer, stop)
    events = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        stop=stop,
        slide=slide,
        processors=[*processors, *unknown],
        max_length=max_length,
    )
    if events.needed:
        fail(
            "generation",
            f"`{model.graph.name}` needs more inputs than tokens",
            expected="a model whose only input is tokens",
            found=f"the inputs {listing(sorted(events.needed), 'and')}",
            help="use `archdsl translate` for text to text, `archdsl transcribe` for speech",
        )
    return _text_chunks(events, tokenizer, stop_strings)


def _without_text(
    model: Predictor, tokenizer: TextTokenizer, stop: Sequence[int]
) -> list[Processor]:
    """Returns the rule that forbids tokens that the tokenizer does not have, if any."""
    below = max((each.type.below or 0 for each in model.graph.inputs), default=0)
    unknown = sorted({*tokenizer.without_token(below)} - {*stop})
    return [ForbidRows(tuple(unknown))] if unknown else []


def _text_chunks(
    events: Generation, tokenizer: TextTokenizer, stop_strings: Sequence[str]
) -> Iterator[TextChunk]:
    """Decodes the events to text. Text that a stop string may begin with is held back."""
    streams = [tokenizer.stream() for _ in events.rows]
    for stream, prompt in zip(streams, events.rows, strict=True):
        for token in prompt[-_TEXT_CONTEXT:]:
            stream.push(token)
    held = [""] * len(streams)
    for event in events:
        for row, new in enumerate(event.tokens):
            log_prob, ended = event.log_probs[row], event.ended[row]
            if new is None or log_prob is None:
                continue
            text = held[row]
            if ended != STOP_TOKEN:
                text += streams[row].push(new)
            if ended:
                text += streams[row].flush()
            places = [place for s in stop_strings if (place := text.find(s)) >= 0]
            if places:
                events.end(row, STOP_STRING)
                text, ended = text[: min(places)], STOP_STRING
            cut = len(text) - (0 if ended else _partial_stop_length(text, stop_strings))
            held[row] = text[cut:]
            yield TextChunk(row, text[:cut], new, log_prob, ended)


def encode_prompt(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Returns the tokens of a prompt: for an empty text the start token, if there is one."""
    ids = tokenizer.encode(text)
    return [tokenizer.bos] if not ids and tokenizer.bos is not None else ids


def _partial_stop_length(text: str, stop_strings: Sequence[str]) -> int:
    """Returns how many characters at the end of a text may begin a stop string."""
    lengths = range(min(len(text), max(map(len, stop_strings), default=1) - 1), 0, -1)
    return next((n for n in lengths if any(s.startswith(text[-n:]) for s in stop_strings)), 0)
