"""Writes the playground as files for any web server: `python -m archdsl.play.build FOLDER`.

Python in the browser is Pyodide, from the package `pyodide` of npm, in one version with known
checksums. Node compiles the modules that the page needs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from tarfile import open as open_tar
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile

from archdsl.diagnostics import ArchError, fail
from archdsl.play.site import site_files
from archdsl.semantics.library import library_specs

VERSION = "314.0.7"
CHECKSUMS = {
    "pyodide.mjs": "6f1d60f7bf529beb300f0f47983c921d3982363640ba20af0e38efdddbc66109",
    "pyodide.asm.mjs": "f7cdc8ece80678ceb712f8e65ebe6d3a83203a180c399865f49612a051693635",
    "pyodide.asm.wasm": "cc36e3cab04fdfc9a63ff13eb52eae2b911bf46c025cc7b281f394bd3de1d5e6",
    "python_stdlib.zip": "fa1957e5777068fc4f7437f96d860ae2fbe9c19732ba06c84e004ec16dd7dd7a",
    "pyodide-lock.json": "5dc2fc119108bc148c7457dc86e7675b5c87e1cafd420b9c34c1eaef7b36c010",
}
"""SHA-256 of the files of Pyodide that are used."""
_SECONDS = 600


def build(folder: Path, pyodide: Path | None = None) -> dict[str, tuple[int, int]]:
    """Writes the page to a folder, which is new or empty.

    `pyodide` is an unpacked copy of the package; by default npm fetches it. Returns the bytes
    of the files that the page loads first, each as it is and by gzip. Raises ArchError (`file`)
    if the folder holds files, Node or npm is missing, or Pyodide is not the expected one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail("file", f"`{folder}` is not an empty folder", help="give a new one")
    with _pyodide(pyodide) as package, TemporaryDirectory() as temporary:
        _check(package)
        target = Path(temporary, "page")
        for name, content in site_files("browser").items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (target / "pyodide").mkdir()
        for name in ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm"):
            shutil.copyfile(package / name, target / "pyodide" / name)
        lock = json.loads((package / "pyodide-lock.json").read_text("utf-8"))
        text = json.dumps({**lock, "packages": {}})  # of others, the page loads none
        (target / "pyodide" / "pyodide-lock.json").write_text(text, encoding="utf-8")
        _bake(package, target)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(target, folder, dirs_exist_ok=True)
    return weights(folder)


def weights(folder: Path) -> dict[str, tuple[int, int]]:
    """The bytes of each file that the page loads to draw its first figure, and by gzip."""
    later = ("errors", "specs")  # when one asks for them; and the first example
    first = [each for each in folder.rglob("*") if each.is_file()]
    found = {each.relative_to(folder): each.read_bytes() for each in first}
    return {
        str(path): (len(content), len(gzip.compress(content, 9, mtime=0)))
        for path, content in sorted(found.items())
        if path.parts[0] not in later
    }


@contextmanager
def _pyodide(given: Path | None) -> Iterator[Path]:
    """The folder of the package: the given one, or one that npm fetches."""
    if given is not None:
        yield given
        return
    with TemporaryDirectory() as temporary:
        _run(["npm", "pack", "--silent", f"pyodide@{VERSION}"], temporary)
        with open_tar(next(Path(temporary).glob("*.tgz"))) as packed:
            packed.extractall(temporary, filter="data")
        yield Path(temporary, "package")


def _check(package: Path) -> None:
    for name, expected in CHECKSUMS.items():
        path = package / name
        if not path.is_file():
            fail("file", f"`{package}` has no file `{name}`", expected=f"pyodide {VERSION}")
        if sha256(path.read_bytes()).hexdigest() != expected:
            fail(
                "file",
                f"`{path}` is not that of pyodide {VERSION}: its checksum differs",
                help=f"`npm pack pyodide@{VERSION}` fetches it",
            )


def _bake(package: Path, target: Path) -> None:
    """Compiles the modules and fills the caches."""
    with TemporaryDirectory() as temporary:
        sources = Path(temporary, "sources.zip")
        ours, larks = (Path(str(files(name))) for name in ("archdsl", "lark"))
        with ZipFile(sources, "w", ZIP_DEFLATED) as out:
            for root, patterns in ((ours, ("*.py", "*.lark")), (larks, ("*.py", "*.lark"))):
                for path in sorted(each for p in patterns for each in root.rglob(p)):
                    out.write(path, Path(root.name, path.relative_to(root)))
            for path in library_specs():
                out.write(path, Path("specs", path.name))
        script = str(Path(__file__).with_name("bake.mjs"))
        _run(["node", script, str(package.resolve()), str(sources), str(target)], temporary)


def _run(command: Sequence[str], folder: str) -> None:
    if shutil.which(command[0]) is None:
        fail(
            "file", f"the program `{command[0]}` is missing", help="install Node.js 20 or newer"
        )
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        said = f"{done.stdout}{done.stderr}".strip()[-2000:]
        fail("file", f"`{' '.join(command[:2])}` failed: {said}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m archdsl.play.build", description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder for the page")
    parser.add_argument(
        "--pyodide",
        type=Path,
        metavar="FOLDER",
        help=f"an unpacked npm package pyodide {VERSION} (default: npm fetches it)",
    )
    args = parser.parse_args(arguments)
    try:
        found = build(args.folder, args.pyodide)
    except ArchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    found["all"] = tuple(map(sum, zip(*found.values(), strict=True)))  # type: ignore[assignment]
    for name, (plain, packed) in found.items():
        sys.stdout.write(f"{name:<28} {plain:>12,} bytes {packed:>12,} by gzip\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
