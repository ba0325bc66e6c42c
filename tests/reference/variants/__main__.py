"""Runs all variants, or those that have a word of the arguments in their names, and writes
results.txt and docs/zoo.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.reference import zoo
from tests.reference.variants import results
from tests.reference.variants.compare import compare
from tests.reference.variants.fields import transformers, variants


def main(words: list[str]) -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    before = {row.variant: row for row in results.read()} if results.FILE.exists() else {}
    rows = []
    for each in variants():
        name = str(each)
        if name in before and not any(word in f"{each.family.title} {name}" for word in words):
            rows.append(before[name])
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(results.Row(each.family.title, name, *compare(each, Path(folder))))
        print(*rows[-1], sep=" | ", flush=True)
    results.write(rows)
    zoo.write()


if __name__ == "__main__":
    main(sys.argv[1:] or [""])
