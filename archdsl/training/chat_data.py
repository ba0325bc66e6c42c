"""Chats as examples: the text of a checkpoint's chat template, and which tokens are answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from archdsl.diagnostics import ArchError, Note, fail
from archdsl.graph.nodes import Input
from archdsl.text.tokenizer import TextTokenizer

MESSAGES = "messages"  # the field of a chat
_ANSWERS = "assistant"  # the role whose messages are learned


def encode_chat(
    tokenizer: TextTokenizer, messages: Any, place: str
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """The tokens [n] of a chat, and which of them are of answers, with their end tokens [n].

    Each answer is encoded apart from the text before it, as a model generates it.

    Raises `ArchError`: "input" for a chat without an answer, "tokenizer" if there is no
    template, or if it writes earlier messages in another way when later ones follow.
    """
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        fail(
            "input",
            f"{place}: `{MESSAGES}` is not a list of messages",
            expected='[{"role": "user", "content": "…"}, {"role": "assistant", …}]',
            found=repr(messages)[:80],
        )
    answers = [n for n, each in enumerate(messages) if each.get("role") == _ANSWERS]
    if not answers:
        fail(
            "input",
            f"{place}: the chat has no answer to learn",
            expected=f'a message with the role "{_ANSWERS}"',
            help="leave the example out",
        )
    whole = _rendered(tokenizer, messages, place)
    tokens: list[int] = []
    marks: list[bool] = []
    done = 0
    for number in answers:
        before = _rendered(tokenizer, messages[:number], place, True) if number else ""
        after = _rendered(tokenizer, messages[: number + 1], place)
        if not whole.startswith(before) or not whole.startswith(after) or len(before) < done:
            fail(
                "tokenizer",
                f"{place}: the chat template writes message {number} in another way when "
                "others follow, so its tokens are not those of an answer",
                help="give one example for each answer, which ends with it",
            )
        end = len(after.rstrip())
        for part, marked in (
            (whole[done : len(before)], False),
            (whole[len(before) : end], True),
        ):
            found = tokenizer.encode(part, add_special=False) if part else []
            tokens += found
            marks += [marked] * len(found)
        done = end
    if not any(marks):
        fail(
            "input", f"{place}: the answers of the chat are empty", help="leave the example out"
        )
    return np.array(tokens, np.uint32), np.array(marks, np.bool_)


def _rendered(
    tokenizer: TextTokenizer, messages: list[Any], place: str, prompt: bool = False
) -> str:
    """The text of messages; errors say where the chat is."""
    try:
        return tokenizer.chat(messages, prompt=prompt)
    except ArchError as error:
        where = Note(f"the chat is at {place}")
        raise ArchError(
            replace(each, notes=(*each.notes, where)) for each in error.diagnostics
        ) from error


def refuse_chat(tokens: Input, place: str) -> NoReturn:
    """Reports chats for a model whose loss says by itself which tokens count."""
    fail(
        "input",
        f"{place}: the loss does not count the answers of a chat alone",
        tokens.span,
        help="write in the spec: "
        f"`loss next_token(logits, {tokens.name}, where = answers: bool[T])`",
    )
