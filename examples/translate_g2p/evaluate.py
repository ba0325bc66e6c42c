"""The error rates of the trained weights on the words that are held out for a test.

python examples/translate_g2p/evaluate.py             # trained.safetensors
python examples/translate_g2p/evaluate.py WEIGHTS     # such as run/best/model.safetensors

The phoneme error rate is the number of insertions, deletions and replacements that correct
the output, divided by the number of phonemes in the dictionary. Each word has one
pronunciation, the dictionary's first: others count as errors.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import archdsl
from archdsl.generation.beam_search import Search
from archdsl.model import Model
from archdsl.tasks.translate import find_roles, translate
from archdsl.text.tokenizer import read_tokenizer
from archdsl.training.record_data import encode_source

HERE = Path(__file__).parent
WEIGHTS = HERE / "trained.safetensors"
TOGETHER = 64  # words

Phonemes = list[str]


def load(weights: Path = WEIGHTS) -> Model:
    """The model with trained weights."""
    model = archdsl.compile(str(HERE / "g2p.arch"))
    model.load(weights)
    return model


def read_pairs(path: Path = HERE / "data" / "test.tsv") -> list[tuple[str, Phonemes]]:
    """Words and their phonemes."""
    cells = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return [(word, sounds.split()) for word, sounds in cells]


def pronounce(model: Model, words: Sequence[str], beams: int = 1) -> list[Phonemes]:
    """The most likely phonemes of each word, by beam search."""
    tokenizer = read_tokenizer(HERE / "tokenizer.json")
    assert tokenizer.bos is not None
    bound = find_roles(model.graph).target_bound
    search = Search(tokenizer.bos, tokenizer.eos, bound, beams, best=1)
    order = sorted(range(len(words)), key=lambda place: len(words[place]))  # little padding
    sources = [encode_source(tokenizer, words[place]) for place in order]
    results = translate(model, sources, search, TOGETHER)
    found = [tokenizer.decode(best.tokens).split() for (best,) in results]
    return [sounds for _, sounds in sorted(zip(order, found, strict=True))]


def distance(found: Sequence[str], wanted: Sequence[str]) -> int:
    """The fewest insertions, deletions and replacements between two sequences.

    >>> distance("kitten", "sitting")
    3
    """
    row = list(range(len(wanted) + 1))
    for number, each in enumerate(found, 1):
        before, row = row, [number]
        for place, other in enumerate(wanted):
            replaced = before[place] + (each != other)
            row.append(min(replaced, before[place + 1] + 1, row[place] + 1))
    return row[-1]


def error_rates(
    model: Model, pairs: Sequence[tuple[str, Phonemes]], beams: int = 1
) -> tuple[float, float]:
    """The errors per phoneme of the dictionary, and the share of words with an error."""
    found = pronounce(model, [word for word, _ in pairs], beams)
    errors = [distance(one, sounds) for one, (_, sounds) in zip(found, pairs, strict=True)]
    count = sum(len(sounds) for _, sounds in pairs)
    return sum(errors) / count, sum(map(bool, errors)) / len(pairs)


def main() -> None:
    model = load(Path(sys.argv[1]) if sys.argv[1:] else WEIGHTS)
    pairs = read_pairs()
    print(f"{len(pairs):,} words of the test")
    for name, beams in (("greedy", 1), ("4 beams", 4)):
        of_phonemes, of_words = error_rates(model, pairs, beams)
        print(
            f"  {name:<8} phoneme errors {of_phonemes:.2%}, words with an error {of_words:.2%}"
        )


if __name__ == "__main__":
    main()
