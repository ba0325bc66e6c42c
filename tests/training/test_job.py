"""The TOML file of `archdsl train`: names, kinds of values, and paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.training.job import JOB_ROWS, ROWS_BY_NAME, job_from, read_job_file
from archdsl.training.settings import ROWS

RUN = """
spec = "gpt.arch"
data = "texts"
output = "../runs/gpt"
tokenizer = "bpe:300"
steps = 20
learning_rate = 1e-2
clip = "none"
freeze = ["embed"]

[set]
depth = 6
tied = true
"""


def refused(path: Path, text: str) -> Diagnostic:
    path.write_text(text)
    with pytest.raises(ArchError) as error:
        read_job_file(path)
    (found,) = error.value.diagnostics
    return found


def test_names_are_used_once() -> None:
    assert len(ROWS_BY_NAME) == len(JOB_ROWS) + len(ROWS)


def test_a_file_describes_a_job(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    job = job_from(read_job_file(tmp_path / "run.toml"))
    assert (job.spec, job.tokenizer) == ("gpt.arch", "bpe:300")  # names, not paths
    assert job.data == str(tmp_path / "texts")
    assert job.output == str(tmp_path / "../runs/gpt")
    assert job.set == {"depth": 6, "tied": True}
    settings = job.settings
    assert (settings.steps, settings.learning_rate, settings.clip) == (20, 0.01, None)
    assert settings.freeze == ("embed",)
    assert settings.batch == job_from({}).settings.batch


def test_files_beside_it_are_paths(tmp_path: Path) -> None:
    for name in ("mine.arch", "tokenizer.json"):
        (tmp_path / name).write_text("")
    text = 'spec = "mine.arch:big"\ntokenizer = "tokenizer.json"\ninit = "package:a/b"\n'
    (tmp_path / "run.toml").write_text(text)
    found = read_job_file(tmp_path / "run.toml")
    assert found["spec"] == str(tmp_path / "mine.arch:big")
    assert found["tokenizer"] == str(tmp_path / "tokenizer.json")
    assert found["init"] == "package:a/b"


def test_mistakes_name_the_file_and_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    found = refused(path, "batch_size = 8\nsteps = 1")
    assert found.code == "unknown-argument"
    assert found.message == f"`{path}`: there is no setting `batch_size`"
    found = refused(path, "step = 8")
    assert found.help == "did you mean `steps`?"
    found = refused(path, "steps = 0")
    assert found.message == f"`steps` in `{path}` cannot be 0"
    assert found.expected == "a whole number, at least 1"
    found = refused(path, 'dtype = "fp32"')
    assert found.expected == "`float32`, `float16` or `bfloat16`"
    found = refused(path, "set = 3")
    assert found.expected == "a table of parameters, as in set = { depth = 6 }"
    found = refused(path, "[set]\nsizes = [1, 2]")
    assert found.code == "argument-value"
    found = refused(path, "steps = \n")
    assert (found.code, "is not TOML" in found.message) == ("file", True)
    with pytest.raises(ArchError, match="cannot be read"):
        read_job_file(tmp_path / "missing.toml")


EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_files_of_the_examples_are_jobs(path: Path) -> None:
    job = job_from(read_job_file(path))
    assert job.spec is not None
    assert analyse(job.spec, settings=job.set or {}).graph.losses
    assert job.output
