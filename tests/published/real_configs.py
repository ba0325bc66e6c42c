"""Configs of published checkpoints: the values of their fields, and where each was read.

`real_configs.jsonl` has one in each line. Its source is a file of a repository on GitHub, or
`pypi:` and a package. `labels` stands for the tables of as many labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.graph.cost import parameter_count
from archdsl.published.recognise import recognise

FILE = Path(__file__).with_suffix(".jsonl")


class Real(NamedTuple):
    """A config.json, by its name and its family."""

    family: str
    name: str
    source: str
    config: dict[str, Any]

    @property
    def link(self) -> str:
        """The name as a link to the source."""
        if self.source.startswith("pypi:"):
            return f"[{self.name}](https://pypi.org/project/{self.source[5:]}/)"
        owner, repository, path = self.source.split("/", 2)
        return f"[{self.name}](https://github.com/{owner}/{repository}/blob/HEAD/{path})"


def real_configs() -> list[Real]:
    """All of them, those of a family together."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    found = [Real(**json.loads(line)) for line in lines]
    return [each._replace(config=_with_labels(each.config)) for each in found]


def parameters(config: dict[str, Any]) -> int | str:
    """How many parameters the model of a config has, or why it is refused."""
    reasons = []
    for tensors in (None, {}):  # with the heads that are usual, and without
        try:
            known = recognise("config.json", config, tensors=tensors)
            graph = analyse(str(known.path), known.model.name.id, dict(known.settings)).graph
            return parameter_count(graph)
        except ArchError as error:
            reasons.append(error.diagnostics[0].message.removeprefix("config.json: "))
    return reasons[0]


def _with_labels(config: dict[str, Any]) -> dict[str, Any]:
    found = {n: _with_labels(v) if isinstance(v, dict) else v for n, v in config.items()}
    if "labels" in found:
        names = [f"LABEL_{i}" for i in range(found.pop("labels"))]
        found["id2label"] = {str(i): name for i, name in enumerate(names)}
        found["label2id"] = {name: i for i, name in enumerate(names)}
    return found
