"""`archdsl score`: the perplexity of a text."""

from __future__ import annotations

import argparse
import sys

from archdsl.cli.common import Subparsers, add_command, add_json
from archdsl.cli.generation_options import add_model, load_model_and_tokenizer
from archdsl.cli.progress_line import print_json
from archdsl.diagnostics import fail
from archdsl.files import read_bytes


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "score",
        "CHECKPOINT FILE.txt",
        "archdsl score some/folder book.txt --window 512 --stride 256",
    )
    add_model(parser)
    parser.add_argument("text", metavar="FILE.txt", help="a text in UTF-8; `-` reads stdin")
    parser.add_argument(
        "--window",
        type=int,
        metavar="TOKENS",
        help="tokens per window (default: the model's bound, at most 1024)",
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="TOKENS",
        help="tokens between the starts of two windows; each token is counted once (default: "
        "--window)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    text = _read_text(args.text)
    model, tokenizer = load_model_and_tokenizer(args)
    from archdsl.tasks.score import score  # imports tinygrad

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
        print_json(result)
        return 0
    print(f"perplexity       {found.perplexity:.4f}")
    print(f"nats per token   {found.nats / found.predicted:.6f}")
    print(f"tokens           {found.tokens:,} ({found.predicted:,} predicted)")
    print(f"windows          {found.windows:,}")
    return 0


def _read_text(path: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == "-" else read_bytes(path)
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fail("file", f"cannot read `{path}`: {reason}", cause=error)
