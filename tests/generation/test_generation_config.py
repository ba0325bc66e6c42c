"""Reading generation_config.json; tests/reference compares its effects with transformers."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.diagnostics import ArchError
from archdsl.generation.beam_search import Penalty, Search
from archdsl.generation.generation_config import (
    KINDS,
    SEARCH,
    SPEECH,
    TEXT,
    GenerationConfig,
    Task,
    read_generation_config,
)
from archdsl.generation.processors import (
    Forbid,
    ForbidFirst,
    ForceFirst,
    ForceLast,
    MinLength,
    Progress,
    Renormalise,
    apply_processors,
)
from archdsl.generation.sampling import Sampling

KNOWN = {"decoder_start_token_id": 3, "eos_token_id": 1}


def folder(path: Path, name: str = "generation_config.json", **fields: Any) -> Path:
    (path / name).write_text(json.dumps(fields))
    return path


def read_search(place: Path, longest: int) -> Search:
    return read_generation_config(place, SEARCH).search(longest)


def refusals(place: Path, task: Task = SEARCH) -> list[str]:
    with pytest.raises(ArchError) as caught:
        read_generation_config(place, task)
    assert {d.code for d in caught.value.diagnostics} == {"config"}
    return [d.message.removeprefix(f"{place}/") for d in caught.value.diagnostics]


def test_defaults_are_those_of_transformers(tmp_path: Path) -> None:
    search = read_search(folder(tmp_path, **KNOWN), 20)
    assert (search.start, search.ends, search.beams, search.best) == (3, (1,), 1, 1)
    assert (search.penalty, search.early_stopping) == (Penalty(1.0), False)
    assert (search.refill, search.cut_off, search.processors) == (True, True, ())
    assert search.max_length == 20  # the model's bound: transformers would stop at 21


def test_supported_fields(tmp_path: Path) -> None:
    fields = {
        "bos_token_id": 9,
        "eos_token_id": [1, 2],
        "forced_bos_token_id": 5,
        "forced_eos_token_id": 2,
        "bad_words_ids": [[7], [8, 9], [2]],
        "suppress_tokens": [4],
        "begin_suppress_tokens": [6],
        "min_new_tokens": 2,
        "max_new_tokens": 11,
        "max_length": 400,
        "num_beams": 4,
        "num_return_sequences": 3,
        "length_penalty": 0.5,
        "early_stopping": "never",
        "renormalize_logits": True,
        "repetition_penalty": 1.0,
        "do_sample": None,
        "sequence_bias": [],
        "temperature": 0.2,
        "output_attentions": True,
        "transformers_version": "4.40.0",
    }
    search = read_search(folder(tmp_path, **fields), 20)
    assert (search.start, search.ends) == (9, (1, 2))
    assert (search.max_length, search.beams, search.best) == (12, 4, 3)
    assert (search.penalty, search.early_stopping) == (Penalty(0.5), "never")
    # An end token among the bad words stays an end token.
    assert search.processors == (
        Forbid(((7,), (8, 9), (4,))),
        ForbidFirst((6,), after_forced=True),
        MinLength((1, 2), new=2),
        ForceFirst(5),
        ForceLast((2,)),
        Renormalise(),
    )


def test_an_older_folder_has_the_fields_in_its_config(tmp_path: Path) -> None:
    config = {"model_type": "marian", "d_model": 8, "num_beams": 6, **KNOWN}
    assert read_search(folder(tmp_path, "config.json", **config), 20).beams == 6
    folder(tmp_path, "config.json", **config, encoder_repetition_penalty=1.5)
    assert refusals(tmp_path) == [
        "config.json: encoder_repetition_penalty is 1.5, which is not supported"
    ]
    assert read_search(folder(tmp_path, **KNOWN), 20).beams == 1


def test_unsupported_fields_are_reported(tmp_path: Path) -> None:
    wrong = {"do_sample": True, "repetition_penalty": 1.2, "num_beam": 4, "guess": 1}
    found = refusals(folder(tmp_path, **KNOWN, **wrong, num_beams="four", early_stopping=1))
    name = "generation_config.json"
    assert found == [
        f"{name}: do_sample is true, which is not supported",
        f"{name}: repetition_penalty is 1.2, which is not supported",
        f"{name}: num_beam is 4; the field is unknown",
        f"{name}: guess is 1; the field is unknown",
        f'{name}: num_beams is "four"',
        f"{name}: early_stopping is 1",
    ]
    with pytest.raises(ArchError, match="did you mean `num_beams`"):
        read_search(tmp_path, 20)


def test_required_fields(tmp_path: Path) -> None:
    assert refusals(folder(tmp_path, num_beams=2)) == [
        "generation_config.json: the field `decoder_start_token_id` or `bos_token_id` is "
        "missing",
        "generation_config.json: the field `eos_token_id` is missing",
    ]
    with pytest.raises(ArchError, match="No such file"):
        read_search(tmp_path / "nowhere", 20)


def test_every_field_has_a_kind() -> None:
    assert KINDS.keys() == {each.name for each in fields(GenerationConfig)} - {"own"}
    for task in (SEARCH, TEXT, SPEECH):
        assert {*task.supported.split()} <= KINDS.keys()
        assert not any(task.ignores(name) for name in task.supported.split())


def test_each_task_supports_other_fields(tmp_path: Path) -> None:
    folder(tmp_path, num_beams=4, do_sample=True, top_k=0, top_h=0.5, early_stopping=True)
    found = refusals(tmp_path, TEXT)
    name = "generation_config.json"
    assert found == [
        f"{name}: num_beams is 4, which is not supported",
        f"{name}: top_h is 0.5, which is not supported",
    ]
    assert refusals(tmp_path, SPEECH) == [
        f"{name}: num_beams is 4, which is not supported",
        f"{name}: do_sample is true, which is not supported",
    ]
    folder(tmp_path, "config.json", language="en", task="asr", temperature=0.5)
    (tmp_path / name).unlink()
    assert read_generation_config(tmp_path, TEXT) == GenerationConfig(temperature=0.5)
    assert read_generation_config(tmp_path / "nowhere", TEXT) == GenerationConfig()


@pytest.mark.parametrize(
    ("config", "asked", "sampling"),
    [
        ({}, {}, Sampling(0.7)),
        ({}, {"top_k": 9}, Sampling(0.7, top_k=9)),
        ({"own": True}, {}, Sampling(0)),
        ({"own": True, "top_p": 0.5}, {"temperature": 0.3}, Sampling(0.3, top_p=0.5)),
        ({"own": True, "top_p": 0.5}, {"min_p": 0.3}, Sampling(0.7, top_p=0.5, min_p=0.3)),
        ({"do_sample": False, "temperature": 3.0}, {}, Sampling(0)),
        ({"do_sample": False, "temperature": 3.0}, {"top_k": 2}, Sampling(3.0, top_k=2)),
        ({"do_sample": True}, {}, Sampling(1.0, top_k=50)),
        ({"do_sample": True, "top_k": 0}, {}, Sampling(1.0, top_k=0)),
        ({"do_sample": True}, {"top_k": 0}, Sampling(1.0, top_k=0)),
        ({"do_sample": True, "top_k": 7}, {"temperature": 0.0}, Sampling(0.0, top_k=7)),
        ({"repetition_penalty": 1.5, "own": True}, {}, Sampling(0, repetition_penalty=1.5)),
        ({"repetition_penalty": 1.5}, {"repetition_penalty": 1.0}, Sampling(0.7)),
    ],
)
def test_arguments_override_the_config(config: Any, asked: Any, sampling: Sampling) -> None:
    assert GenerationConfig(**config).sampling(0.7, **asked) == sampling


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eos_token_id", "1"),
        ("eos_token_id", [1, True]),
        ("decoder_start_token_id", [1, 2]),
        ("decoder_start_token_id", -1),
        ("bad_words_ids", [3]),
        ("bad_words_ids", [[]]),
        ("length_penalty", True),
        ("max_length", 2.5),
        ("renormalize_logits", 1),
        ("early_stopping", "always"),
    ],
)
def test_a_field_of_another_type_is_an_error(tmp_path: Path, name: str, value: Any) -> None:
    (found,) = refusals(folder(tmp_path, **KNOWN | {name: value}))
    assert found == f"generation_config.json: {name} is {json.dumps(value)}"


def test_processors_that_forbid_all_tokens() -> None:
    even = np.zeros((1, 3))
    rules = [Forbid(((0,), (2,))), ForbidFirst((1,))]
    found = apply_processors(even, rules, Progress([[0, 0]], 1, [7]))
    assert found.tolist() == [[-np.inf, 0, -np.inf]]
    with pytest.raises(
        ArchError, match="the logits processors forbid every token after 1 tokens"
    ):
        apply_processors(even, rules, Progress([[0]], 0, [8]))
