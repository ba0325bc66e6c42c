"""What `archdsl train` is told: the settings of a run, and what it trains on what.

A TOML file has the same names as the options. Paths in it are relative to its folder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from archdsl.diagnostics import fail
from archdsl.files import open_file
from archdsl.frozen import Frozen
from archdsl.semantics.model_parameters import Setting
from archdsl.training.settings import (
    BY_NAME,
    DEFAULTS,
    Choice,
    Kind,
    Row,
    Settings,
    Text,
    check_name,
    refuse,
    settings_from,
)


class Parameters(Kind):
    """Parameters of a model by name: numbers, true or false, and names."""

    shown: ClassVar[str] = "NAME=VALUE"

    def expected(self) -> str:
        return "a table of parameters, as in set = { depth = 6 }"

    def read(self, value: Any) -> dict[str, Setting]:
        if not isinstance(value, Mapping) or not all(
            isinstance(each, int | float | bool | str) for each in value.values()
        ):
            raise ValueError
        return dict(value)


JOB_ROWS = (
    Row("spec", "model", Text(), "a spec FILE[:VARIANT], also of the standard library"),
    Row("set", "model", Parameters(), "parameters of the spec's model"),
    Row(
        "init",
        "model",
        Text(),
        "start from these weights: a published checkpoint, the folder of a run, or a weights "
        "file of the spec; every weight must be in it (default: random weights)",
        "PATH",
    ),
    Row(
        "quantize",
        "model",
        Choice(("int8", "stored")),
        "matrices of --init under --lora-rank: int8, or stored as in the file (default: not "
        "quantized)",
    ),
    Row("data", "data", Text(), "a file or a folder of examples", "PATH"),
    Row(
        "tokenizer",
        "data",
        Text(),
        "of texts: characters, bytes, bpe:4096, or the path of a tokenizer "
        "(default: that of a checkpoint, else characters)",
        "NAME",
    ),
    Row("output", "run", Text(), "the folder of the run; it must be new or empty", "FOLDER"),
    Row("device", "device", Text(), "a tinygrad device; `archdsl doctor` lists them", "NAME"),
    Row(
        "devices",
        "device",
        Text(),
        "train on several devices at once, such as CPU:0,CPU:1 (default: one device)",
        "NAMES",
    ),
    Row(
        "split",
        "device",
        Text(),
        "what each of several devices has a share of: batch; tensor, the weights; or the axes "
        "of weights to split, such as heads,vocab (default: batch)",
        "NAMES",
    ),
    Row(
        "dtype",
        "device",
        Choice(("float32", "float16", "bfloat16")),
        "of weights and activations: float32, bfloat16 or float16 (default: float32)",
    ),
    Row(
        "kernels",
        "device",
        Choice(("best", "tinygrad")),
        "best: the fastest for the device; tinygrad: only tinygrad's (default: best)",
    ),
)
"""What a job has besides the settings."""

ROWS_BY_NAME = {row.name: row for row in (*JOB_ROWS, *BY_NAME.values())}
_PATHS = ("data", "init", "output")


class Job(Frozen):
    """A model, data, a folder for the run, and the settings of the run.

    `spec` is None for the spec that the config of the checkpoint `init` names.
    """

    spec: str | None = None
    data: str | None = None
    output: str | None = None
    init: str | None = None
    tokenizer: str | None = None
    device: str | None = None
    devices: str | None = None
    split: str = "batch"
    dtype: str | None = None
    kernels: str = "best"
    quantize: str | None = None
    set: Mapping[str, Setting] | None = None
    settings: Settings = DEFAULTS


def job_from(given: Mapping[str, Any]) -> Job:
    """The job that checked values describe, by the names of `ROWS_BY_NAME`."""
    about = {name: given[name] for name in given if name not in BY_NAME}
    settings = settings_from({name: given[name] for name in given if name in BY_NAME})
    if about.get("devices") is not None:
        if about.get("device") is not None:
            fail(
                "argument-value",
                "a run has `device` or `devices`, not both",
                expected="the first of `devices` is the device of the model",
            )
        about["device"] = about["devices"].split(",")[0]
    return Job(**about, settings=settings)


def read_value(row: Row, value: object, place: str) -> Any:
    """The value of a setting in a file; raises `ArchError` if it is not allowed."""
    try:
        return row.kind.read(value)
    except ValueError:
        refuse(row, value, place)


def read_job_file(path: str | Path) -> dict[str, Any]:
    """The checked values of a TOML file by name, with paths that this process can open.

    Raises `ArchError`: "file" if it cannot be read or is not TOML, "unknown-argument" and
    "argument-value" for its names and values.
    """
    try:
        with open_file(path) as stream:
            given = tomllib.load(stream)
    except OSError as error:
        fail("file", f"`{path}` cannot be read: {error.strerror or error}", cause=error)
    except ValueError as error:  # a mistake, or no UTF-8
        fail("file", f"`{path}` is not TOML: {error}", cause=error)
    found = {}
    for name, value in given.items():
        row = ROWS_BY_NAME[check_name(name, ROWS_BY_NAME, f"`{path}`: ")]
        found[name] = read_value(row, value, f"`{name}` in `{path}`")
    folder = Path(path).parent
    return found | dict(_placed(found, folder))


def _placed(found: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    """The paths of a file, with its folder before them."""
    for name in (*_PATHS, "tokenizer", "spec"):
        value = found.get(name)
        if value is None or value.startswith("package:"):
            continue
        place = folder / value
        # Other tokenizers and specs have names.
        if name in _PATHS or (folder / value.partition(":")[0]).exists():
            yield name, str(place)


def parse_options(texts: Mapping[str, Any], parameters: Callable[[], Any]) -> dict[str, Any]:
    """The values of options, given as text by name; None stands for an option not given.

    `parameters` gives those of `--set`.
    """
    found = {}
    for name, text in texts.items():
        row = ROWS_BY_NAME[name]
        if text is None or text == []:
            continue
        if name == "set":
            found[name] = parameters()
        elif isinstance(text, list | bool):
            found[name] = read_value(row, text, row.option)
        else:
            try:
                found[name] = row.kind.parse(text)
            except ValueError:
                refuse(row, text, row.option)
    return found
