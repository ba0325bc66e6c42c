"""The decoding options of a published folder: `generation_config.json`.

A folder without this file has the fields in its `config.json`, as before transformers 4.26.
Each task supports the fields that apply to it. A field that would change the result and is not
supported is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, listing
from archdsl.formats.strict_json import read_object
from archdsl.frozen import Frozen
from archdsl.generation.beam_search import EarlyStopping, Penalty, Search
from archdsl.generation.processors import (
    Forbid,
    ForbidFirst,
    ForceFirst,
    ForceLast,
    MinLength,
    NoRepeat,
    Processor,
    Renormalise,
)
from archdsl.generation.sampling import Sampling

_FILES = ("config.json", "generation_config.json")
# The names in CTranslate2's config.json, and ours.
_CTRANSLATE2 = {
    "suppress_ids": "suppress_tokens",
    "suppress_ids_begin": "begin_suppress_tokens",
}
_TOP_K = 50  # transformers' default for sampling


class GenerationConfig(Frozen):
    """The fields by name, None or empty if missing.

    `own` is whether the folder has a `generation_config.json`. Then tokens are sampled only if
    `do_sample` is true, as in transformers.
    """

    decoder_start_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    min_new_tokens: int = 0
    max_length: int | None = None
    max_new_tokens: int | None = None
    stop_strings: tuple[str, ...] = ()
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    renormalize_logits: bool = False
    is_multilingual: bool | None = None
    language: str | None = None
    task: str | None = None
    own: bool = False

    def processors(self, ends: tuple[int, ...]) -> tuple[Processor, ...]:
        """Returns the logits processors, in the order of transformers.

        `ends` are the tokens that end a row.
        """
        words = [word for word in self.bad_words_ids if word not in [(end,) for end in ends]]
        words += [(token,) for token in self.suppress_tokens]
        first = self.forced_bos_token_id
        # min_new_tokens overrides min_length.
        least = (0, self.min_new_tokens) if self.min_new_tokens else (self.min_length, 0)
        asked: tuple[tuple[object, Processor], ...] = (
            (self.no_repeat_ngram_size, NoRepeat(self.no_repeat_ngram_size)),
            (words, Forbid(tuple(words))),
            (
                self.begin_suppress_tokens,
                ForbidFirst(self.begin_suppress_tokens, after_forced=first is not None),
            ),
            (any(least), MinLength(ends, *least)),
            (first is not None, ForceFirst(first or 0)),
            (self.forced_eos_token_id, ForceLast(self.forced_eos_token_id)),
            (self.renormalize_logits, Renormalise()),
        )
        return tuple(processor for needed, processor in asked if needed)

    def sampling(
        self,
        default_temperature: float,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
    ) -> Sampling:
        """Returns the sampling options: the arguments, else the fields of the folder.

        `default_temperature` applies if neither sets a temperature.

        >>> GenerationConfig(own=True).sampling(0.7).temperature  # greedy
        0
        >>> GenerationConfig(do_sample=True, top_p=0.9).sampling(0.7, top_k=5)
        Sampling(temperature=1.0, top_k=5, top_p=0.9, min_p=None, repetition_penalty=1.0)
        """
        asked = any(each is not None for each in (temperature, top_k, top_p, min_p))
        sample = not self.own if self.do_sample is None else self.do_sample
        penalty = self.repetition_penalty if repetition_penalty is None else repetition_penalty
        if not asked and not sample:
            return Sampling(0, repetition_penalty=penalty)
        default = (1.0, _TOP_K) if self.do_sample else (default_temperature, None)
        return Sampling(
            temperature=_first_set(temperature, self.temperature, default[0]),
            top_k=_first_set(top_k, self.top_k, default[1]),
            top_p=_first_set(top_p, self.top_p),
            min_p=_first_set(min_p, self.min_p),
            repetition_penalty=penalty,
        )

    def search(self, longest: int) -> Search:
        """Returns the beam search; `longest` is the maximum length if the folder sets none."""
        ends = self.eos_token_id
        start = _first_set(self.decoder_start_token_id, self.bos_token_id)
        assert start is not None
        new = self.max_new_tokens
        return Search(
            start=start,
            ends=ends,
            max_length=_first_set(self.max_length, longest) if new is None else new + 1,
            beams=self.num_beams,
            penalty=Penalty(self.length_penalty),
            early_stopping=self.early_stopping,
            refill=True,
            cut_off=True,
            best=self.num_return_sequences,
            processors=self.processors(ends),
        )


# The kind of each field's value.
KINDS = {
    "decoder_start_token_id": "token",
    "bos_token_id": "token",
    "eos_token_id": "tokens",
    "forced_bos_token_id": "token",
    "forced_eos_token_id": "tokens",
    "bad_words_ids": "sequences",
    "suppress_tokens": "tokens",
    "begin_suppress_tokens": "tokens",
    "no_repeat_ngram_size": "count",
    "min_length": "count",
    "min_new_tokens": "count",
    "max_length": "count",
    "max_new_tokens": "count",
    "stop_strings": "texts",
    "do_sample": "flag",
    "temperature": "number",
    "top_k": "count",
    "top_p": "number",
    "min_p": "number",
    "repetition_penalty": "number",
    "num_beams": "count",
    "num_return_sequences": "count",
    "length_penalty": "number",
    "early_stopping": "stop",
    "renormalize_logits": "flag",
    "is_multilingual": "flag",
    "language": "text",
    "task": "text",
}
_EXPECTED = {
    "token": "a token id",
    "tokens": "a token id, or a list of token ids",
    "sequences": "lists of token ids",
    "count": "a whole number, 0 or more",
    "number": "a number",
    "stop": 'true, false or "never"',
    "flag": "true or false",
    "text": "a text",
    "texts": "a text, or a list of texts",
}

# The value, in addition to null, with which an unsupported field has no effect. No task
# supports the fields that are not in KINDS.
_NEUTRAL: dict[str, object] = {
    "do_sample": False,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "return_timestamps": False,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0,
    "penalty_alpha": 0,
    "guidance_scale": 1,
    "top_h": None,
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "exponential_decay_length_penalty": None,
    "sequence_bias": None,
    "watermarking_config": None,
    "constraints": None,
    "force_words_ids": None,
    "max_time": None,
    "token_healing": False,
    "dola_layers": None,
}

# Fields that change no result: of speed, of additional outputs, of padding.
_WITHOUT_EFFECT = """
use_cache cache_* max_cache_len compile_config disable_compile prefill_chunk_size low_memory
pad_token_id output_* return_dict* remove_invalid_values transformers_version _*
is_assistant assistant_* num_assistant_tokens* *_lookbehind prompt_lookup_num_tokens
max_matching_ngram_size use_mtp speculation_type continuous_batching_config
"""


class Task(Frozen):
    """The fields that a task supports.

    - `supported`: the fields that it uses.
    - `without_effect`: patterns of fields that do not apply to it.
    - `needed`: groups of fields; one of each group is required.
    - `hint`: the help in messages about unsupported fields.
    """

    supported: str
    without_effect: str = ""
    needed: tuple[tuple[str, ...], ...] = ()
    hint: str | None = None

    def ignores(self, name: str) -> bool:
        patterns = f"{_WITHOUT_EFFECT} {self.without_effect}".split()
        return any(fnmatchcase(name, pattern) for pattern in patterns)


_RULES = """
bos_token_id eos_token_id forced_bos_token_id forced_eos_token_id bad_words_ids suppress_tokens
begin_suppress_tokens no_repeat_ngram_size min_length min_new_tokens max_length max_new_tokens
renormalize_logits
"""
SEARCH = Task(
    f"""{_RULES} decoder_start_token_id num_beams num_return_sequences length_penalty
    early_stopping""",
    "temperature top_k top_p top_h min_p typical_p epsilon_cutoff eta_cutoff",
    (("decoder_start_token_id", "bos_token_id"), ("eos_token_id",)),
)
TEXT = Task(
    f"{_RULES} do_sample temperature top_k top_p min_p repetition_penalty stop_strings",
    "decoder_start_token_id length_penalty early_stopping",
    hint="use --ignore-generation-config to ignore the file",
)
# The first tokens of a transcript (language, task, no timestamps) come from the tokenizer.
SPEECH = Task(
    """eos_token_id suppress_tokens begin_suppress_tokens bad_words_ids no_repeat_ngram_size
    min_length min_new_tokens max_length max_new_tokens is_multilingual language task""",
    f"""{SEARCH.without_effect} length_penalty early_stopping renormalize_logits bos_token_id
    decoder_start_token_id forced_decoder_ids lang_to_id task_to_id no_timestamps_token_id
    prev_sot_token_id alignment_heads median_filter_width max_initial_timestamp_index""",
)


def read_generation_config(folder: Path, task: Task) -> GenerationConfig:
    """Reads the fields of a folder that a task supports; all are missing without a file.

    Raises `ArchError` "config" with all fields that are not supported, not known or have a
    wrong value.
    """
    general, path = (folder / name for name in _FILES)
    own = path.is_file()
    if not own:
        path = general
    if not own and not task.needed and not path.is_file():
        return GenerationConfig()
    found = read_object(path, "a config")
    given = {name: value for name, value in found.items() if value not in (None, [], {})}
    if not own:  # the other fields describe the model; its spec checks them
        known = {*KINDS, *_NEUTRAL} - {
            "is_multilingual",
            "language",
            "task",
            "return_timestamps",
        }
        given = {_CTRANSLATE2.get(name, name): value for name, value in given.items()}
        given = {name: value for name, value in given.items() if name in known}
    _check(path, given, task)
    supported = given.keys() & task.supported.split()
    typed = {name: _convert(KINDS[name], given[name]) for name in supported}
    return GenerationConfig(**typed, own=own)


def _check(path: Path, given: Mapping[str, object], task: Task) -> None:
    problems = [each for item in given.items() if (each := _problem(*item, task))]
    for names in task.needed:
        if not any(name in given for name in names):
            problems.append((f"the field {listing(names)} is missing", "a token id", None))
    if problems:
        raise ArchError(
            Diagnostic("config", f"{path}: {message}", None, expected, help=help)
            for message, expected, help in problems
        )


def _problem(name: str, value: object, task: Task) -> tuple[str, str | None, str | None] | None:
    """Checks a field; returns the message, what is expected, and the help, or None."""
    field = f"{name} is {json.dumps(value)[:80]}"
    supported = task.supported.split()
    if name in supported:
        kind = KINDS[name]
        return None if _is_kind(kind, value) else (field, _EXPECTED[kind], None)
    if task.ignores(name):
        return None
    if name in KINDS or name in _NEUTRAL:
        if value == _NEUTRAL.get(name):
            return None
        help = task.hint or "remove the field; the result will differ from transformers"
        return f"{field}, which is not supported", None, help
    near = did_you_mean(name, (*supported, *_NEUTRAL))
    return f"{field}; the field is unknown", None, near or task.hint


def _is_kind(kind: str, value: object) -> bool:
    whole = type(value) is int and value >= 0
    match kind:
        case "token" | "count":
            return whole
        case "tokens":
            return whole or (
                isinstance(value, list) and all(_is_kind("token", v) for v in value)
            )
        case "sequences":
            return isinstance(value, list) and all(
                isinstance(each, list) and each and _is_kind("tokens", each) for each in value
            )
        case "number":
            return type(value) in (int, float)
        case "stop":
            return type(value) is bool or value == "never"
        case "text":
            return isinstance(value, str)
        case "texts":
            return isinstance(value, str) or (
                isinstance(value, list) and all(isinstance(each, str) for each in value)
            )
    return type(value) is bool


def _convert(kind: str, value: Any) -> Any:
    """Converts a value to the type of the field of `GenerationConfig`."""
    if kind == "sequences":
        return tuple(tuple(each) for each in value)
    if kind in ("tokens", "texts"):
        return tuple(value) if isinstance(value, list) else (value,)
    return value


def _first_set(*values: Any) -> Any:
    """Returns the first value that is not None."""
    return next((value for value in values if value is not None), None)
