"""Values of the fields of a published config, and their expressions in a `config` block.

An expression is a parameter, a value, or a call of `names`, `one_of`, `list`, `labels`,
`numbers` or `words`.
configs.py uses these functions to read and write configs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from archdsl.diagnostics import Span, did_you_mean, listing
from archdsl.published.tensor_fields import is_numbers_field, tensor_name
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.unknown import unknown_choice
from archdsl.semantics.values import Env, Scalar, Symbol
from archdsl.syntax import ast
from archdsl.syntax.printer import expression
from archdsl.syntax.traversal import walk

# Fields about a model's origin, training and text generation, which do not change what it
# computes. Transformers 2 to 5 and the converters of llama.cpp write them. Each name is exact:
# `output_hidden_states` has no effect, but `output_multiplier` has. A name includes the fields
# nested in it.
_FIELDS = """
_name_or_path _num_labels _commit_hash _from_auto _attn_implementation
_attn_implementation_autoset _flash_attn_2_enabled _torch_dtype
transformers_version transformers.js_config torch_dtype dtype torchscript tokenizer_class
name_or_path auto_map license language tags prefix sep_token_id use_cache
output_attentions output_hidden_states output_past output_scores output_logits
output_router_logits return_dict return_dict_in_generate gradient_checkpointing
use_bfloat16 tf_legacy_loss chunk_size_feed_forward
initializer_range initializer_factor initializer_std init_std
dropout attention_dropout activation_dropout hidden_dropout embedding_dropout embed_dropout
attn_dropout resid_dropout residual_dropout classifier_dropout classif_dropout final_dropout
qa_dropout
seq_classif_dropout pooler_dropout summary_first_dropout summary_last_dropout
dropout_prob attention_probs_dropout_prob hidden_dropout_prob classifier_dropout_prob
dropout_rate classifier_dropout_rate drop_rate drop_path_rate
attn_pdrop embd_pdrop resid_pdrop layerdrop encoder_layerdrop decoder_layerdrop
router_aux_loss_coef router_jitter_noise router_z_loss_coef
mask_time_prob mask_time_length mask_time_min_masks
mask_feature_prob mask_feature_length mask_feature_min_masks
apply_spec_augment id2label label2id problem_type finetuning_task num_labels
bos_token_id eos_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id
forced_decoder_ids begin_suppress_tokens suppress_tokens
bad_words_ids task_specific_params max_length min_length max_new_tokens do_sample
early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p
repetition_penalty
length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size num_return_sequences
exponential_decay_length_penalty remove_invalid_values
general tokenizer quantize GGUF
"""
BOOKKEEPING = frozenset(_FIELDS.split())
# Switches that releases before 5 write into every config. A spec lists those that it knows.
_OFF = {"is_decoder", "is_encoder_decoder", "add_cross_attention", "tie_encoder_decoder"}
_OF_PARAMETER = ("names", "labels", "numbers", "words")
_MANY = 100_000  # no list of a config is longer


def flatten(config: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Flattens a config to dotted names, without empty fields.

    A dict with numbers as keys is a list and stays unchanged.

    >>> flatten({"a": {"b": 1, "c": {}}, "d": [2], "id2label": {"0": "cat"}})
    {'a.b': 1, 'd': [2], 'id2label': {'0': 'cat'}}
    """
    fields: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and not (value and all(map(str.isdigit, value))):
            fields |= flatten(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = _plain(value)
    return fields


def _plain(value: object) -> object:
    """A value with numbers for `{"__float__": "Infinity"}`, as transformers 5 writes them."""
    match value:
        case list():
            return [_plain(each) for each in value]
        case {"__float__": "Infinity" | "-Infinity" as text}:
            return float(text)
        case _:
            return value


def is_bookkeeping(name: str) -> bool:
    """Whether a field does not change what a model computes."""
    return any(each in BOOKKEEPING for n in (name, _inner(name)) for each in outer_fields(n))


def has_no_effect(name: str, value: object) -> bool:
    """Whether a field does not change what a model computes, or not with this value.

    >>> has_no_effect("is_decoder", False), has_no_effect("is_decoder", True)
    (True, False)
    """
    return is_bookkeeping(name) or (value is False and _inner(name) in _OFF)


def _inner(name: str) -> str:
    """The name of a field in the config of a part of a model: that of `text_config.dropout`."""
    return re.sub(r"^(\w+_config(_dict)?\.)+", "", name)


def outer_fields(name: str) -> list[str]:
    """A field's name, and the names of the fields that it is nested in.

    >>> outer_fields("a.b.c")
    ['a', 'a.b', 'a.b.c']
    """
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


class NoPublishedName(Exception):
    """Raised for a choice without a published name."""

    def __init__(self, message: str, span: Span, known: str):
        super().__init__(message)
        self.span, self.known = span, known


def default_of(line: ast.Setting, work: Elaborator, env: Env) -> object:
    """The value of a field that is missing."""
    assert line.default is not None
    return value_when_absent(line, line.default, work, env)


def value_when_absent(line: ast.Setting, node: ast.Expr, work: Elaborator, env: Env) -> object:
    """The value that `default` or `null` gives to a field: a value or a choice."""
    if isinstance(node, ast.Name) and node.id not in env.names:
        args = line.value.args if isinstance(line.value, ast.Call) else ()
        if node.id in [arg.name.id for arg in args if arg.name] or unknown_choice(node) is None:
            return None if node.id == "none" else node.id
    return value_of(node, work, env)


def names_call(value: ast.Expr) -> ast.Call | None:
    """The `names` call of a field, which may be in a `list` of one value."""
    if isinstance(value, ast.Call) and value.callee.id == "list" and len(value.args) == 1:
        value = value.args[0].value  # type: ignore[assignment]
    return value if isinstance(value, ast.Call) and value.callee.id == "names" else None


def parameter_name(value: ast.Expr, names: Iterable[str]) -> str | None:
    """The parameter that a field sets, directly, negated, or through `names`, `labels`,
    `numbers` or `words`."""
    if isinstance(value, ast.Not):
        value = value.operand
    value = names_call(value) or value
    if isinstance(value, ast.Call) and value.callee.id in _OF_PARAMETER and value.args:
        value = value.args[0].value  # type: ignore[assignment]
    return value.id if isinstance(value, ast.Name) and value.id in names else None


def repeated_parameter(value: ast.Expr, names: Iterable[str]) -> str | None:
    """The parameter that a field holds n times: `list(window, depth)`."""
    if not isinstance(value, ast.Call) or value.callee.id != "list" or len(value.args) != 2:
        return None
    first = value.args[0].value
    return first.id if isinstance(first, ast.Name) and first.id in names else None


def alternatives(value: ast.Expr | ast.Typed) -> list[ast.Expr | ast.Typed]:
    """The values of which a field may have any: those of `one_of`, or the only one."""
    if isinstance(value, ast.Call) and value.callee.id == "one_of":
        return [arg.value for arg in value.args]
    return [value]


def is_named(node: ast.Expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def value_of(node: ast.Expr | ast.Typed, work: Elaborator, env: Env) -> object:
    """Evaluates the expression of a field to a value of a config."""
    if isinstance(node, ast.Not):
        return work.conditions.holds(node, env) is True
    if isinstance(node, ast.Call) and node.callee.id == "one_of" and node.args:
        return value_of(node.args[0].value, work, env)
    if isinstance(node, ast.Call) and node.callee.id == "list" and len(node.args) == 3:
        return _numbered_list(node, work, env)
    if isinstance(node, ast.Call) and node.callee.id == "list":
        value, *count = (value_of(a.value, work, env) for a in node.args)
        times = count[0] if count else 1
        return [value] * times if isinstance(times, int) and times <= _MANY else None
    if isinstance(node, ast.Call) and node.callee.id == "labels" and node.args:
        classes = value_of(node.args[0].value, work, env)
        return {str(i): f"LABEL_{i}" for i in range(classes)} if type(classes) is int else None
    if isinstance(node, ast.Call) and node.callee.id == "numbers" and node.args:
        return _numbers(value_of(node.args[0].value, work, env), node.span, work)
    if isinstance(node, ast.Call) and node.callee.id == "names" and node.args:
        chosen = value_of(node.args[0].value, work, env)
        return _published(node, "none" if chosen is None else chosen, work, env)
    if isinstance(node, ast.Call) and node.callee.id == "words" and node.args:
        text = value_of(node.args[0].value, work, env)
        words = text.split() if isinstance(text, str) else []
        return [_published(node, word, work, env) for word in words] or None
    value = work.evaluate(node, env)
    match value:
        case Scalar():
            return value.value
        case Symbol(name="none"):
            return None
        case Symbol():
            names = {a.id for a in walk(node) if isinstance(a, ast.Name)}
            if value.name in names and value.name not in env.names:
                work.report_error(
                    "config",
                    f"nothing is named `{expression(node)}` here",  # type: ignore[arg-type]
                    node.span,
                    help=did_you_mean(value.name, env.names),
                )
                return None
            return value.name
        case _:
            return None


def _numbers(text: object, span: Span, work: Elaborator) -> list[float] | None:
    """The numbers that a parameter holds as a string; None for an empty one."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return [int(word) if word.isdecimal() else float(word) for word in text.split()]
    except ValueError:
        work.report_error(
            "config", f"{quote(text)} is no list of numbers", span, expected='"1.0 2.5"'
        )
        return None


def _published(node: ast.Call, chosen: object, work: Elaborator, env: Env) -> object:
    """The published name of a choice in `names` or `words`."""
    for arg in node.args[1:]:
        if arg.name and arg.name.id == chosen:
            return value_of(arg.value, work, env)
    known = listing(arg.name.id for arg in node.args if arg.name)
    raise NoPublishedName(f"`{chosen}` has no published name", node.span, known)


def _numbered_list(node: ast.Call, work: Elaborator, env: Env) -> object:
    """`list(i, n, value)`: the values for each number i from 0 to n - 1."""
    number, count, each = (arg.value for arg in node.args)
    if not isinstance(number, ast.Name) or number.id in env.names:
        work.report_error(
            "config",
            "a list of values for numbers begins with a new name",
            number.span,
            expected='list(i, depth, "full" if i % 4 == 3 else "sliding")',
        )
        return None
    times = value_of(count, work, env)
    if type(times) is not int or times > _MANY:
        return None
    names = [{**env.names, number.id: Scalar(i, number.id, number.span)} for i in range(times)]
    return [value_of(each, work, replace(env, names=known)) for known in names]


def tensors_read(lines: Iterable[ast.Line], work: Elaborator, env: Env) -> list[str]:
    """Tensors that are not weights, but numbers that a parameter has."""
    return [
        tensor_name(line.fields[0].id)
        for line in lines
        if isinstance(line, ast.Setting) and is_numbers_field(line.fields[0].id)
        if value_of(line.value, work, env) is not None
    ]


def is_list(value: ast.Expr) -> bool:
    """Whether a parameter holds a list as a string: `numbers(…)` or `words(…)`."""
    return isinstance(value, ast.Call) and value.callee.id in ("numbers", "words")


def list_text(value: ast.Expr, found: object) -> str | None:
    """The string of a parameter that holds a list, "" for none; None for another value."""
    assert isinstance(value, ast.Call)
    if found is None:
        return ""
    if not isinstance(found, list) or not found:
        return None
    if value.callee.id == "words":
        words = published_words(value)
        known = all(isinstance(each, str) and each in words for each in found)
        return " ".join(words[each] for each in found) if known else None
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in found):
        return None
    whole = all(isinstance(each, int) for each in found)
    return " ".join(repr(each if whole else float(each)) for each in found)


def published_words(call: ast.Call) -> dict[str, str]:
    """The choices of `names(…)` or `words(…)` by their published names, of which a choice may
    have several: `gelu = one_of("gelu", "gelu_python")`."""
    named = [
        (arg.name.id, each) for arg in call.args if arg.name for each in alternatives(arg.value)
    ]
    return {value.value: ours for ours, value in named if isinstance(value, ast.String)}


def values_equal(one: object, other: object) -> bool:
    """Whether two values of configs are equal, numbers up to rounding."""
    match one, other:
        case bool(), _:
            return one is other
        case _, bool():
            return False
        case int(), int():
            return one == other
        case int() | float(), int() | float() if abs(one) < 1e30 and abs(other) < 1e30:
            return math.isclose(one, other, rel_tol=1e-9)
        case list(), list():
            return len(one) == len(other) and all(map(values_equal, one, other))
        case _:
            return one == other


def quote(value: object) -> str:
    """Formats a value of a config for a message."""
    if isinstance(value, list):
        inside = ", ".join(map(quote, value[:4]))
        return f"[{inside}{', …' if len(value) > 4 else ''}]"
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    # As JSON, so that no control character of a file reaches a terminal.
    return (
        json.dumps(value[:60], ensure_ascii=False)
        if isinstance(value, str)
        else f"{value!s:.60}"
    )


def quote_name(field: str) -> str:
    """Formats the name of a field for a message."""
    return json.dumps(field[:80], ensure_ascii=False)[1:-1]
