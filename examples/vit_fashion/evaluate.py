"""The accuracy of the trained weights on the 10,000 test images, and their confusion matrix.

python examples/vit_fashion/evaluate.py               # trained.safetensors
python examples/vit_fashion/evaluate.py WEIGHTS       # such as run/best/model.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import archdsl
from archdsl.training.data import open_data

HERE = Path(__file__).parent
WEIGHTS = HERE / "trained.safetensors"
IMAGES = 10_000
TOGETHER = 500  # images


def confusion(
    weights: Path = WEIGHTS, data: Path = HERE / "data", count: int = IMAGES
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """How many of the first `count` test images of a class (row) the model puts into a class
    (column), and the names of the classes."""
    model = archdsl.compile(str(HERE / "fashion.arch"))
    model.load(weights)
    opened = open_data(data, model.graph)
    assert opened.images
    assert opened.valid
    names = opened.images.classes
    found = np.zeros((len(names), len(names)), np.int64)
    for start in range(0, count, TOGETHER):
        batch = opened.valid.batch(np.arange(start, start + TOGETHER))
        logits = model(pixels=batch["pixels"])["logits"].numpy()  # [TOGETHER, classes]
        np.add.at(found, (batch["label"], logits.argmax(-1)), 1)
    return found, names


def draw(found: NDArray[np.int64], names: tuple[str, ...], path: Path) -> None:
    """The confusion matrix as a picture: a row has the images of one class."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shares = found / found.sum(1, keepdims=True)
    figure = Figure(figsize=(6.6, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares**0.5, cmap="Blues", vmin=0, vmax=1)  # the root shows small shares
    for row, column in np.ndindex(*found.shape):
        if count := int(found[row, column]):
            colour = "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    numbers = range(len(names))
    axes.set_xticks(numbers, names, rotation=45, ha="right")
    axes.set_yticks(numbers, names)
    axes.set_xlabel("class that the model chooses")
    axes.set_ylabel("class of the image")
    with rc_context({"svg.hashsalt": "archdsl"}):  # equal numbers give equal files
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    found, names = confusion(Path(sys.argv[1]) if sys.argv[1:] else WEIGHTS)
    print(f"accuracy on {found.sum():,} test images: {found.trace() / found.sum():.2%}")
    for name, row, right in zip(names, found, found.diagonal(), strict=True):
        print(f"  {name:<12}{right / row.sum():7.1%}")
    draw(found, names, HERE / "confusion.svg")
    print(f"written: {HERE / 'confusion.svg'}")


if __name__ == "__main__":
    main()
