"""`archdsl chat`: a conversation in the terminal, with the checkpoint's chat template.

Ctrl-C stops an answer; at the prompt, it ends the chat.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from archdsl.cli.common import Subparsers, add_command, print_note
from archdsl.cli.generation_options import (
    DecodingOptions,
    add_model,
    add_sampling,
    buffer_first,
    generation_arguments,
    load_model_and_tokenizer,
    read_decoding_options,
)
from archdsl.cli.progress_line import print_text
from archdsl.diagnostics import ArchError
from archdsl.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from archdsl.model import Model

Messages: TypeAlias = list[dict[str, str]]


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "chat",
        "CHECKPOINT",
        "archdsl chat model.gguf --system 'You answer in one sentence.'",
    )
    add_model(parser)
    parser.add_argument("--system", metavar="TEXT", help="the system message (default: none)")
    add_sampling(parser, tokens=512, temperature=0.7)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    options = read_decoding_options(args)
    model, tokenizer = load_model_and_tokenizer(args)
    messages: Messages = []
    if args.system:
        messages.append({"role": "system", "content": args.system})
    # Reports a missing or unsuitable template before the first question.
    tokenizer.chat([*messages, {"role": "user", "content": "Hello"}])
    prompt = ""
    if sys.stdin.isatty():
        import readline  # noqa: F401  # adds line editing and history to input(); not on Windows

        prompt = "> "
        print_note("Ctrl-C stops an answer. Ctrl-D, or Ctrl-C at the prompt, ends the chat.")
    while True:
        try:
            with _timer_signals():
                line = input(prompt)
        except EOFError:
            return 0
        if line.strip():
            messages.append({"role": "user", "content": line})
            messages = _answer(model, tokenizer, messages, args, options)


@contextmanager
def _timer_signals() -> Iterator[None]:
    """Sends SIGALRM ten times a second within the block.

    Python handles a signal that arrives just before readline waits only at the next key or
    the next signal. With the timer there is always a next signal.
    """
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _answer(
    model: Model,
    tokenizer: TextTokenizer,
    messages: Messages,
    args: argparse.Namespace,
    options: DecodingOptions,
) -> Messages:
    """Prints the answer as it is generated, and returns the messages with the answer."""
    from archdsl.generation.text_stream import stream_text  # imports tinygrad

    answer = problem = ""
    try:
        limit = model.session(1).decoder.limit
        arguments = generation_arguments(args, options, tokenizer, limit)
        messages, ids = _fit_context(model, tokenizer, messages, arguments, args.default_tokens)
        for each in buffer_first(stream_text(model, tokenizer, [ids], **arguments), 2):
            answer += each.text
            print_text(each.text, end="")
    except KeyboardInterrupt:
        pass  # the text so far is the answer
    except ArchError as error:
        problem = str(error)
    print_text("")
    if problem:
        print_note(problem)
    if not answer:  # forget the question too
        return messages[:-1]
    return [*messages, {"role": "assistant", "content": answer}]


def _fit_context(
    model: Model,
    tokenizer: TextTokenizer,
    messages: Messages,
    arguments: Mapping[str, Any],
    default_tokens: int,
) -> tuple[Messages, list[int]]:
    """Drops the oldest exchanges until the context has space for an answer.

    The space is `max_new_tokens`. With a `max_length` instead, it is the default number of
    new tokens, or half of `max_length` if that is less.
    """
    max_length = arguments["max_length"]
    limit = max_length or model.session(1).decoder.limit
    space = min(default_tokens, limit // 2) if max_length else arguments["max_new_tokens"]
    first = 1 if messages[0]["role"] == "system" else 0
    ids = tokenizer.encode(tokenizer.chat(messages), add_special=False)
    while len(ids) + space > limit and len(messages) > first + 1:
        messages = [*messages[:first], *messages[first + 2 :]]
        ids = tokenizer.encode(tokenizer.chat(messages), add_special=False)
        print_note("the context is full: dropped the oldest question and its answer")
    return messages, ids
