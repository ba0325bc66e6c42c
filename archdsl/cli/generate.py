"""`archdsl generate`: texts that go on from prompts, printed as they come."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from archdsl.cli.common import Subparsers, command, texts
from archdsl.cli.speaking import add_model, add_sampling, asked, begun, choice, opened
from archdsl.cli.waiting import put
from archdsl.progress import doing

if TYPE_CHECKING:
    from archdsl.generation.generate import TextChunk
    from archdsl.text.tokenizer import TextTokenizer


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "generate",
        "go on from a text",
        "archdsl generate some/folder 'Once upon a time' --temperature 0.8 --top-p 0.95",
    )
    add_model(parser)
    parser.add_argument(
        "prompt", nargs="+", help="texts to go on from; `-` is the lines of standard input"
    )
    add_sampling(parser, tokens=64, temperature=1.0)
    parser.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="ends a text (repeatable)"
    )
    parser.add_argument(
        "--stop-token",
        metavar="NAME",
        action="append",
        default=[],
        help="a token that ends a text, beside the tokenizer's own (repeatable)",
    )
    parser.add_argument(
        "--slide", action="store_true", help="forget the older half at the context's end"
    )
    parser.add_argument(
        "--log-probs", action="store_true", help="the natural log-probability of each token"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each prompt")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    chosen = choice(args)
    prompts = texts(args.prompt)
    if not prompts:
        return 0
    model, tokenizer = opened(args)
    from archdsl.generation.generate import encode_prompt, stream_text

    limit = None if args.slide else model.session(len(prompts)).decoder.limit
    named = [tokenizer.number(name) for name in args.stop_token]
    how = asked(args, chosen, tokenizer, limit, named)
    how["stop_strings"] = [*args.stop, *how["stop_strings"]]
    said = stream_text(
        model,
        tokenizer,
        [encode_prompt(tokenizer, prompt) for prompt in prompts],
        slide=args.slide,
        **how,
    )
    rows: list[list[TextChunk]] = [[] for _ in prompts]
    now = shown = 0  # the row that is printed as it comes, and how much of it has been
    task = doing("writing", "tokens", how["max_new_tokens"], lambda: max(map(len, rows)))
    seen = sys.stdout.isatty() and not args.json  # the text itself then shows how far it is
    with nullcontext() if seen else task:
        for each in begun(said, len(rows) + 1):  # the first token, and one behind it
            rows[each.row].append(each)
            while not args.json and now < len(rows) and shown < len(rows[now]):
                new = rows[now][shown]
                before = prompts[now] if shown == 0 and len(rows) > 1 else ""
                put(before + new.text, end="")
                shown += 1
                if new.ended:
                    _finish(rows[now], tokenizer, args.log_probs)
                    now, shown = now + 1, 0
    if args.json:
        for prompt, row in zip(prompts, rows, strict=True):
            print(json.dumps(_record(prompt, row, args.log_probs), ensure_ascii=False))
    return 0


def _finish(row: list[TextChunk], tokenizer: TextTokenizer, log_probs: bool) -> None:
    put("")
    if log_probs:
        for each in row:
            text = tokenizer.decode([each.token], skip_special=False)
            put(f"{each.log_prob:10.4f}  {each.token:6}  {text!r}")


def _record(prompt: str, row: list[TextChunk], log_probs: bool) -> dict[str, object]:
    found: dict[str, object] = {
        "prompt": prompt,
        "text": "".join(each.text for each in row),
        "ended": row[-1].ended,
        "tokens": [each.token for each in row],
    }
    return found | ({"log_probs": [each.log_prob for each in row]} if log_probs else {})
