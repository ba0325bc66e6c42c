"""What a published folder says of making text, as a `Search`.

That stands in `generation_config.json`; a folder without one has it in its `config.json`, as
was usual before transformers 4.26. A field that changes what is found is followed or refused,
never passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean, listing
from archdsl.formats.strict_json import read_object
from archdsl.runtime.processors import (
    Forbid,
    ForbidFirst,
    ForceFirst,
    ForceLast,
    MinLength,
    Processor,
    Renormalise,
)
from archdsl.runtime.search import Penalty, Search, Until

# By what each field is: a number, a whole one, tokens (one or a list), lists of tokens.
_FOLLOWED = {
    "decoder_start_token_id": "token",
    "bos_token_id": "token",
    "eos_token_id": "tokens",
    "forced_bos_token_id": "token",
    "forced_eos_token_id": "tokens",
    "bad_words_ids": "sequences",
    "suppress_tokens": "tokens",
    "begin_suppress_tokens": "tokens",
    "min_length": "count",
    "min_new_tokens": "count",
    "max_length": "count",
    "max_new_tokens": "count",
    "num_beams": "count",
    "num_return_sequences": "count",
    "length_penalty": "number",
    "early_stopping": "stop",
    "renormalize_logits": "flag",
}

# Those that change what is found unless they are this, or null.
_REFUSED: dict[str, object] = {
    "do_sample": False,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": 1,
    "encoder_repetition_penalty": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0,
    "penalty_alpha": 0,
    "guidance_scale": 1,
    "exponential_decay_length_penalty": None,
    "sequence_bias": None,
    "watermarking_config": None,
    "constraints": None,
    "force_words_ids": None,
    "stop_strings": None,
    "max_time": None,
    "token_healing": False,
    "dola_layers": None,
}

# Those that change nothing here: of sampling, of speed, of what else is given back.
_WITHOUT_EFFECT = """
temperature top_k top_p top_h min_p typical_p epsilon_cutoff eta_cutoff
use_cache cache_* max_cache_len compile_config disable_compile prefill_chunk_size low_memory
pad_token_id output_* return_dict* remove_invalid_values transformers_version _*
is_assistant assistant_* num_assistant_tokens* *_lookbehind prompt_lookup_num_tokens
max_matching_ngram_size use_mtp speculation_type continuous_batching_config
"""

_KINDS = {
    "token": "a token's number",
    "tokens": "a token's number, or a list of such",
    "sequences": "lists of tokens' numbers",
    "count": "a whole number",
    "number": "a number",
    "stop": 'true, false or "never"',
    "flag": "true or false",
}


def read_search(folder: Path, longest: int) -> Search:
    """How a folder has its model's targets looked for; `longest` is the most tokens that they
    can have, which counts where the folder says no length.

    Raises `ArchError`, code `config`, with every field that is not followed, is not known or
    has a wrong value.
    """
    own, general = folder / "generation_config.json", folder / "config.json"
    path = own if own.is_file() else general
    fields = read_object(path, "a config").items()
    given = {name: value for name, value in fields if value not in (None, [], {})}
    if path == general:  # all else in it is the model's, which its spec answers for
        given = {k: v for k, v in given.items() if k in _FOLLOWED or k in _REFUSED}
    problems = [each for name, value in given.items() if (each := _problem(name, value))]
    for names in (("decoder_start_token_id", "bos_token_id"), ("eos_token_id",)):
        if not any(name in given for name in names):
            problems.append((f"there is no field {listing(names)}", "a token's number", None))
    if problems:
        raise ArchError(
            Diagnostic("config", f"{path}: {message}", None, expected, help=help)
            for message, expected, help in problems
        )
    return _search(given, longest)


def _problem(name: str, value: object) -> tuple[str, str | None, str | None] | None:
    """What is wrong with a field: the message, what is expected, and what helps."""
    said = f"{name} is {json.dumps(value)[:80]}"
    if name in _FOLLOWED:
        kind = _FOLLOWED[name]
        return None if _is(kind, value) else (said, _KINDS[kind], None)
    if name in _REFUSED:
        if value == _REFUSED[name]:
            return None
        return f"{said}, which is not followed", None, "without the field, other text is found"
    if any(fnmatchcase(name, pattern) for pattern in _WITHOUT_EFFECT.split()):
        return None
    near = did_you_mean(name, (*_FOLLOWED, *_REFUSED))
    return f"{said}, and nothing is known of the field", None, near


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
    return type(value) is bool


def _search(given: Mapping[str, Any], longest: int) -> Search:
    ends = _tokens(given["eos_token_id"])
    stop: dict[object, Until] = {True: "full", False: "unlikely", "never": "hopeless"}
    return Search(
        start=given.get("decoder_start_token_id", given.get("bos_token_id")),
        ends=ends,
        max_length=_counted(given, "max", longest),
        beams=given.get("num_beams", 1),
        penalty=Penalty(given.get("length_penalty", 1.0)),
        until=stop[given.get("early_stopping", False)],
        refill=True,
        cut_off=True,
        best=given.get("num_return_sequences", 1),
        processors=_processors(given, ends),
    )


def _processors(given: Mapping[str, Any], ends: tuple[int, ...]) -> tuple[Processor, ...]:
    words = [tuple(each) for each in given.get("bad_words_ids", ())]
    words = [word for word in words if word not in [(end,) for end in ends]]
    words += [(token,) for token in _tokens(given.get("suppress_tokens", ()))]
    first = given.get("forced_bos_token_id")
    not_first = _tokens(given.get("begin_suppress_tokens", ()))
    last = _tokens(given.get("forced_eos_token_id", ()))
    least = _counted(given, "min", 0)
    asked: list[tuple[object, Processor]] = [
        (words, Forbid(tuple(words))),
        (not_first, ForbidFirst(not_first, after_forced=first is not None)),
        (least, MinLength(ends, least)),
        (last, ForceLast(last)),
        (given.get("renormalize_logits", False), Renormalise()),
    ]
    if first is not None:
        asked.insert(3, (True, ForceFirst(first)))
    return tuple(each for needed, each in asked if needed)


def _counted(given: Mapping[str, Any], which: str, default: int) -> int:
    """A length with the start token, which the number of new tokens, if given, leaves out."""
    new: int | None = given.get(f"{which}_new_tokens")
    length: int = given.get(f"{which}_length", default)
    return length if new is None else new + 1


def _tokens(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)
