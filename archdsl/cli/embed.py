"""`archdsl embed`: texts as vectors, and how alike they are."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from archdsl.cli.checkpoints import add_checkpoint, opened
from archdsl.cli.common import Subparsers, command, say
from archdsl.diagnostics import fail


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "embed",
        "turn texts into vectors",
        "archdsl embed some/minilm 'a cat' 'a kitten' --similarity",
    )
    add_checkpoint(parser)
    # Not `*`: argparse would find no text behind an option.
    texts = parser.add_argument("texts", metavar="TEXT", nargs="+", default=[])

    class File(argparse.Action):
        """With a file no TEXT is needed."""

        def __call__(self, parser: object, args: object, value: object, *_: object) -> None:
            setattr(args, self.dest, value)
            texts.required = False

    parser.add_argument(
        "--file", metavar="PATH", action=File, help="texts, one a line; `-` is standard input"
    )
    parser.add_argument(
        "--tokenizer", metavar="PATH", help="a folder or a file (default: CHECKPOINT)"
    )
    parser.add_argument(
        "--pool",
        choices=("mean", "cls"),
        help="of a text's tokens (default: as the checkpoint says, else mean)",
    )
    parser.add_argument(
        "--normalise",
        action=argparse.BooleanOptionalAction,
        help="make vectors of length one (default: as the checkpoint says, else yes)",
    )
    parser.add_argument("-o", "--output", metavar="FILE.npy", help="the vectors, a row a text")
    parser.add_argument(
        "--similarity", action="store_true", help="print the cosines of all texts instead"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    texts = args.texts + (_lines(args.file) if args.file else [])
    if len(texts) < 1 + args.similarity:
        fail(
            "argument-value",
            "there are no two texts" if args.similarity else "there is no text",
            expected="two texts or more" if args.similarity else "a line that is not empty",
        )
    from archdsl.tasks.embed import (
        embed,
        encoder,
        read_pooling,
        similarity,
        tokenised,
    )
    from archdsl.text.tokenizer import read_tokenizer

    source = args.tokenizer or args.spec
    tokenizer = read_tokenizer(source)
    pooling = read_pooling(source, args.pool)
    if args.normalise is not None:
        pooling = replace(pooling, normalise=args.normalise)
    model = opened(args)
    rows, cut = tokenised(tokenizer, texts, pooling, encoder(model.graph).bound)
    if cut:
        longest = max(map(len, rows))
        say(f"cut to {longest} tokens: text {', '.join(str(n + 1) for n in cut)}")
    vectors = embed(model, rows, pooling)
    if args.output:
        from archdsl.formats.atomic import replacing

        with replacing(args.output) as temporary, temporary.open("wb") as file:
            import numpy as np

            np.save(file, vectors)
        say(f"wrote {args.output}: {vectors.shape[0]} vectors of {vectors.shape[1]} numbers")
    if args.similarity:
        cosines = similarity(vectors).tolist()
        print(json.dumps(cosines) if args.json else _table(texts, cosines))
    elif args.json:
        for text, vector in zip(texts, vectors.tolist(), strict=True):
            print(json.dumps({"text": text, "vector": vector}))
    elif not args.output:
        for text, vector in zip(texts, vectors.tolist(), strict=True):
            numbers = " ".join(f"{number:.6g}" for number in vector)
            print(f"{numbers}" if len(texts) == 1 else f"{text}\n{numbers}")
    return 0


def _table(texts: list[str], cosines: list[list[float]]) -> str:
    """One number for two texts; else a row for each, which ends with the text."""
    if len(texts) == 2:
        return f"{cosines[0][1]:.6f}"
    return "\n".join(
        " ".join(f"{cosine:7.4f}" for cosine in row) + f"  {text}"
        for text, row in zip(texts, cosines, strict=True)
    )


def _lines(path: str) -> list[str]:
    """The lines of a file that are not empty."""
    try:
        with open(0 if path == "-" else path, encoding="utf-8", closefd=path != "-") as file:
            return [line.rstrip("\r\n") for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        fail("file", f"`{path}` cannot be read: {reason}", cause=error)
