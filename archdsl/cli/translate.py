"""`archdsl translate`: text to text with an encoder-decoder, greedy or by beam search."""

from __future__ import annotations

import argparse
import json
import sys

from archdsl.cli.common import Subparsers, add_machine, add_spec, command, compiled, say
from archdsl.cli.waiting import put
from archdsl.progress import each


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "translate",
        "turn text into text with an encoder-decoder",
        "archdsl translate my.arch 'a text' --weights w.npz --vocab tokens.txt --beams 5",
    )
    add_spec(parser)
    parser.add_argument("text", nargs="+", help="sources; `-` is the lines of standard input")
    parser.add_argument(
        "--vocab",
        metavar="PATH",
        required=True,
        help="the tokens: a line each (.txt), .json, a plain .pkl, or package:NAME/FILE",
    )
    for end in ("bos", "eos", "pad"):
        parser.add_argument(
            f"--{end}", metavar="TOKEN", help="its name, where it is not a usual one"
        )
    parser.add_argument(
        "--beams", type=int, default=1, help="1 is greedy (default: %(default)s)"
    )
    parser.add_argument("--best", type=int, metavar="N", help="print only the N best")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="with both ends")
    parser.add_argument(
        "--length-penalty", type=float, default=0.0, help="alpha of Wu et al. 2016 (default: 0)"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each source")
    add_machine(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    model = compiled(args)
    from archdsl.formats import resolve
    from archdsl.runtime.tokenizers import read_vocabulary
    from archdsl.runtime.translate import roles, translate

    roles(model.graph)
    tokenizer = read_vocabulary(resolve(args.vocab), bos=args.bos, eos=args.eos, pad=args.pad)
    if not args.weights:
        say("no --weights: the weights are drawn at random, and so is the text")
    lines = (line.rstrip("\n") for line in sys.stdin)
    sources = [line for line in lines if line.strip()] if args.text == ["-"] else args.text
    for text in each(sources, "translating", "texts", len(sources)):
        found = translate(
            model,
            tokenizer,
            text,
            beams=args.beams,
            max_length=args.max_length,
            length_penalty=args.length_penalty,
            best=args.best,
        )
        rows = [(tokenizer.decode(h.tokens), h.score, h.finished) for h in found]
        if args.json:
            hypotheses = [{"text": t, "score": s, "finished": f} for t, s, f in rows]
            put(json.dumps({"source": text, "hypotheses": hypotheses}))
            continue
        if len(sources) > 1:
            put(text)
        width = max(len(t) for t, _, _ in rows)
        for target, score, finished in rows:
            end = "" if finished else "  (cut off)"
            put(f"{target:<{width}}  {score:9.4f}{end}")
    return 0
