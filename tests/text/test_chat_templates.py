"""Chat templates: their variables, and the sandbox."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from archdsl.text import chat_templates
from tests.text.tokenizer_files import (
    refusal,
)

pytestmark = pytest.mark.reference("jinja2")


def chat(template: str, messages: list[Any] | None = None) -> str:
    messages = [{"role": "user", "content": "Hi"}] if messages is None else messages
    return chat_templates.render(template, messages, {"bos_token": "<s>", "pad_token": None})


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


@pytest.mark.parametrize(
    "message", [{}, {"role": "user"}, {"content": "Hi"}, {"role": "user", "content": None}]
)
def test_messages_have_a_role_and_a_content(message: object) -> None:
    diagnostic = refusal(lambda: chat("x", [{"role": "user", "content": "Hi"}, message]))
    assert diagnostic.message.startswith("message 1 of the chat has no text in `")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    chat_templates._sandbox.cache_clear()
    diagnostic = refusal(lambda: chat("x"), "file")
    assert "`jinja2`" in diagnostic.message
    assert diagnostic.help == "pip install 'archdsl[text]'"
