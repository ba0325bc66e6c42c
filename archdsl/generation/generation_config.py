"""What a published folder says of decoding: `generation_config.json`, the one reader of it.

A folder without one has it in its `config.json`, as was usual before transformers 4.26. Each
job follows the fields that mean something to it. A field that would change its result and that
it does not follow is refused by name, never passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, listing
from archdsl.formats.strict_json import read_object
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

_FILES = ("config.json", "generation_config.json")  # the later one counts more
_TOP_K = 50  # of transformers, where a folder has tokens drawn and does not say from how many


@dataclass(frozen=True)
class GenerationConfig:
    """The fields by their names, each None or empty where the folder does not say.

    `own` is whether the folder has a `generation_config.json`: tokens are then drawn only where
    it says so, as transformers has it.
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
        """What the folder has done to scores, in the order of transformers; `ends` are the
        tokens that end a row."""
        words = [word for word in self.bad_words_ids if word not in [(end,) for end in ends]]
        words += [(token,) for token in self.suppress_tokens]
        first = self.forced_bos_token_id
        # The number of new tokens counts more than that of all.
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
        otherwise: float,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
    ) -> Sampling:
        """How tokens are chosen: what is asked for here counts more than what the folder says,
        and that more than `otherwise`, a temperature.

        >>> GenerationConfig(own=True).sampling(0.7).temperature  # greedy
        0
        >>> GenerationConfig(do_sample=True, top_p=0.9).sampling(0.7, top_k=5)
        Sampling(temperature=1.0, top_k=5, top_p=0.9, min_p=None, repetition_penalty=1.0)
        """
        asked = any(each is not None for each in (temperature, top_k, top_p, min_p))
        said = not self.own if self.do_sample is None else self.do_sample
        penalty = self.repetition_penalty if repetition_penalty is None else repetition_penalty
        if not asked and not said:
            return Sampling(0, repetition_penalty=penalty)
        usual = (1.0, _TOP_K) if self.do_sample else (otherwise, None)
        k = self.top_k or (usual[1] if self.top_k is None else None)  # 0 is all of them
        return Sampling(
            temperature=_first(temperature, self.temperature, usual[0]),
            top_k=_first(top_k, k),
            top_p=_first(top_p, self.top_p),
            min_p=_first(min_p, self.min_p),
            repetition_penalty=penalty,
        )

    def search(self, longest: int) -> Search:
        """The search for targets; `longest` is the most tokens that a target can have, which
        counts where the folder says no length."""
        ends = self.eos_token_id
        start = _first(self.decoder_start_token_id, self.bos_token_id)
        assert start is not None
        new = self.max_new_tokens
        return Search(
            start=start,
            ends=ends,
            max_length=_first(self.max_length, longest) if new is None else new + 1,
            beams=self.num_beams,
            penalty=Penalty(self.length_penalty),
            early_stopping=self.early_stopping,
            refill=True,
            cut_off=True,
            best=self.num_return_sequences,
            processors=self.processors(ends),
        )


# By what each field is: a number, a whole one, tokens (one or a list), lists of tokens.
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
_SAID = {
    "token": "a token's number",
    "tokens": "a token's number, or a list of such",
    "sequences": "lists of tokens' numbers",
    "count": "a whole number",
    "number": "a number",
    "stop": 'true, false or "never"',
    "flag": "true or false",
    "text": "a text",
    "texts": "a text, or a list of such",
}

# Where a job does not follow a field, the value (beside null) that changes nothing. Of those
# that are not in KINDS no job follows any.
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

# Those that change no result: of speed, of what else is given back, of filling up a batch.
_WITHOUT_EFFECT = """
use_cache cache_* max_cache_len compile_config disable_compile prefill_chunk_size low_memory
pad_token_id output_* return_dict* remove_invalid_values transformers_version _*
is_assistant assistant_* num_assistant_tokens* *_lookbehind prompt_lookup_num_tokens
max_matching_ngram_size use_mtp speculation_type continuous_batching_config
"""


@dataclass(frozen=True)
class Job:
    """What a job makes of the fields: those that it follows, patterns of those that say nothing
    to it, of each group in `needed` one that there must be, and how to go on without them."""

    follows: str
    without_effect: str = ""
    needed: tuple[tuple[str, ...], ...] = ()
    otherwise: str | None = None

    def ignores(self, name: str) -> bool:
        patterns = f"{_WITHOUT_EFFECT} {self.without_effect}".split()
        return any(fnmatchcase(name, pattern) for pattern in patterns)


_RULES = """
bos_token_id eos_token_id forced_bos_token_id forced_eos_token_id bad_words_ids suppress_tokens
begin_suppress_tokens no_repeat_ngram_size min_length min_new_tokens max_length max_new_tokens
renormalize_logits
"""
SEARCH = Job(
    f"""{_RULES} decoder_start_token_id num_beams num_return_sequences length_penalty
    early_stopping""",
    "temperature top_k top_p top_h min_p typical_p epsilon_cutoff eta_cutoff",
    (("decoder_start_token_id", "bos_token_id"), ("eos_token_id",)),
)
TEXT = Job(
    f"{_RULES} do_sample temperature top_k top_p min_p repetition_penalty stop_strings",
    "decoder_start_token_id length_penalty early_stopping",
    otherwise="--ignore-generation-config decodes as if there were no such file",
)
# What starts a transcript, the tokenizer says: its language, task and lack of times.
SPEECH = Job(
    """eos_token_id suppress_tokens begin_suppress_tokens bad_words_ids no_repeat_ngram_size
    min_length min_new_tokens max_length max_new_tokens is_multilingual language task""",
    f"""{SEARCH.without_effect} length_penalty early_stopping renormalize_logits bos_token_id
    decoder_start_token_id forced_decoder_ids lang_to_id task_to_id no_timestamps_token_id
    prev_sot_token_id alignment_heads median_filter_width max_initial_timestamp_index""",
)


def read_generation_config(folder: Path, job: Job) -> GenerationConfig:
    """What a folder says of decoding to a job; nothing where there is no such file.

    Raises `ArchError`, code `config`, with every field that is not followed, is not known or
    has a wrong value.
    """
    general, path = (folder / name for name in _FILES)
    own = path.is_file()
    if not own:
        path = general
    if not own and not job.needed and not path.is_file():
        return GenerationConfig()
    found = read_object(path, "a config")
    given = {name: value for name, value in found.items() if value not in (None, [], {})}
    if not own:  # all else in it is the model's, which its spec answers for
        known = {*KINDS, *_NEUTRAL} - {
            "is_multilingual",
            "language",
            "task",
            "return_timestamps",
        }
        given = {name: value for name, value in given.items() if name in known}
    _check(path, given, job)
    follows = given.keys() & job.follows.split()
    typed = {name: _typed(KINDS[name], given[name]) for name in follows}
    return GenerationConfig(**typed, own=own)


def _check(path: Path, given: Mapping[str, object], job: Job) -> None:
    problems = [each for item in given.items() if (each := _problem(*item, job))]
    for names in job.needed:
        if not any(name in given for name in names):
            problems.append((f"there is no field {listing(names)}", "a token's number", None))
    if problems:
        raise ArchError(
            Diagnostic("config", f"{path}: {message}", None, expected, help=help)
            for message, expected, help in problems
        )


def _problem(name: str, value: object, job: Job) -> tuple[str, str | None, str | None] | None:
    """What is wrong with a field: the message, what is expected, and what helps."""
    said = f"{name} is {json.dumps(value)[:80]}"
    followed = job.follows.split()
    if name in followed:
        kind = KINDS[name]
        return None if _is(kind, value) else (said, _SAID[kind], None)
    if job.ignores(name):
        return None
    if name in KINDS or name in _NEUTRAL:
        if value == _NEUTRAL.get(name):
            return None
        help = job.otherwise or "without the field, other text is found"
        return f"{said}, which is not followed", None, help
    near = did_you_mean(name, (*followed, *_NEUTRAL))
    return f"{said}, and nothing is known of the field", None, near or job.otherwise


def _is(kind: str, value: object) -> bool:
    whole = type(value) is int and value >= 0
    match kind:
        case "token" | "count":
            return whole
        case "tokens":
            return whole or (isinstance(value, list) and all(_is("token", v) for v in value))
        case "sequences":
            return isinstance(value, list) and all(
                isinstance(each, list) and each and _is("tokens", each) for each in value
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


def _typed(kind: str, value: Any) -> Any:
    """A value of its kind as the field of a `GenerationConfig`."""
    if kind == "sequences":
        return tuple(tuple(each) for each in value)
    if kind in ("tokens", "texts"):
        return tuple(value) if isinstance(value, list) else (value,)
    return value


def _first(*values: Any) -> Any:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)
