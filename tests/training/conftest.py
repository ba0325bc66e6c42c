"""What the tests of training share."""

from pathlib import Path

import pytest

from archdsl.training import token_file


@pytest.fixture(autouse=True)
def own_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A cache folder of tokens for each test: no test reads those of another."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(token_file, "cache_folder", lambda: folder)
    return folder
