"""Chats as one text, by the template that a checkpoint carries.

A template is a program in Jinja's language, by whoever published the checkpoint. It runs in
Jinja's sandbox: it is given plain values, reaches no attribute of Python's and changes nothing.
Turning the text into tokens is left to `texts`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NoReturn

from archdsl.diagnostics import fail


def render(
    template: str, messages: Sequence[Mapping[str, str]], tokens: Mapping[str, str | None]
) -> str:
    """The text of the messages, at whose end the model's answer begins.

    `messages` have a `role` and a `content`; `tokens` are what the template may name beside
    them, such as `bos_token`. Templates of the hub count on the block's newline being trimmed,
    on `break` and `continue`, and on the function `raise_exception`.

    Raises `ArchError`: "tokenizer" where a message lacks one of the two, or the template is
    not one, refuses the messages or asks for what the sandbox does not give; "file" where
    Jinja is not installed.
    """
    plain = [_plain(number, message) for number, message in enumerate(messages)]
    sandbox = _sandbox()
    given = {name: text for name, text in tokens.items() if text is not None}
    try:
        return str(
            sandbox.from_string(template).render(
                messages=plain, add_generation_prompt=True, tools=None, documents=None, **given
            )
        )
    except Exception as error:  # a template can end in any error that an expression can
        reason = str(error) or type(error).__name__
        fail("tokenizer", "the chat template cannot be filled in", found=reason, cause=error)


def _plain(number: int, message: Mapping[str, str]) -> dict[str, str]:
    for name in ("role", "content"):
        if not isinstance(message.get(name), str):
            fail(
                "tokenizer",
                f"message {number} of the chat has no text as its `{name}`",
                expected='{"role": "user", "content": "…"}',
                found=repr(dict(message))[:80],
            )
    return {str(name): str(text) for name, text in message.items()}


@cache
def _sandbox() -> Any:
    """The environment that templates run in, made at the first chat."""
    try:
        jinja = importlib.import_module("jinja2")
        sandbox = importlib.import_module("jinja2.sandbox")
    except ImportError as error:
        fail(
            "file",
            "the package `jinja2`, which fills in chat templates, is not installed",
            help="pip install 'archdsl[text]'",
            cause=error,
        )

    def refuse(what: str) -> NoReturn:
        raise jinja.exceptions.SecurityError(f"{what} is out of a template's reach")

    class Environment(sandbox.ImmutableSandboxedEnvironment):  # type: ignore[misc, name-defined]
        # Jinja prints nothing for such an attribute, and only objects to what is done with it.
        def unsafe_undefined(self, obj: object, attribute: str) -> NoReturn:
            refuse(f"`{attribute}` of a {type(obj).__name__}")

    class Namespace(jinja.utils.Namespace):  # type: ignore[misc, name-defined]
        # What Python or Jinja itself would call by such a name is not for a template to set.
        def __setitem__(self, name: str, value: object) -> None:
            if name.startswith("_"):
                refuse(f"`{name}` of a namespace")
            super().__setitem__(name, value)

    def namespace(**values: object) -> Namespace:
        made = Namespace()
        for name, value in values.items():
            made[name] = value
        return made

    def raise_exception(message: str) -> NoReturn:
        raise jinja.exceptions.TemplateError(message)

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"namespace": namespace, "raise_exception": raise_exception}
    return environment
