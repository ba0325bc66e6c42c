"""`archdsl generate`: continues texts, and prints the new text as it is generated."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from archdsl.cli.common import Subparsers, add_command, add_json, read_texts
from archdsl.cli.generation_options import (
    add_model,
    add_sampling,
    buffer_first,
    generation_arguments,
    load_model_and_tokenizer,
    read_decoding_options,
)
from archdsl.cli.progress_line import print_json, print_text
from archdsl.progress import doing
from archdsl.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from archdsl.generation.text_stream import TextChunk


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "generate",
        "CHECKPOINT PROMPT ...",
        "archdsl generate some/folder 'Once upon a time' --temperature 0.8 --top-p 0.95",
        "archdsl generate model.gguf - --max-new-tokens 100 --json < prompts.txt",
    )
    add_model(parser)
    parser.add_argument(
        "prompt",
        metavar="PROMPT",
        nargs="+",
        help="texts to continue; `-` reads lines from stdin",
    )
    add_json(parser, "prompt")
    add_sampling(parser, tokens=64, temperature=1.0)
    parser.add_argument(
        "--stop",
        metavar="TEXT",
        action="append",
        default=[],
        help="stop before TEXT (repeatable)",
    )
    parser.add_argument(
        "--stop-token",
        metavar="TOKEN",
        action="append",
        default=[],
        help="stop at this token, in addition to the tokenizer's end tokens (repeatable)",
    )
    parser.add_argument(
        "--slide",
        action="store_true",
        help="at the end of the context, drop its older half and continue (default: an error)",
    )
    parser.add_argument(
        "--log-probs",
        action="store_true",
        help="print the natural log-probability of each token",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    options = read_decoding_options(args)
    prompts = read_texts(args.prompt)
    if not prompts:
        return 0
    model, tokenizer = load_model_and_tokenizer(args)
    # imports tinygrad
    from archdsl.generation.text_stream import encode_prompt, stream_text

    limit = None if args.slide else model.session(len(prompts)).decoder.limit
    stop_tokens = [tokenizer.number(name) for name in args.stop_token]
    arguments = generation_arguments(args, options, tokenizer, limit, stop_tokens)
    arguments["stop_strings"] = [*args.stop, *arguments["stop_strings"]]
    stream = stream_text(
        model,
        tokenizer,
        [encode_prompt(tokenizer, prompt) for prompt in prompts],
        slide=args.slide,
        **arguments,
    )
    rows: list[list[TextChunk]] = [[] for _ in prompts]
    current = printed = 0  # the row that is being printed, and how many of its chunks are
    count = arguments["max_new_tokens"]
    task = doing("generating", "tokens", count, lambda: max(map(len, rows)))
    # On a terminal the text itself shows the progress.
    streaming = sys.stdout.isatty() and not args.json
    with nullcontext() if streaming else task:
        for each in buffer_first(stream, len(rows) + 1):  # all first tokens, and a second one
            rows[each.row].append(each)
            while not args.json and current < len(rows) and printed < len(rows[current]):
                chunk = rows[current][printed]
                prompt = prompts[current] if printed == 0 and len(rows) > 1 else ""
                print_text(prompt + chunk.text, end="")
                printed += 1
                if chunk.ended:
                    _finish_row(rows[current], tokenizer, args.log_probs)
                    current, printed = current + 1, 0
    if args.json:
        for prompt, row in zip(prompts, rows, strict=True):
            print_json(_as_json(prompt, row, args.log_probs))
    return 0


def _finish_row(row: list[TextChunk], tokenizer: TextTokenizer, log_probs: bool) -> None:
    print_text("")
    if log_probs:
        for each in row:
            text = tokenizer.decode([each.token], skip_special=False)
            print_text(f"{each.log_prob:10.4f}  {each.token:6}  {text!r}")


def _as_json(prompt: str, row: list[TextChunk], log_probs: bool) -> dict[str, object]:
    found: dict[str, object] = {
        "prompt": prompt,
        "text": "".join(each.text for each in row),
        "ended": row[-1].ended,
        "tokens": [each.token for each in row],
    }
    return found | ({"log_probs": [each.log_prob for each in row]} if log_probs else {})
