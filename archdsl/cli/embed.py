"""`archdsl embed`: embedding vectors of texts, and their cosine similarities."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np

from archdsl.cli.checkpoints import add_checkpoint, find_files, load_model
from archdsl.cli.common import Subparsers, add_command, print_note
from archdsl.cli.progress_line import print_json
from archdsl.diagnostics import fail
from archdsl.files import read_bytes
from archdsl.formats.atomic import replacing
from archdsl.text.tokenizer import read_tokenizer


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "embed",
        "CHECKPOINT TEXT ...",
        "archdsl embed some/minilm 'a cat' 'a kitten' --similarity",
        "archdsl embed some/minilm --file texts.txt -o vectors.npy",
    )
    add_checkpoint(parser)
    # Not `*`, with which argparse finds no text after an option.
    texts = parser.add_argument(
        "texts", metavar="TEXT", nargs="+", default=[], help="texts; optional with --file"
    )

    class File(argparse.Action):
        """Stores the value, and makes TEXT optional."""

        def __call__(self, parser: object, args: object, value: object, *_: object) -> None:
            setattr(args, self.dest, value)
            texts.required = False

    parser.add_argument(
        "--file", metavar="PATH", action=File, help="read texts, one per line; `-` reads stdin"
    )
    parser.add_argument(
        "--tokenizer", metavar="PATH", help="a folder or a file (default: CHECKPOINT)"
    )
    parser.add_argument(
        "--pool",
        choices=("mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean"),
        metavar="NAME",
        help="mean of all token states, cls (the first) or lasttoken, max, "
        "mean_sqrt_len_tokens, or weightedmean (default: the checkpoint's, or mean)",
    )
    parser.add_argument(
        "--normalise",
        action=argparse.BooleanOptionalAction,
        help="scale vectors to length 1 (default: the checkpoint's, or yes)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE.npy", help="write the vectors, one row per text"
    )
    parser.add_argument(
        "--similarity",
        action="store_true",
        help="print the cosine similarity of each pair instead",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: one line per text, or the matrix"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    texts = args.texts + (_read_lines(args.file) if args.file else [])
    if len(texts) < 1 + args.similarity:
        fail(
            "argument-value",
            "similarity needs two texts" if args.similarity else "there is no text",
            expected="two texts or more" if args.similarity else "one text or more",
        )
    # imports tinygrad
    from archdsl.tasks.embed import embed, find_encoder, read_pooling, similarity, tokenize

    source = args.tokenizer or find_files(args) or args.spec
    tokenizer = read_tokenizer(source)
    pooling = read_pooling(source, args.pool)
    if args.normalise is not None:
        pooling = replace(pooling, normalise=args.normalise)
    model = load_model(args)
    rows, cut = tokenize(tokenizer, texts, pooling, find_encoder(model.graph).bound)
    if cut:
        longest = max(map(len, rows))
        print_note(f"truncated to {longest} tokens: text {', '.join(str(n + 1) for n in cut)}")
    vectors = embed(model, rows, pooling)
    if args.output:
        with replacing(args.output) as temporary, temporary.open("wb") as file:
            np.save(file, vectors)
        height, width = vectors.shape
        print_note(f"wrote {args.output}: {height} vectors of size {width}")
    if args.similarity:
        cosines = similarity(vectors).tolist()
        if args.json:
            print_json(cosines)
        else:
            print(_format_table(texts, cosines))
    elif args.json:
        for text, vector in zip(texts, vectors.tolist(), strict=True):
            print_json({"text": text, "vector": vector})
    elif not args.output:
        for text, vector in zip(texts, vectors.tolist(), strict=True):
            numbers = " ".join(f"{number:.6g}" for number in vector)
            print(f"{numbers}" if len(texts) == 1 else f"{text}\n{numbers}")
    return 0


def _format_table(texts: list[str], cosines: list[list[float]]) -> str:
    """Formats similarities: one number for two texts, else a row per text that ends with it."""
    if len(texts) == 2:
        return f"{cosines[0][1]:.6f}"
    return "\n".join(
        " ".join(f"{cosine:7.4f}" for cosine in row) + f"  {text}"
        for text, row in zip(texts, cosines, strict=True)
    )


def _read_lines(path: str) -> list[str]:
    """Returns the non-empty lines of a file."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else read_bytes(path)
        lines = data.decode().split("\n")
        return [line.rstrip("\r") for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        fail("file", f"cannot read `{path}`: {reason}", cause=error)
