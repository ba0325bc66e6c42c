"""Chat templates: a chat as one text, by the template of a checkpoint.

A template is a Jinja program by the publisher of the checkpoint. It runs in Jinja's sandbox: it
gets plain values only, and cannot reach Python attributes or change anything.
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
    """Renders the messages to a text that ends where the model's answer begins.

    `messages` have a `role` and a `content`. `tokens` are other variables of the template, such
    as `bos_token`. As templates of the Hugging Face hub expect, newlines after blocks are
    trimmed, and `break`, `continue` and the function `raise_exception` are available.

    Raises `ArchError`: "tokenizer" if a message lacks a role or a content, or if the template
    is invalid, refuses the messages or leaves the sandbox; "file" if Jinja is not installed.
    """
    plain = [_check_message(number, message) for number, message in enumerate(messages)]
    sandbox = _sandbox()
    variables = {name: text for name, text in tokens.items() if text is not None}
    try:
        return str(
            sandbox.from_string(template).render(
                messages=plain,
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **variables,
            )
        )
    except Exception as error:  # a template can raise any error of an expression
        reason = str(error) or type(error).__name__
        fail("tokenizer", "the chat template cannot be rendered", found=reason, cause=error)


def _check_message(number: int, message: Mapping[str, str]) -> dict[str, str]:
    for name in ("role", "content"):
        if not isinstance(message.get(name), str):
            fail(
                "tokenizer",
                f"message {number} of the chat has no text in `{name}`",
                expected='{"role": "user", "content": "…"}',
                found=repr(dict(message))[:80],
            )
    return {str(name): str(text) for name, text in message.items()}


@cache
def _sandbox() -> Any:
    """Returns the environment of templates; created at the first chat."""
    try:
        jinja = importlib.import_module("jinja2")
        sandbox = importlib.import_module("jinja2.sandbox")
    except ImportError as error:
        fail(
            "file",
            "chat templates need the package `jinja2`, which is not installed",
            help="pip install 'archdsl[text]'",
            cause=error,
        )

    def refuse(what: str) -> NoReturn:
        raise jinja.exceptions.SecurityError(f"a template cannot access {what}")

    class Environment(sandbox.ImmutableSandboxedEnvironment):  # type: ignore[misc, name-defined]
        # By default Jinja prints nothing for such an attribute.
        def unsafe_undefined(self, obj: object, attribute: str) -> NoReturn:
            refuse(f"`{attribute}` of a {type(obj).__name__}")

    class Namespace(jinja.utils.Namespace):  # type: ignore[misc, name-defined]
        # A template must not set names that Python or Jinja calls itself.
        def __setitem__(self, name: str, value: object) -> None:
            if name.startswith("_"):
                refuse(f"`{name}` of a namespace")
            super().__setitem__(name, value)

    def namespace(**values: object) -> Namespace:
        space = Namespace()
        for name, value in values.items():
            space[name] = value
        return space

    def raise_exception(message: str) -> NoReturn:
        raise jinja.exceptions.TemplateError(message)

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"namespace": namespace, "raise_exception": raise_exception}
    return environment
