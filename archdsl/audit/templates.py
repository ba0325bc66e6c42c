"""The chat template: where it is, whether it renders, and the tokens that it writes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from archdsl.audit.findings import NOTE, RISKY, Findings, some
from archdsl.audit.opened import Opened
from archdsl.diagnostics import ArchError, escape
from archdsl.files import read_bytes
from archdsl.passes.split_decoding import find_tokens_and_logits
from archdsl.text.special_tokens import parse_template
from archdsl.text.tokenizer import TextTokenizer

_JINJA = "chat_template.jinja"
_IN_JSON = ("tokenizer_config.json", "chat_template.json")
_FIELD = "chat_template"
_USER = {"role": "user", "content": "Hello"}
_CHAT = [_USER, {"role": "assistant", "content": "Hi"}, _USER]
_SYSTEM = [{"role": "system", "content": "Be brief"}, _USER]
# What looks like one token, such as `<|im_end|>` and `<start_of_turn>`.
_MARK = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?[A-Za-z_]{1,40}>")


def check(opened: Opened, findings: Findings) -> None:
    tokenizer = opened.tokenizer
    if tokenizer is None:
        return
    found = dict(_templates(opened, findings))
    if len({*found.values()}) > 1:
        first, *others = found
        what = f"another template than {some(others)}; loaders read one of them"
        findings.add(RISKY, first, what, f"takes that of {first}")
    if tokenizer.chat_template is None:
        if found:
            where = some(list(found))
            what = "a template where not every loader looks for it"
            findings.add(RISKY, where, what, "does not read it: `archdsl chat` has no template")
        elif opened.graph and _continues(opened):
            what = "no chat template: a chat needs one, and loaders that invent one differ"
            findings.add(NOTE, "tokenizer", what, "refuses `archdsl chat`, never invents one")
        return
    _check_rendered(next(iter(found), "tokenizer"), tokenizer, findings)


def _continues(opened: Opened) -> bool:
    """Whether the model continues a text, and has no other input."""
    graph = opened.graph
    is_language_model = graph is not None and not isinstance(find_tokens_and_logits(graph), str)
    return is_language_model and graph is not None and len(graph.inputs) == 1


def _templates(opened: Opened, findings: Findings) -> Iterator[tuple[str, str]]:
    """The templates by place, the one that archdsl reads first."""
    if _JINJA in opened.files:
        with findings.refusals(_JINJA):
            yield _JINJA, read_bytes(opened.place / _JINJA).decode("utf-8-sig", "replace")
    places = [(file, _FIELD) for file in _IN_JSON]
    for file, field in places if opened.is_folder else [("config.json", f"tokenizer.{_FIELD}")]:
        where = opened.name(file, field)
        with findings.refusals(where):
            text = parse_template(opened.config(file).get(field), opened.place)
            if text is not None:
                yield where, text


def _check_rendered(where: str, tokenizer: TextTokenizer, findings: Findings) -> None:
    with findings.refusals(where, "refuses the chat"):
        text = tokenizer.chat([_USER])
        tokenizer.chat(_CHAT)
        _check_marks(where, text, tokenizer, findings)
        _check_start(where, text, tokenizer, findings)
        try:
            tokenizer.chat(_SYSTEM)
        except ArchError:
            what = "the template refuses a message of the role `system`"
            findings.add(NOTE, where, what, "refuses the chat, never drops the message")


def _check_marks(where: str, text: str, tokenizer: TextTokenizer, findings: Findings) -> None:
    marks = dict.fromkeys(_MARK.findall(text))
    split = [m for m in marks if len(tokenizer.encode(m, add_special=False)) != 1]
    if split:
        findings.add(
            RISKY,
            where,
            f"writes {escape(some(split))}, which is not one token of the vocabulary",
            "encodes it as text, letter by letter if need be",
        )


def _check_start(where: str, text: str, tokenizer: TextTokenizer, findings: Findings) -> None:
    with_special = tokenizer.encode(text)
    if tokenizer.bos is not None and with_special[:2] == [tokenizer.bos] * 2:
        what = "writes the start token, which the tokenizer adds again to a text"
        findings.add(NOTE, where, what, "encodes a chat without adding tokens")
