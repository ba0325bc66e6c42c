"""What the page asks the server to run, and answers that refuse it, as JSON data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from archdsl.diagnostics import Diagnostic, did_you_mean, fail, listing
from archdsl.frozen import Frozen
from archdsl.semantics.model_parameters import Setting

RANDOM, GIVEN = "random", "given"  # weights
DONE: dict[str, Any] = {}  # comes after the answers to a request


class RunRequest(Frozen):
    """A model and its inputs.

    - `text`, `model`, `values`: the model, as `play.inspect.Request` names it.
    - `weights`: "random", drawn from the seed, or "given": those of the command line.
    - `inputs`: by name, a text, nested lists of numbers, or {"image": base64 of a file}.
    - `seed`: of random weights, of inputs that are not given, and of sampling.
    - `max_new_tokens`, `temperature`, `top_k`: of a generation, as `Model.generate` has them.
    """

    text: str
    model: str | None = None
    values: Mapping[str, Setting] | None = None
    weights: str = RANDOM
    inputs: Mapping[str, Any] | None = None
    seed: int = 0
    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int | None = None


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "text": ((str,), "a text"),
    "model": ((str, type(None)), "a name"),
    "values": ((dict, type(None)), "an object with a value for each name"),
    "weights": ((str,), listing((RANDOM, GIVEN))),
    "inputs": ((dict, type(None)), "an object with a value for each name"),
    "seed": ((int,), "a whole number"),
    "max_new_tokens": ((int,), "a whole number"),
    "temperature": ((int, float), "a number"),
    "top_k": ((int, type(None)), "a whole number"),
}


def read_run_request(data: object) -> RunRequest:
    """A request from JSON data; raises `ArchError` (`argument-value`) for another form.

    >>> read_run_request({"text": "", "sede": 1})
    Traceback (most recent call last):
    archdsl.diagnostics.ArchError: error[argument-value]: a request has no `sede`
      = help: did you mean `seed`?
    """
    if not isinstance(data, dict) or "text" not in data:
        fail("argument-value", "the request has no `text`", expected='{"text": "model …"}')
    for name, value in data.items():
        if name not in _KINDS:
            message = f"a request has no `{name}`"
            fail("argument-value", message, help=did_you_mean(str(name), _KINDS))
        types, expected = _KINDS[name]
        if not isinstance(value, types) or (isinstance(value, bool) and name != "values"):
            message = f"`{name}` of a request cannot be {value!r:.80}"
            fail("argument-value", message, expected=expected)
    found = RunRequest(**data)
    for name, right, expected in (
        ("weights", found.weights in (RANDOM, GIVEN), listing((RANDOM, GIVEN))),
        ("seed", found.seed >= 0, "a whole number, at least 0"),
    ):
        if not right:
            message = f"`{name}` of a request cannot be {data[name]!r:.80}"
            fail("argument-value", message, expected=expected)
    return found


def line(answer: dict[str, Any]) -> bytes:
    """An answer as a line of JSON."""
    return json.dumps(answer).encode() + b"\n"


def refused(*diagnostics: Diagnostic) -> dict[str, Any]:
    """The answer to a request that is refused, with the messages."""
    return {"refused": [each.render() for each in diagnostics]}


assert _KINDS.keys() == {each.name for each in fields(RunRequest)}
