"""`archdsl attend`: draws what the heads of a layer attend to."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from archdsl.cli import checkpoints
from archdsl.cli.common import Subparsers, add_command, add_json, print_note
from archdsl.cli.generation_options import tokenizer_path
from archdsl.cli.progress_line import print_json
from archdsl.cli.translate import add_search, add_tokenizer, load_translator
from archdsl.diagnostics import fail
from archdsl.formats import resolve
from archdsl.text.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from archdsl.figure.attention_maps import AttentionMaps
    from archdsl.model import Model


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "attend",
        "CHECKPOINT INPUT",
        "archdsl attend runs/gpt 'To be, or not to be' --layer 3 --head 0 -o map.svg",
        "archdsl attend some/vit cat.jpg -o cat.png",
        "archdsl attend some/marian 'Guten Tag' --edge 'decoder.*.self.attention'",
    )
    checkpoints.add_checkpoint(parser)
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a text, an image file, or the text that an encoder-decoder translates",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="attention.svg",
        help="an .svg, .png or .pdf file (default: %(default)s)",
    )
    shown = parser.add_argument_group("what is drawn")
    shown.add_argument("--layer", type=int, metavar="N", help="from 0 (default: the last)")
    shown.add_argument(
        "--head", type=int, metavar="N", help="from 0 (default: all, a panel for each)"
    )
    shown.add_argument(
        "--edge",
        metavar="PATTERN",
        help="one of several kinds of attention, such as 'decoder.*.self.attention' (default: "
        "that from target to source, or the first)",
    )
    shown.add_argument(
        "--position",
        type=int,
        metavar="N",
        help="of an image: draw what this position attends to (default: 0, the class token; "
        "without one, the mean of all)",
    )
    parser.add_argument(
        "--preprocessor",
        metavar="FOLDER",
        help="of an image: a folder with preprocessor_config.json (default: CHECKPOINT)",
    )
    add_json(parser)
    add_tokenizer(parser)
    add_search(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    # imports tinygrad
    from archdsl.figure.attention_maps import check_file, draw
    from archdsl.tasks.attend import choose_edge, drawable, kinds

    output = Path(args.output)
    if not args.json:
        check_file(output)
    model = checkpoints.load_model(args)
    edge = choose_edge(model, args.edge, args.layer)
    maps = _maps(args, model, edge)
    heads = _heads(args.head, len(maps.weights))
    query = _query(args.position, maps)
    if args.json:
        weights = maps.weights[heads].tolist()
        found = {"edge": edge, "heads": heads, "queries": maps.queries, "keys": maps.keys}
        print_json(found | {"weights": weights})
        return 0
    draw(maps, heads, query, output)
    (chosen,) = kinds([edge])
    others = [each for each in kinds(drawable(model)) if each != chosen]
    print_note(f"wrote {output}: {edge.removesuffix('.weights')}")
    if args.edge is None and others:
        print_note(f"--edge draws another attention: {', '.join(others)}")
    return 0


def _maps(args: argparse.Namespace, model: Model, edge: str) -> AttentionMaps:
    """The maps of an edge for the text or the image of the arguments."""
    from archdsl.generation.text_stream import encode_prompt
    from archdsl.tasks.attend import attention_maps, find_image, find_tokens, is_translator
    from archdsl.tasks.classify import read_preprocessor

    if image := find_image(model.graph):
        folder = resolve(args.preprocessor or checkpoints.find_files(args) or args.spec)
        pixels = read_preprocessor(folder)(args.input)
        return attention_maps(model, edge, {image.name: pixels[None]})
    if is_translator(model.graph):
        return _translated(args, model, edge)
    tokens = find_tokens(model.graph)
    tokenizer = read_tokenizer(tokenizer_path(args))
    ids = encode_prompt(tokenizer, args.input)
    pieces = [*map(tokenizer.piece, ids)]
    return attention_maps(model, edge, {tokens.name: [ids]}, {tokens.name: pieces})


def _translated(args: argparse.Namespace, model: Model, edge: str) -> AttentionMaps:
    """The maps for a source and the best target that the search finds."""
    from archdsl.tasks.attend import attention_maps
    from archdsl.tasks.translate import find_roles, translate

    _, encode, _, piece, search = load_translator(args, model)
    roles, source = find_roles(model.graph), encode(args.input)
    ((best, *_),) = translate(model, [source], search)
    target = best.tokens
    ids = {roles.source.name: [*source], roles.target.name: [*target[:-1]]}
    arrays = {name: [row] for name, row in ids.items()}
    pieces = {name: [*map(piece, row)] for name, row in ids.items()}
    return attention_maps(model, edge, arrays, pieces, [*map(piece, target[1:])])


def _heads(head: int | None, count: int) -> list[int]:
    if head is None:
        return [*range(count)]
    if not 0 <= head < count:
        fail("argument-value", f"there is no head {head}", expected=f"0 to {count - 1}")
    return [head]


def _query(position: int | None, maps: AttentionMaps) -> int | None:
    """The position whose weights are drawn over the picture: by default the class token, or
    None, the mean of all, without one."""
    if position is None:
        return 0 if maps.grid and len(maps.queries) > math.prod(maps.grid) else None
    if maps.picture is None:
        fail("argument-value", "--position works only with the patches of an image")
    if not 0 <= position < len(maps.queries):
        fail(
            "argument-value",
            f"there is no position {position}",
            expected=f"0 to {len(maps.queries) - 1}",
        )
    return position
