"""The contract with tinygrad: the behaviour of private names that archdsl relies on.

Every entry of `BEHAVIOUR` in `tests/backend/contract/behaviour.py` has a check in that folder.
The checks import each name from tinygrad itself, so a missing name fails only the checks that
need it. A failure says which name changed. `python -m tests.backend.contract VERSION` runs this
file with another version of tinygrad.
"""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

import pytest
import tinygrad

from tests.backend.contract import devices, memory, programs  # noqa: F401  (their checks)
from tests.backend.contract.base import (
    CHECKS,
    IMPORTED,
    PARTS,
    PUBLIC,
    ROOT,
    SEAM,
    private,
    private_imports,
)
from tests.backend.contract.behaviour import BEHAVIOUR


@pytest.mark.parametrize("name", BEHAVIOUR)
def test_tinygrad_does(name: str) -> None:
    try:
        private(name)
        CHECKS[name]()
    except Exception as error:
        where = f"{IMPORTED[name]}.{name} of tinygrad {version('tinygrad')}"
        pytest.fail(f"{where} has changed.\nRelied on: {BEHAVIOUR[name]}\n{error!r}")


def test_every_private_name_says_what_it_does_and_is_checked() -> None:
    inside = {name for name, module in IMPORTED.items() if "autogen" not in module}
    assert inside == BEHAVIOUR.keys() == CHECKS.keys()


def test_what_is_public() -> None:
    source = Path(tinygrad.__file__).read_text(encoding="utf-8")
    assert [name for name in PUBLIC if name not in source] == []
    assert vars(tinygrad).keys() >= PUBLIC


FILES = [path for path in (ROOT / "archdsl").rglob("*.py") if path not in (SEAM, *PARTS)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_has_private_names(path: Path) -> None:
    assert private_imports(ast.parse(path.read_text(encoding="utf-8"))) == {}
