"""Renders chat templates, in a process of its own: `python template_worker.py`.

Each line of the input is a request in JSON, each line of the output its answer. The system ends
the process at the limits of a request, because Jinja has none: one expression of a template can
take hours or all memory. `chat_templates` starts the process; nothing imports this file.
"""

from __future__ import annotations

import datetime
import json
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that waits for us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path[:] = json.loads(sys.stdin.readline())  # where Jinja is
    compiled = lru_cache(maxsize=8)(_environment().from_string)
    for line in sys.stdin:
        request = json.loads(line)
        _limit_memory(request["bytes"])
        # At the end of this processor time, the signal ends the process even in one long step.
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        answer = _answer(compiled, request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _answer(compiled: Callable[[str], Any], request: dict[str, Any]) -> str:
    try:
        text = compiled(request["template"]).render(**request["variables"])
        if len(text) > request["characters"]:
            return json.dumps({"limit": f"a text of {len(text)} characters"})
        return json.dumps({"text": text})
    except MemoryError:
        return json.dumps({"limit": "more memory than the limit"})
    except Exception as error:  # a template can raise any error of an expression
        return json.dumps({"error": (str(error) or type(error).__name__)[:1000]})


def _limit_memory(wanted: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    now = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (now, most))
    except (OSError, ValueError):  # macOS does not limit the address space
        return


def _environment() -> Any:
    """Returns the environment that transformers gives to templates, with a stricter sandbox."""
    import jinja2.ext
    import jinja2.sandbox

    def refuse(what: str) -> NoReturn:
        raise jinja2.exceptions.SecurityError(f"a template cannot access {what}")

    class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
        # By default Jinja prints nothing for such an attribute.
        def unsafe_undefined(self, obj: object, attribute: str) -> NoReturn:
            refuse(f"`{attribute}` of a {type(obj).__name__}")

    class Namespace(jinja2.utils.Namespace):
        # A template must not set names that Python or Jinja calls itself.
        def __setitem__(self, name: str, value: object) -> None:
            if name.startswith("_"):
                refuse(f"`{name}` of a namespace")
            super().__setitem__(name, value)

    class Generation(jinja2.ext.Extension):
        # `{% generation %}` marks what the model wrote, for training. It changes no text.
        tags = {"generation"}  # noqa: RUF012 - Jinja's own convention

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            # A block of its own scope, as in transformers: names set inside end with it.
            return jinja2.nodes.Scope(body, lineno=line)

    class Dict:
        # The type `dict` itself has methods that change their argument.
        def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
            return dict(*args, **values)

        def fromkeys(self, *args: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args)

    def namespace(*args: Any, **values: object) -> Namespace:
        space = Namespace()
        for name, value in dict(*args, **values).items():
            space[name] = value
        return space

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(format: str) -> str:
        return datetime.datetime.now().strftime(format)

    def tojson(
        value: object,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's filter escapes for HTML and sorts.
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "dict": Dict(),
        "namespace": namespace,
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
    }
    return environment


if __name__ == "__main__":
    main()
