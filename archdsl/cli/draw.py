"""`archdsl draw`: the figure of a model or a block, as its paper would print it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from archdsl.analysis import Analysis, analyse, analyse_block
from archdsl.cli.common import Subparsers, add_command, add_json, add_settings, parse_settings
from archdsl.describe.block_model import ALONE
from archdsl.describe.cost_curves import cost_curves
from archdsl.diagnostics import Source, did_you_mean, fail
from archdsl.figure.differences import side_by_side
from archdsl.figure.drawing import Drawing
from archdsl.figure.fold import fold
from archdsl.figure.layout import layout
from archdsl.figure.page import page, page_of_drawing
from archdsl.figure.structure import Level, as_data
from archdsl.figure.svg import Theme, svg
from archdsl.figure.tikz import tikz
from archdsl.formats.atomic import replacing

SUFFIXES = (".svg", ".png", ".pdf", ".tex", ".html")


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "draw",
        "FILE[:NAME] [FILE[:NAME] --diff]",
        "archdsl draw gpt.arch -o gpt.svg",
        "archdsl draw blocks.arch:cross_attention_block --types -o block.pdf",
        "archdsl draw gpt2.arch:small llama.arch --diff -o changes.svg",
    )
    parser.add_argument(
        "specs",
        nargs="+",
        metavar="FILE[:NAME]",
        help="a spec, and one of its models, variants or blocks; names of the standard library "
        "such as gpt2.arch:xl work from any folder",
    )
    add_settings(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help=f"the file to write, {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} "
        "(default: SVG to stdout)",
    )
    parser.add_argument(
        "--level",
        choices=get_args(Level),
        default="block",
        help="model: one box for each stack; block: one for each sublayer; operator: all "
        "operators (default: %(default)s)",
    )
    parser.add_argument("--types", action="store_true", help="write the sizes of each value")
    parser.add_argument(
        "--theme",
        choices=get_args(Theme),
        default="auto",
        help="auto: as the page that shows it, light or dark; PNG and PDF are then light "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--diff", action="store_true", help="draw two models, and mark what only one has"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    suffix = _suffix(args.output) if args.output else ".svg"
    if len(args.specs) != 1 + args.diff:
        fail(
            "argument-value",
            f"{len(args.specs)} specs are given",
            expected="two specs with --diff, as in A B --diff" if args.diff else "one spec",
            help=None if args.diff else "add --diff to draw two models in one picture",
        )
    found = [_analysis(args, spec) for spec in args.specs]
    opens = suffix == ".html" and not args.diff
    figure, *others = [fold(each.graph, args.level, opens) for each in found]
    if args.json:
        data = [as_data(each) for each in (figure, *others)]
        print(json.dumps(data if args.diff else data[0]))
        return 0
    if opens:
        costs, theme = cost_curves(found[0].graph), args.theme
        text = page(figure, costs, spec=_text(found[0]), types=args.types, theme=theme)
        content = text.encode()
    else:
        drawing = layout(figure, args.types)
        for other in others:
            drawing = side_by_side(figure, other, args.types)
        content = _content(drawing, suffix, args.theme)
    if args.output is None:
        sys.stdout.write(content.decode())
        return 0
    with replacing(args.output) as path:
        path.write_bytes(content)
    return 0


def _suffix(output: str) -> str:
    suffix = Path(output).suffix.lower()
    if suffix not in SUFFIXES:
        fail(
            "argument-value",
            f"-o {output}: the suffix does not name a format of figures",
            expected=", ".join(SUFFIXES),
            help=did_you_mean(suffix, SUFFIXES) if suffix else None,
        )
    return suffix


def _analysis(args: argparse.Namespace, spec: str) -> Analysis:
    settings = parse_settings(args)
    return analyse_block(spec, settings) or analyse(spec, settings=settings)


def _text(found: Analysis) -> Source | None:
    """The text of a model, if it is the model that is drawn, and not a block."""
    source = found.model.span.source
    drawn = found.graph.name == found.model.name.id and source.path != ALONE
    return source if drawn else None


def _content(drawing: Drawing, suffix: str, theme: Theme) -> bytes:
    match suffix:
        case ".tex":
            return tikz(drawing).encode()
        case ".html":
            return page_of_drawing(drawing, theme).encode()
        case ".png" | ".pdf":
            from archdsl.figure import raster  # needs an extra

            still = svg(drawing, "light" if theme == "auto" else theme, page=True)
            return raster.png(still) if suffix == ".png" else raster.pdf(still)
        case _:
            return svg(drawing, theme).encode()
