"""A folder's `generation_config.json`, followed by `archdsl generate` as by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.cli import main
from archdsl.generation.generation_config import TEXT, read_generation_config
from archdsl.generation.processors import Progress, apply_processors
from archdsl.generation.sampling import filter_scores
from tests.cli.tiny import gpt2

pytestmark = pytest.mark.reference("torch", "transformers", "tokenizers")

V, END = 64, 0
PROMPT = "the cat"

# What such a file says, and what it makes of the choice of the next token.
FIELDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "drawn": {"do_sample": True},
    "drawn from all": {"do_sample": True, "top_k": 0},
    "cool": {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    "few": {"do_sample": True, "top_k": 5, "min_p": 0.1, "top_p": 1.0},
    "not drawn": {"do_sample": False, "temperature": 0.6, "top_p": 0.9},
    "no repeats": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "drawn without repeats": {"do_sample": True, "repetition_penalty": 1.3, "temperature": 2.0},
    "forbidden": {"bad_words_ids": [[12], [7, 9], [END]], "suppress_tokens": [20, 21]},
    "first": {"begin_suppress_tokens": [8, 9, END], "forced_bos_token_id": 5},
    "least": {"min_length": 14, "max_new_tokens": 12},
    "least new": {"min_new_tokens": 9, "max_new_tokens": 12, "min_length": 3},
    "last": {"forced_eos_token_id": END, "max_length": 16},
    "two ends": {"eos_token_id": [END, 11], "max_new_tokens": 30},
    "alike": {
        "renormalize_logits": True,
        "num_beams": 1,
        "typical_p": 1.0,
        "max_new_tokens": 6,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(gpt2(tmp_path_factory.mktemp("models") / "tiny", context=48))


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV", "CPU")


def reference(folder: Path, fields: dict[str, Any]) -> Any:
    """The folder's model by transformers, once the folder says this."""
    from transformers import GPT2LMHeadModel

    usual = {"eos_token_id": END, "pad_token_id": END, "bos_token_id": END}
    text = json.dumps(usual | fields)
    (folder / "generation_config.json").write_text(text, encoding="utf-8")
    return GPT2LMHeadModel.from_pretrained(folder).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FIELDS)
def test_the_scores_that_a_token_is_chosen_by(name: str, folder: Path) -> None:
    import torch

    model = reference(folder, FIELDS[name])
    ours = read_generation_config(folder, TEXT)
    sampling = ours.sampling(0.7)
    random = np.random.default_rng(3)
    for made in range(4):
        prompt = 6
        row = random.integers(1, 20, prompt + made)
        scores = random.normal(0, 3, (1, V))
        theirs, _ = model._prepare_generation_config(None)
        model._prepare_special_tokens(theirs, device="cpu")
        if theirs.max_new_tokens is not None:
            theirs.max_length = prompt + theirs.max_new_tokens
        if theirs.min_new_tokens is not None:
            theirs.min_length = prompt + theirs.min_new_tokens
        rules = model._get_logits_processor(theirs, input_ids_seq_length=prompt, device="cpu")
        right = rules(torch.from_numpy(row[None]), torch.from_numpy(scores.copy()))[0].numpy()
        longest = theirs.max_length if "max_length" in FIELDS[name] else 99
        at = Progress(row[None], made, [longest - len(row)])
        given = apply_processors(scores, ours.processors(ours.eos_token_id), at)[0]
        found = filter_scores(given, row.tolist(), sampling)
        if theirs.do_sample:
            np.testing.assert_array_equal(found, right)
        else:
            assert np.isfinite(found).sum() == 1
            assert found.argmax() == right.argmax()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in FIELDS if not FIELDS[n].get("do_sample")])
def test_generate_writes_what_transformers_generates(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from tokenizers import Tokenizer

    fields = {"max_new_tokens": 12} | FIELDS[name]
    if "max_length" in fields:
        del fields["max_new_tokens"]
    model = reference(folder, fields)
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = words.encode(PROMPT).ids
    theirs = model.generate(torch.tensor([ids]))[0, len(ids) :].tolist()
    capsys.readouterr()  # transformers shows how far it is
    assert main(["generate", str(folder), PROMPT, "--json"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["tokens"], err) == (theirs, "")
    # What is asked for counts more.
    assert main(["generate", str(folder), PROMPT, "--json", "--max-new-tokens", "3"]) == 0
    told = json.loads(capsys.readouterr().out)["tokens"]
    theirs = model.generate(torch.tensor([ids]), max_new_tokens=3)[0, len(ids) :].tolist()
    assert told == theirs
