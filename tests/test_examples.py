"""The trained examples: their weights give the results that their pages state."""

from __future__ import annotations

import json
import struct
from importlib.util import module_from_spec, spec_from_file_location
from math import prod
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from archdsl.analysis import analyse
from archdsl.cli import main
from archdsl.graph.sites import parameters
from archdsl.training.job import read_job_file

EXAMPLES = Path(__file__).parents[1] / "examples"
TRAINED = sorted(EXAMPLES.glob("*/trained.safetensors"))


def module(path: str) -> Any:
    """A Python file of the examples."""
    spec = spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert spec
    assert spec.loader
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.parent.name)
def test_the_weights_are_those_of_the_spec(path: Path) -> None:
    """Each in float16, in a file of at most 2 MiB."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    found = {name: (each["dtype"], tuple(each["shape"])) for name, each in header.items()}
    job = read_job_file(path.parent / "run.toml")
    graph = analyse(str(path.parent / job["spec"])).graph
    assert found == {each.path: ("F16", each.weight.shape) for each in parameters(graph)}
    size = 2 * sum(prod(shape) for _, shape in found.values())
    assert size <= path.stat().st_size <= 2 << 20


@pytest.mark.slow
def test_fashion_is_classified(tmp_path: Path) -> None:
    try:
        module("data.py").fashion(tmp_path)
    except SystemExit as missing:
        pytest.skip(str(missing))
    found, names = module("vit_fashion/evaluate.py").confusion(data=tmp_path, count=500)
    assert found.sum() == 500
    assert found.trace() > 0.88 * 500
    module("vit_fashion/evaluate.py").draw(found, names, tmp_path / "confusion.svg")
    assert "ankle boot" in (tmp_path / "confusion.svg").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.reference("PIL")
def test_files_of_images_are_classified(capsys: pytest.CaptureFixture[str]) -> None:
    folder = EXAMPLES / "vit_fashion"
    images = sorted(folder.glob("samples/*.png"))
    args = [str(folder / "fashion.arch"), "--weights", str(folder / "trained.safetensors")]
    args += ["--preprocessor", str(folder), "--top", "1", "--json"]
    assert main(["classify", *args, *map(str, images)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [each["classes"][0]["label"].replace(" ", "-").lower() for each in lines]
    right = sum(one == path.stem for one, path in zip(found, images, strict=True))
    assert right >= 0.8 * len(images) == 8


@pytest.mark.slow
def test_words_are_pronounced(tmp_path: Path) -> None:
    try:
        module("data.py").phonemes(tmp_path)
    except URLError as error:
        pytest.skip(f"the dictionary cannot be downloaded: {error}")
    example = module("translate_g2p/evaluate.py")
    pairs = example.read_pairs(tmp_path / "test.tsv")[::25]
    assert len(pairs) > 200
    of_phonemes, of_words = example.error_rates(example.load(), pairs)
    assert of_phonemes < 0.12 < of_words < 0.5
    tokens = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    kept = EXAMPLES / "translate_g2p" / "tokenizer.json"
    assert tokens == json.loads(kept.read_text(encoding="utf-8"))


def test_the_distance_of_phonemes() -> None:
    distance = module("translate_g2p/evaluate.py").distance
    assert distance("kitten", "sitting") == distance("sitting", "kitten") == 3
    assert (distance("", "abc"), distance("abc", ""), distance("abc", "abc")) == (3, 3, 0)
