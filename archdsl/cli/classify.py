"""`archdsl classify`: what a model sees in images."""

from __future__ import annotations

import argparse
import json

from archdsl.cli.checkpoints import add_checkpoint, opened
from archdsl.cli.common import Subparsers, command, count
from archdsl.cli.waiting import put
from archdsl.progress import each


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "classify",
        "say what is in images",
        "archdsl classify some/vit cat.jpg dog.png --top 3",
    )
    add_checkpoint(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files that Pillow reads")
    parser.add_argument(
        "--preprocessor",
        metavar="FOLDER",
        help="where preprocessor_config.json and the classes' names are (default: CHECKPOINT)",
    )
    parser.add_argument(
        "--top",
        type=count,
        default=5,
        metavar="K",
        help="the K likeliest (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each image")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from archdsl.formats import resolve
    from archdsl.formats.strict_json import read_object
    from archdsl.tasks.classify import classifier, classify, labels, read_preprocessor

    folder = resolve(args.preprocessor or args.spec)
    preprocessor = read_preprocessor(folder)
    # All images are read before the model is: a mistake in the last one is told at once.
    pixels = [preprocessor(path) for path in args.images]
    model = opened(args)
    config = folder / "config.json"
    named = read_object(config, "a config") if config.is_file() else {}
    names = labels(named, classifier(model.graph).classes)
    images = list(zip(args.images, pixels, strict=True))
    for path, image in each(images, "classifying", "images", len(images)):
        chances = classify(model, image[None])[0]
        best = (-chances).argsort(kind="stable")[: args.top].tolist()
        rows = [(names[number], float(chances[number])) for number in best]
        if args.json:
            classes = [{"label": name, "probability": chance} for name, chance in rows]
            put(json.dumps({"image": path, "classes": classes}))
            continue
        if len(args.images) > 1:
            put(path)
        width = max(len(name) for name, _ in rows)
        for name, chance in rows:
            put(f"{name:<{width}}  {chance:7.2%}")
    return 0
