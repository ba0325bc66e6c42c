"""archdsl in a notebook: `%load_ext archdsl`.

A graph is shown as a table, and a diagnostic with its source. The cell magic `%%arch` compiles
a spec that is written in a cell. Without the extension, a model is shown as its figure, and an
`ArchError` without a traceback.

    %%arch model depth=2
    model Tiny(D = 32, depth = 1) { … }
"""

from __future__ import annotations

import argparse
from html import escape
from typing import TYPE_CHECKING, Any

from archdsl.cli.common import parse_settings
from archdsl.describe.breakdown import breakdown_at
from archdsl.diagnostics import Diagnostic, fail
from archdsl.graph.cost import format_count
from archdsl.graph.nodes import Graph
from archdsl.graph.printer import show
from archdsl.syntax.parser import parse

if TYPE_CHECKING:
    from archdsl.model import Model

Shell = Any  # IPython's InteractiveShell
Printer = Any  # its RepresentationPrinter


def load(shell: Shell) -> None:
    """Adds the displays and the magic to a shell of IPython."""
    formatters = shell.display_formatter.formatters
    formatters["text/html"].for_type(Graph, graph_table)
    formatters["text/plain"].for_type(Graph, _print_graph)
    formatters["text/plain"].for_type(Diagnostic, _print_diagnostic)

    def arch(line: str, cell: str) -> Model:
        return compile_cell(shell, line, cell)

    shell.register_magic_function(arch, "cell", "arch")


def compile_cell(shell: Shell, line: str, cell: str) -> Model:
    """Compiles the spec of a cell; the first line is a name for the model, and settings.

    The model is assigned to the name. `name:variant` chooses a model or variant of the cell.
    """
    from archdsl.model import build  # imports tinygrad

    name, *settings = line.split() or [""]
    name, _, variant = name.partition(":")
    if not name.isidentifier():
        expected = "%%arch NAME[:VARIANT] [SETTING=VALUE ...]"
        fail("argument-value", "`%%arch` has no name for the model", expected=expected)
    values = parse_settings(argparse.Namespace(set=settings))
    model = build(parse(cell, f"{name}.arch"), variant or None, values, None, "float32", 0)
    shell.user_ns[name] = model
    return model


def graph_table(graph: Graph, levels: int = 3) -> str:
    """Returns a table in HTML: the parameters and the flops of each block."""
    sizes = graph.bounds
    at = ", ".join(f"{name} = {size:,}" for name, size in sizes.items())
    rows = [("block", "parameters", "", f"flops at {at}" if at else "flops", "")]
    for each in breakdown_at(graph, sizes, levels):
        name = "\N{EM SPACE}" * each.part.level + each.part.name
        counts = (f"{each.part.params:,}", f"{each.params_share:.1%}")
        rows.append((name, *counts, format_count(each.flops), f"{each.flops_share:.1%}"))
    head, *body = ("".join(map(_cell, row)) for row in rows)
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    title = f"<caption>{escape(graph.name)}</caption>"
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(text: str) -> str:
    side = "left" if text.strip("\N{EM SPACE}")[:1].isalpha() else "right"
    return f'<td style="text-align: {side}">{escape(text)}</td>'


def _print_graph(graph: Graph, printer: Printer, cycle: bool) -> None:
    printer.text(show(graph))


def _print_diagnostic(found: Diagnostic, printer: Printer, cycle: bool) -> None:
    printer.text(found.render())
