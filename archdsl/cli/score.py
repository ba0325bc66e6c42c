"""`archdsl score`: how well a model predicts a text, as its perplexity."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from archdsl.cli.common import Subparsers, command
from archdsl.cli.speaking import add_model, opened
from archdsl.diagnostics import fail


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "score",
        "tell the perplexity of a text file",
        "archdsl score some/folder book.txt --window 512 --stride 256",
    )
    add_model(parser)
    parser.add_argument("text", metavar="FILE.txt", help="UTF-8; `-` is standard input")
    parser.add_argument(
        "--window",
        type=int,
        metavar="TOKENS",
        help="how many tokens the model sees at once (default: its bound, 1024 at most)",
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="TOKENS",
        help="from one window to the next; each token is counted once (default: the window)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    text = _text(args.text)
    model, tokenizer = opened(args)
    from archdsl.tasks.score import score

    tokens = tokenizer.encode(text)
    *_, found = score(model, tokens, args.window, args.stride)
    result = {
        "perplexity": found.perplexity,
        "nats_per_token": found.nats / found.predicted,
        "tokens": found.tokens,
        "predicted": found.predicted,
        "windows": found.windows,
    }
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"perplexity       {found.perplexity:.4f}")
    print(f"nats per token   {found.nats / found.predicted:.6f}")
    print(f"tokens           {found.tokens:,}, {found.predicted:,} of them predicted")
    print(f"windows          {found.windows:,}")
    return 0


def _text(path: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fail("file", f"`{path}` cannot be read: {reason}", cause=error)
