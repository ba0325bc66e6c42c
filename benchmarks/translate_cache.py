"""The speedup of beam search by the key-value cache, measured with annalog.

    python -m benchmarks.translate_cache --beams 5 --repeats 9

`cached_scorer` is `archdsl translate`: it caches the encoder output and the keys and values of
earlier tokens. `uncached` runs encoder and decoder on the whole prefixes at each step. Both
find the same molecules (tests/reference/test_annalog.py compares them). After runs that capture
all programs, they run alternately, so that other load on the machine affects both. Printed are
the median, fastest and slowest time for all molecules in seconds, and the median of the ratios
of consecutive runs. Needs the package annalog.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

import archdsl
from archdsl.formats import resolve
from archdsl.generation.beam_search import Scorer, Search, beam_search
from archdsl.model import Model
from archdsl.tasks.translate import Roles, cached_scorer, find_roles, pad_sources
from archdsl.text.vocabulary_tokenizer import read_vocabulary

FOLDER = "package:annalog/ckpt_and_vocab"
MOLECULES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
)
_STEP = 16  # prefixes are padded to a multiple of it, to limit the number of programs
_WARM = 3  # runs before the measurement; the second one captures

Way = Callable[[Model, Roles, Sequence[Sequence[int]], Search], Scorer]


def uncached(
    model: Model, parts: Roles, sources: Sequence[Sequence[int]], search: Search
) -> Scorer:
    """Like `cached_scorer`, but computes the sources and the whole prefixes at each step."""
    rows = pad_sources(parts, sources, search.beams)  # [rows, S]

    def score(prefixes: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.float32]:
        count, length = prefixes.shape
        size = min(-(-length // _STEP) * _STEP, parts.target_bound)
        target = np.full((len(rows), size), parts.target.pad or 0)  # [rows, T]
        target[:, :length] = prefixes[0]
        target[:count, :length] = prefixes
        # The rows of a source are consecutive.
        source = rows[np.resize(of * search.beams, len(rows))]  # [rows, S]
        found = model(**{parts.source.name: source, parts.target.name: target})
        logits: NDArray[np.float32] = found[parts.logits].numpy()[:count, length - 1]
        return logits  # [N, vocab]

    return score


def times(model: Model, ways: Sequence[Way], beams: int, repeats: int) -> list[list[float]]:
    """Returns the seconds of each run for all molecules, per way."""
    tokenizer = read_vocabulary(resolve(f"{FOLDER}/stereo_experiment_vocab_ttf.pkl"))
    sources = [tokenizer.encode(molecule, bos=True, eos=True) for molecule in MOLECULES]
    parts = find_roles(model.graph)
    search = Search(tokenizer.bos, (tokenizer.eos,), parts.target_bound, beams)

    def run(way: Way) -> float:
        start = time.perf_counter()
        for source in sources:
            beam_search(way(model, parts, [source], search), search)
        return time.perf_counter() - start

    for _ in range(_WARM):
        for way in ways:
            run(way)
    found: list[list[float]] = [[] for _ in ways]
    for repeat in range(repeats):
        order = list(enumerate(ways))
        for number, way in order if repeat % 2 == 0 else order[::-1]:
            found[number].append(run(way))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="CPU")
    args = parser.parse_args()
    model = archdsl.compile("annalog.arch", device=args.device)
    model.load(f"{FOLDER}/Lev_extended.pt")
    ways = (cached_scorer, uncached)
    found = times(model, ways, args.beams, args.repeats)
    print(
        f"{len(MOLECULES)} molecules, beams {args.beams}, {args.repeats} runs, {model.device}"
    )
    print(f"{'way':10} {'median s':>9} {'fastest':>9} {'slowest':>9}")
    for way, seconds in zip(ways, found, strict=True):
        middle = statistics.median(seconds)
        print(f"{way.__name__:10} {middle:9.3f} {min(seconds):9.3f} {max(seconds):9.3f}")
    ratios = [slow / quick for quick, slow in zip(*found, strict=True)]
    low, high = min(ratios), max(ratios)
    print(f"uncached / cached: {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
