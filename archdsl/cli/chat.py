"""`archdsl chat`: a conversation in the terminal, by the template that a checkpoint carries.

Ctrl-C stops an answer, and at the prompt the conversation.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from archdsl.cli.common import Subparsers, command, say
from archdsl.cli.speaking import Choice, add_model, add_sampling, asked, begun, choice, opened
from archdsl.cli.waiting import put
from archdsl.diagnostics import ArchError

if TYPE_CHECKING:
    from archdsl.model import Model
    from archdsl.text.tokenizer import TextTokenizer

Messages: TypeAlias = list[dict[str, str]]


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "chat",
        "talk with a model",
        "archdsl chat model.gguf --system 'You answer in one sentence.'",
    )
    add_model(parser)
    parser.add_argument("--system", metavar="TEXT", help="what the model is told beforehand")
    add_sampling(parser, tokens=512, temperature=0.7)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    chosen = choice(args)
    model, tokenizer = opened(args)
    messages: Messages = []
    if args.system:
        messages.append({"role": "system", "content": args.system})
    tokenizer.chat([*messages, {"role": "user", "content": "Hello"}])  # or there is no chat
    asked = ""
    if sys.stdin.isatty():
        import readline  # noqa: F401  # input() then edits lines and remembers them

        asked = "> "
        say("Ctrl-C stops an answer; Ctrl-D, or Ctrl-C once more, ends the chat")
    while True:
        try:
            with _awake():
                line = input(asked)
        except EOFError:
            return 0
        if line.strip():
            messages.append({"role": "user", "content": line})
            messages = _answered(model, tokenizer, messages, args, chosen)


@contextmanager
def _awake() -> Iterator[None]:
    """Python sees a signal that came just before readline waits for a key with the next key, or
    with the next signal: here there is always a next one."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _answered(
    model: Model,
    tokenizer: TextTokenizer,
    messages: Messages,
    args: argparse.Namespace,
    chosen: Choice,
) -> Messages:
    """The messages and the answer, printed as it comes; the oldest go where room lacks."""
    from archdsl.generation.generate import stream_text

    answer = problem = ""
    try:
        how = asked(args, chosen, tokenizer, model.session(1).decoder.limit)
        messages, ids = _fitting(model, tokenizer, messages, how, args.usual_tokens)
        for each in begun(stream_text(model, tokenizer, [ids], **how), 2):
            answer += each.text
            put(each.text, end="")
    except KeyboardInterrupt:
        pass  # what was said until then counts
    except ArchError as error:
        problem = str(error)
    put("")
    if problem:
        say(problem)
    if not answer:  # nor was the question asked
        return messages[:-1]
    return [*messages, {"role": "assistant", "content": answer}]


def _fitting(
    model: Model,
    tokenizer: TextTokenizer,
    messages: Messages,
    how: Mapping[str, Any],
    usual: int,
) -> tuple[Messages, list[int]]:
    """The messages, without the oldest exchanges where the context lacks room for an answer:
    as long as it may be, or where the whole has a length, the usual one or half of that."""
    limit = how["max_length"] or model.session(1).decoder.limit
    room = min(usual, limit // 2) if how["max_length"] else how["max_new_tokens"]
    first = 1 if messages[0]["role"] == "system" else 0
    ids = tokenizer.encode(tokenizer.chat(messages), add_special=False)
    while len(ids) + room > limit and len(messages) > first + 1:
        messages = [*messages[:first], *messages[first + 2 :]]
        ids = tokenizer.encode(tokenizer.chat(messages), add_special=False)
        say("the context is full: the oldest question and its answer are forgotten")
    return messages, ids
