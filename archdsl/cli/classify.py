"""`archdsl classify`: the most likely classes of images."""

from __future__ import annotations

import argparse

from archdsl.cli.checkpoints import add_checkpoint, find_files, load_model
from archdsl.cli.common import Subparsers, add_command, add_json, positive_integer
from archdsl.cli.progress_line import print_json, print_text
from archdsl.formats import resolve
from archdsl.progress import each


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "classify",
        "CHECKPOINT IMAGE ...",
        "archdsl classify some/vit cat.jpg dog.png --top 3",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="image files, in any format that Pillow reads",
    )
    parser.add_argument(
        "--preprocessor",
        metavar="FOLDER",
        help="a folder with preprocessor_config.json, and the class names in it or in "
        "config.json (default: CHECKPOINT)",
    )
    parser.add_argument(
        "--top",
        type=positive_integer,
        default=5,
        metavar="K",
        help="print the K most likely classes (default: %(default)s)",
    )
    add_json(parser, "image")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    # imports tinygrad
    from archdsl.tasks.classify import classify, find_classifier, labels, read_preprocessor

    folder = resolve(args.preprocessor or find_files(args) or args.spec)
    preprocessor = read_preprocessor(folder)
    # All images are read before the model, so that an error in one is reported at once.
    pixels = [preprocessor(path) for path in args.images]
    model = load_model(args)
    names = labels(folder, find_classifier(model.graph).classes)
    images = list(zip(args.images, pixels, strict=True))
    for image, values in each(images, "classifying", "images", len(images)):
        probabilities = classify(model, values[None])[0]
        best = (-probabilities).argsort(kind="stable")[: args.top].tolist()
        rows = [(names[number], float(probabilities[number])) for number in best]
        if args.json:
            classes = [{"label": name, "probability": value} for name, value in rows]
            print_json({"image": image, "classes": classes})
            continue
        if len(args.images) > 1:
            print_text(image)
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            print_text(f"{name:<{width}}  {value:7.2%}")
    return 0
