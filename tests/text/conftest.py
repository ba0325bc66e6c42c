"""A tokenizer that several tests of texts share."""

from __future__ import annotations

import pytest

from archdsl.text.tokenizer import TextTokenizer, read_tokenizer
from tests.text.tokenizer_files import gpt2_files, write


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return read_tokenizer(write(tmp_path_factory.mktemp("gpt2"), gpt2_files()))
