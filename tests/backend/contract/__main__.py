"""Which names of tinygrad's that archdsl relies on another version has changed.

    python -m tests.backend.contract 0.15.0

Makes an environment with that version (one that pip knows, or an address with `git+https://`),
runs `test_tinygrad_seam.py` in it, and prints the names that failed and why. It exits with 1
where any has changed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from xml.etree import ElementTree

from archdsl.backend.toolchain import ensure_compiler

ROOT = Path(__file__).parents[3]
CONTRACT = "tests/backend/test_tinygrad_seam.py"
# What archdsl's front half and pytest's set-up of the tests need beside tinygrad.
NEEDED = ("numpy", "lark", "tqdm", "pytest", "hypothesis")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.backend.contract"
    )
    parser.add_argument("version", help="of tinygrad, as in 0.15.0, or an address for pip")
    wanted = parser.parse_args().version
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder), wanted)
        print(f"tinygrad {wanted}: installed; checking", flush=True)
        failed = changed(python, Path(folder))
    for name, reason in failed.items():
        print(f"changed: {name}\n  {reason}")
    print(f"{len(failed)} names have changed" if failed else "the contract holds")
    return 1 if failed else 0


def environment(folder: Path, wanted: str) -> Path:
    """The Python of a new environment with this tinygrad."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    tinygrad = wanted if "://" in wanted else f"tinygrad=={wanted}"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, tinygrad, *NEEDED], check=True)
    return python


def changed(python: Path, folder: Path) -> dict[str, str]:
    """The names whose checks fail, and the reasons."""
    report = folder / "report.xml"
    variables = {
        **os.environ,
        "CC": ensure_compiler().path,
        "CACHEDB": str(folder / "cache.db"),  # its kernels are no business of ours
        "PYTHONPATH": str(ROOT),
    }
    selected = ["-k", "test_tinygrad_does or test_what_is_public"]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", CONTRACT, *selected]
    ran = subprocess.run(
        [*command, f"--junitxml={report}"],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
    )
    if not report.exists():
        sys.exit(f"the checks could not be run:\n{ran.stdout}{ran.stderr}")
    cases = list(ElementTree.parse(report).iter("testcase"))
    if len(cases) < 2:
        sys.exit(f"the checks could not be run:\n{ran.stdout}{ran.stderr}")
    return {
        case.get("name", "").removeprefix("test_tinygrad_does[").removesuffix("]"): reason(said)
        for case in cases
        for said in (*case.findall("failure"), *case.findall("error"))
    }


def reason(said: ElementTree.Element) -> str:
    lines = [line for line in said.get("message", "").splitlines() if line.strip()]
    return "\n  ".join(lines[:6])


if __name__ == "__main__":
    sys.exit(main())
