"""The reference: operators, errors, commands and the Python API, from the code itself."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass

import archdsl
from archdsl.cli import full_parser
from archdsl.cli.common import GROUPS, Subparsers
from archdsl.describe.operators import usage
from archdsl.graph.ops import CALLED
from docs.site.gallery import table
from docs.site.links import Page, fenced
from docs.site.specs import Spec


def pages(specs: Iterable[Spec]) -> list[Page]:
    return [
        Page("docs/operators.md", "reference/operators.md", operators(specs)),
        Page("archdsl/cli", "reference/commands.md", commands()),
        Page("archdsl/__init__.py", "reference/python.md", python()),
    ]


def operators(specs: Iterable[Spec] = ()) -> str:
    """Each operator of the table with the specs whose models have it."""
    specs = list(specs)
    lines = ["# Operators", "", "Generated from the table in `archdsl/graph/ops.py`."]
    for op in CALLED.values():
        lines += ["", f"## {op.name}", "", f"`{usage(op)}`", "", op.doc]
        lines += ["", f"Example: `{op.example}`"]
        users = [s for s in specs if any(op.name in model.operators for model in s.models)]
        if users:
            links = ", ".join(f"[{s.title}](../specs/{s.file})" for s in users)
            lines += [
                "",
                f'??? note "In {len(users)} specs of the gallery"',
                "",
                f"    {links}",
            ]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Each command with its arguments and examples, by purpose."""
    parser = full_parser()
    known = next(a for a in parser._actions if isinstance(a, Subparsers)).choices
    lines = ["# Commands", "", "Every command prints this with `--help`."]
    for group, names in GROUPS.items():
        lines += ["", f"## {group[0].upper()}{group[1:]}"]
        for name in names:
            lines += ["", f"### archdsl {name}", "", *_command(known[name])]
    return "\n".join(lines) + "\n"


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield parser.description or ""
    yield f"\n{fenced(parser.format_usage().removeprefix('usage: ').strip(), 'text')}\n"
    rows = [
        (
            f"`{', '.join(action.option_strings) or action.metavar}`{_value(action)}",
            _help(action),
        )
        for action in parser._actions  # argparse lists them nowhere else
        if action.help != argparse.SUPPRESS and action.dest != "help"
    ]
    yield table(("argument", "meaning"), rows)
    status, _, examples = (parser.epilog or "").rpartition("example")
    if status:
        yield f"\n{status.strip().capitalize()}."
    yield "\n" + fenced(inspect.cleandoc(examples.partition("\n")[2]), "sh")


def _value(action: argparse.Action) -> str:
    if not action.option_strings or action.nargs == 0:
        return ""
    choices = action.choices and "{" + ",".join(map(str, action.choices)) + "}"
    return f" `{action.metavar or choices or action.dest.upper()}`"


def _help(action: argparse.Action) -> str:
    known = {name: value for name, value in vars(action).items() if value is not None}
    return re.sub(r"([<>*_])", r"\\\1", (action.help or "") % known)


def python() -> str:
    """The names that `archdsl` exports, and the methods of a model."""
    from archdsl.model import Model  # which imports tinygrad

    lines = ["# Python", "", *_docstring(archdsl.__doc__)]
    for name in archdsl.__all__:
        lines += ["", *_described(name, getattr(archdsl, name), "##")]
    lines += ["", "## Model", "", *_docstring(Model.__doc__)]
    for name, each in vars(Model).items():
        if not name.startswith("_") and inspect.getdoc(each):
            lines += ["", *_described(name, each, "###")]
    return "\n".join(lines) + "\n"


def _described(name: str, each: object, level: str) -> Iterator[str]:
    yield f"{level} {name}\n"
    if callable(each):
        yield fenced(_signature(name, each), "python") + "\n"
    yield from _docstring(inspect.getdoc(each))


def _signature(name: str, each: object) -> str:
    """A call with its parameters and their types, one line each if they are many."""
    if isinstance(each, type) and is_dataclass(each):
        found = f"({', '.join(f'{field.name}: {field.type}' for field in fields(each))})"
    else:
        found = str(inspect.signature(each))  # type: ignore[arg-type]
        found = re.sub(r"(: |-> )'([^']*)'", r"\1\2", found)  # types are kept as texts
    found = re.sub(r"^\(self(, )?", "(", found)
    if len(name + found) <= 88:
        return name + found
    inside, end, result = found[1:].rpartition(")")
    params = re.sub(r", (?=[\w*]+(?::|,| =|$)|[*/](?:,|$))", ",\n    ", inside)
    return f"{name}(\n    {params},\n{end}{result}"


def _docstring(text: str | None) -> Iterator[str]:
    """A docstring as Markdown: its examples become code, and so do indented lines."""
    for block in inspect.cleandoc(text or "").split("\n\n"):
        if block.startswith(">>>"):
            yield fenced(block, "pycon") + "\n"
        elif block.startswith("    "):
            yield fenced(inspect.cleandoc(block), "python") + "\n"
        else:
            yield block + "\n"
