"""Files of installed packages are found by name, without importing the package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.formats.package import resolve


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that fails when it is imported, with weights in it."""
    folder = tmp_path / "carrier"
    (folder / "weights").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "weights" / "model.pt").write_bytes(b"weights")
    (tmp_path / "single.py").write_text("")
    (tmp_path / "spread" / "data").mkdir(parents=True)
    (tmp_path / "spread" / "data" / "a.npz").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def refused(path: str) -> Diagnostic:
    with pytest.raises(ArchError) as raised:
        resolve(path)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "file"
    return diagnostic


@pytest.mark.parametrize("path", ["a.pt", "/abs/a.pt", "../a.pt", "packages:x/y"])
def test_an_ordinary_path_stays(path: str) -> None:
    assert resolve(path) == Path(path)


def test_a_file_in_a_package(package: Path) -> None:
    assert resolve("package:carrier/weights/model.pt") == package / "weights" / "model.pt"
    assert "carrier" not in sys.modules


def test_a_file_in_a_package_without_init(package: Path) -> None:
    assert resolve("package:spread/data/a.npz").read_bytes() == b"weights"


def test_a_package_that_is_not_installed() -> None:
    diagnostic = refused("package:no_such_package/a.pt")
    assert diagnostic.message == "the package `no_such_package` is not installed"
    assert diagnostic.help == "pip install no_such_package"


def test_a_misspelt_file(package: Path) -> None:
    diagnostic = refused("package:carrier/weights/modle.pt")
    assert diagnostic.message.endswith("the package `carrier` has no file `weights/modle.pt`")
    assert diagnostic.help == "did you mean `weights/model.pt`?"


@pytest.mark.parametrize("inner", ["weight", "zzz", "../single.py", "weights/../../single.py"])
def test_what_is_no_file_of_the_package(package: Path, inner: str) -> None:
    refused(f"package:carrier/{inner}")


def test_an_absolute_path_stays_inside_the_package(package: Path) -> None:
    refused(f"package:carrier/{package.parent / 'single.py'}")


def test_a_module_has_no_files(package: Path) -> None:
    assert "a single module, not a package" in refused("package:single/a.pt").message
    assert "a single module, not a package" in refused("package:sys/a.pt").message


@pytest.mark.parametrize("path", ["package:", "package:carrier", "package:a.b/c", "package:/x"])
def test_what_is_no_name(package: Path, path: str) -> None:
    assert refused(path).expected == "package:NAME/inner/file"


def test_main_is_no_package() -> None:
    refused("package:__main__/a.pt")
