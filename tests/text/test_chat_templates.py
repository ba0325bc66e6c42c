"""Chat templates: their variables, and the sandbox."""

from __future__ import annotations

import ast
import os
import re
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from archdsl.diagnostics import ArchError
from archdsl.text import chat_templates
from tests.suite import some
from tests.text.tokenizer_files import (
    refusal,
)

pytestmark = pytest.mark.reference("jinja2")


TOKENS = {"bos_token": "<s>", "pad_token": None}


def chat(template: str, messages: list[Any] | None = None, **limits: Any) -> str:
    messages = [{"role": "user", "content": "Hi"}] if messages is None else messages
    return chat_templates.render(template, messages, TOKENS, **limits)


def test_templates_work_as_on_the_hub() -> None:
    assert chat("{{ bos_token }}{{ eos_token }}|{{ add_generation_prompt }}") == "<s>|True"
    assert (
        chat(
            "{% for m in messages %}\n  {% if true %}\n{{ m.role }}\n{% endif %}\n{% endfor %}"
        )
        == "user\n"
    )
    assert chat("{% for m in [1, 2] %}{{ m }}{% break %}{% endfor %}") == "1"
    assert chat("{% set n = namespace(a=1) %}{% set n.a = n.a + 1 %}{{ n.a }}") == "2"
    assert chat("{{ tools is none }}{{ messages[0]['content'] | trim | upper }}") == "TrueHI"
    assert chat("{{ messages[0]['content'] }}", [{"role": "user", "content": "<b>&"}]) == "<b>&"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ messages.__class__ }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages['__class__'].x }}",
        "{{ messages | attr('__class__') }}",
        "{{ ''.__class__.__base__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ namespace.__globals__ }}",
        "{{ '{0.__class__.__init__}'.format(messages).x }}",
        "{% set f = '{0.__class__}'.format %}{{ f(messages) }}",
        "{{ messages.append(1) }}",
        "{% set n = namespace(__html__=1) %}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{{ self.__init__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include 'other' %}",
    ],
)
def test_a_template_cannot_reach_python_attributes(attack: str) -> None:
    diagnostic = refusal(lambda: chat(attack))
    assert diagnostic.message == "the chat template cannot be rendered"
    assert diagnostic.found


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for %}", "Expected"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
    ],
)
def test_failing_templates(template: str, found: str) -> None:
    assert found in (refusal(lambda: chat(template)).found or "")


def test_control_characters_are_escaped() -> None:
    found = refusal(lambda: chat("{{ raise_exception('\x1b[31mred') }}")).found
    assert found == "\\x1b[31mred"


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "power": "{{ (10 ** (10 ** 9)) % 7 }}",
}
HUGE = {
    "doubles": "{% set n = namespace(s='aaaaaaaa') %}"
    "{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "times": "{{ 'a' * 9999999999 }}",
    "center": "{{ 'a' | center(99999999999) }}",
    "format": "{{ '%099999999999d' | format(1) }}",
    "text": "{{ 'a' * 2 ** 25 }}",
    "json": "{{ ('a' * 2000000000) | tojson | length }}",
}


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_template_ends_at_its_time(template: str) -> None:
    diagnostic = refusal(lambda: chat(template, seconds=0.1))
    assert diagnostic.message == "the chat template takes too long, or too much memory"
    assert diagnostic.found == "more processor time than the limit"
    assert "seconds=" in (diagnostic.help or "")


@pytest.mark.few(2)
@pytest.mark.parametrize("template", HUGE.values(), ids=HUGE.keys())
def test_a_template_ends_at_its_memory(template: str) -> None:
    diagnostic = refusal(lambda: chat(template, seconds=10, mebibytes=256))
    assert diagnostic.message == "the chat template takes too long, or too much memory"
    assert diagnostic.found in (
        "more memory than the limit",
        f"a text of {2**25} characters",
    )


def test_the_limits_can_be_raised() -> None:
    long = "{{ ('a' * 200000000) | length }}"
    assert refusal(lambda: chat(long, mebibytes=128)).found == "more memory than the limit"
    assert chat(long, mebibytes=1024) == "200000000"


def test_threads_and_forks_render_at_once() -> None:
    """One process renders for all; a forked process starts its own."""
    found: list[str] = []

    def several(name: str) -> None:
        for number in range(20):
            text = f"{name}{number}"
            found.append("same" if chat(text) == text else "other")

    threads = [threading.Thread(target=several, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["same"] * 40
    child = os.fork()
    if not child:
        os._exit(0 if chat("child") == "child" else 1)
    assert chat("parent") == "parent"
    assert os.waitpid(child, 0)[1] == 0


def test_a_process_that_ended_is_started_again() -> None:
    assert chat("before") == "before"
    process = chat_templates._worker._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert chat("after") == "after"


@pytest.mark.parametrize(
    "message",
    [{}, {"role": "user"}, {"content": "Hi"}, {"role": "user", "content": None}, "Hi"],
)
def test_messages_have_a_role_and_a_content(message: object) -> None:
    diagnostic = refusal(lambda: chat("x", [{"role": "user", "content": "Hi"}, message]))
    assert diagnostic.message.startswith("message 1 of the chat has no text in `")


def test_messages_are_json() -> None:
    parts = [{"type": "image", "image": object()}]
    diagnostic = refusal(lambda: chat("x", [{"role": "user", "content": parts}]))
    assert diagnostic.message == "message 0 of the chat has a value that is not JSON"
    assert "of type `object`" in (diagnostic.found or "")
    deep: list[Any] = []
    deep.append(deep)
    diagnostic = refusal(lambda: chat("x", [{"role": "user", "content": deep}]))
    assert diagnostic.message == "a message of the chat is nested too deeply"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    diagnostic = refusal(lambda: chat("x"), "file")
    assert "`jinja2`" in diagnostic.message
    assert diagnostic.help == "pip install 'archdsl[text]'"


# -- as transformers renders them --

USER = {"role": "user", "content": "Hi"}
CALL = {
    "type": "function",
    "function": {"name": "weather", "arguments": {"to": "é<b>", "a": 1}},
}
CHATS: dict[str, list[dict[str, Any]]] = {
    "user": [USER],
    "system": [{"role": "system", "content": "Be brief."}, USER],
    "answers": [USER, {"role": "assistant", "content": "Yes."}, USER],
    "letters": [{"role": "user", "content": "naïve <b>&'\"\\ 日本 🙂 {{ x }} {% y %}"}],
    "edges": [
        {"role": "system", "content": "\n a\n\n"},
        {"role": "user", "content": " \n\tHi\n "},
        {"role": "assistant", "content": "\n"},
        {"role": "user", "content": ""},
    ],
    "reasoning": [USER, {"role": "assistant", "content": "b", "reasoning": "a"}, USER],
    "tools": [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c12345678", **CALL}]},
        {"role": "tool", "content": "it's <b> & é", "tool_call_id": "c12345678"},
        {"role": "assistant", "content": "Rain."},
        USER,
    ],
    "calls": [USER, {"role": "assistant", "tool_calls": [CALL, CALL]}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    "none": [],
}
OWN = {
    "json": "{{ messages | tojson(indent=2) }}"
    "{{ {'b': 1, 'a': 'é<'} | tojson(sort_keys=true) }}",
    "now": "{{ strftime_now('%Y') }}",
    "generation": "a\n  {% generation %}\n{% set b = 1 %} b{{ b }}\n"
    "  {%- endgeneration %}\n c{{ b }}",
    "dict": "{{ dict(a=1) | tojson }}{{ dict.fromkeys(['x']) | tojson }}"
    "{{ namespace({'a': 1}).a }}",
    "refused": "{% set n = namespace(_a=1) %}",
    "loops": "{% for m in messages %}{% if loop.last %}{% continue %}{% endif %}{{ m.role }}"
    "{% endfor %}",
    "whitespace": "{% if true %}   \n  a\n   {# note #}\n{% endif %}\n\n",
    "undefined": "{{ eos_token }}{{ messages[0].name }}{{ unk_token is defined }}",
}


def published_templates() -> dict[str, str]:
    """The templates in installed packages, by name."""
    found = dict(OWN)
    if spec := find_spec("trl"):
        (folder,) = spec.submodule_search_locations or ()
        for path in sorted(Path(folder).glob("chat_templates/*.jinja")):
            found[path.stem] = path.read_text(encoding="utf-8")
    if spec := find_spec("llama_cpp"):
        (folder,) = spec.submodule_search_locations or ()
        text = (Path(folder) / "llama_chat_format.py").read_text(encoding="utf-8")
        for name, literal in re.findall(r'^(\w+)_TEMPLATE = (".*")$', text, re.MULTILINE):
            found[name] = ast.literal_eval(literal)
    return found


@pytest.mark.reference("torch", "transformers", "trl")
@pytest.mark.parametrize("name", some(published_templates(), *OWN, "llama3_1", "qwen3"))
def test_templates_render_as_transformers_renders_them(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template = published_templates()[name]
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    rendered = 0
    for messages in CHATS.values():
        try:
            (expected,), _ = render_jinja_template(
                [messages], chat_template=template, add_generation_prompt=True, **tokens
            )
        except Exception:
            with pytest.raises(ArchError):
                chat_templates.render(template, messages, tokens)
        else:
            rendered += 1
            assert chat_templates.render(template, messages, tokens) == expected
    assert rendered or name == "refused"
