"""The files of the playground's page, without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from archdsl.diagnostics import CODES, ArchError
from archdsl.play.build import build
from archdsl.play.site import examples, site_files


def test_every_spec_is_an_example_with_a_title() -> None:
    groups = examples()
    files = site_files("server")
    shown = [each["file"] for group in groups.values() for each in group]
    assert sorted(shown) == sorted(
        name.removeprefix("specs/") for name in files if name.startswith("specs/")
    )
    titles = {each["file"]: each["title"] for group in groups.values() for each in group}
    assert titles["t5.arch"] == "T5"
    assert max(map(len, titles.values())) < 80
    assert all(titles.values())


@pytest.mark.parametrize("engine", ["browser", "server"])
def test_the_page_has_the_files_that_it_names(engine: str) -> None:
    files = site_files(engine)  # type: ignore[arg-type]
    assert f'data-engine="{engine}"' in files["index.html"].decode()
    assert ("worker.js" in files) == (engine == "browser")
    for name, content in files.items():
        text = content.decode()
        if name.endswith(".html"):
            named = re.findall(r'(?:src|href)="([\w./]+)"', text)
        elif name.endswith(".js") and name != "worker.js":
            named = [
                each.removeprefix("./")
                for each in re.findall(r'^import .* from "(.+)"', text, re.M)
            ]
            named += re.findall(r'json\("([\w.]+)"\)', text)
        else:
            continue
        assert set(named) <= set(files), name
    json.loads(files["grammar.json"])
    assert {f"errors/{code}.md" for code in CODES} <= set(files)


def test_another_pyodide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchError, match=r"has no file `pyodide.mjs`"):
        build(tmp_path / "page", tmp_path)
    (tmp_path / "pyodide.mjs").write_text("export {}")
    with pytest.raises(ArchError, match=r"its checksum differs"):
        build(tmp_path / "page", tmp_path)
    with pytest.raises(ArchError, match="is not an empty folder"):
        build(tmp_path, tmp_path)
    assert not (tmp_path / "page").exists()
