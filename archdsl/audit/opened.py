"""The files of a checkpoint that an audit looks at, each read by its own reader."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from archdsl.analysis import Analysis
from archdsl.audit.findings import Findings
from archdsl.diagnostics import ArchError
from archdsl.formats import Checkpoint, LazyTensor, read_checkpoint, resolve
from archdsl.formats.strict_json import read_object
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph
from archdsl.pretrained import take_weights, understand
from archdsl.published.config_values import flatten
from archdsl.published.recognise import Recognised
from archdsl.text.tokenizer import TextTokenizer, read_tokenizer

_CONFIGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
)
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model")


class Opened(Frozen):
    """A folder or a GGUF file.

    - `files`: the names of its files; empty for a GGUF file.
    - `configs`: the JSON files that can be read, by name; the metadata of a GGUF file as
      `config.json`.
    - `checkpoint`, `known`, `analysis`, `weights`, `tokenizer`: None if a reader refuses them.
    """

    place: Path
    files: frozenset[str]
    configs: Mapping[str, Mapping[str, Any]]
    checkpoint: Checkpoint | None
    known: Recognised | None
    analysis: Analysis | None
    weights: Mapping[str, LazyTensor] | None
    tokenizer: TextTokenizer | None

    @property
    def graph(self) -> Graph | None:
        return self.analysis.graph if self.analysis else None

    @property
    def is_folder(self) -> bool:
        return bool(self.files)

    @property
    def rows(self) -> int | None:
        """How many tokens the model knows; None for a model without tokens."""
        inputs = self.graph.inputs if self.graph else ()
        return max((i.type.below or 0 for i in inputs if i.type.dtype == "int"), default=None)

    def config(self, name: str = "config.json") -> Mapping[str, Any]:
        return self.configs.get(name, {})

    def fields(self) -> Mapping[str, Any]:
        """The fields of the config by their dotted names."""
        return flatten(self.config())

    def name(self, file: str, field: str) -> str:
        """A place in a finding: a file and a field."""
        return f"{file if self.is_folder else self.place.name}: {field}"


def open_all(path: str, ignore: Collection[str], findings: Findings) -> Opened:
    """Reads what can be read; a file that a reader refuses is a finding.

    Raises `ArchError` "file" if there is no such folder or file.
    """
    place = resolve(path)
    files = frozenset(each.name for each in place.iterdir()) if place.is_dir() else frozenset()
    checkpoint: Checkpoint | None = None
    try:
        checkpoint = read_checkpoint(place)
    except ArchError as error:
        if not place.exists():
            raise
        with findings.refusals("weights"):
            raise error
    configs: dict[str, Mapping[str, Any]] = {}
    for name in _CONFIGS:
        if name in files:
            with findings.refusals(name):
                configs[name] = read_object(place / name, "a config")
    if not files and checkpoint and checkpoint.config:
        configs["config.json"] = checkpoint.config
    known: Recognised | None = None
    analysis: Analysis | None = None
    weights: Mapping[str, LazyTensor] | None = None
    if checkpoint:
        with findings.refusals("config.json" if files else place.name):
            _, known, analysis = understand(place, None, ignore)
    if checkpoint and known and analysis:
        with findings.refusals("weights"):
            weights = take_weights(place, checkpoint, known, analysis)
    tokenizer = _read_tokenizer(place, files, configs.get("config.json", {}), findings)
    return Opened(place, files, configs, checkpoint, known, analysis, weights, tokenizer)


def _read_tokenizer(
    place: Path, files: Collection[str], config: Mapping[str, Any], findings: Findings
) -> TextTokenizer | None:
    has_one = any(name in files for name in _TOKENIZERS) or "tokenizer.ggml.model" in config
    if has_one:
        with findings.refusals("tokenizer"):
            return read_tokenizer(place)
    return None
