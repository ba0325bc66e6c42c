"""Tree to canonical text: the inverse of parsing, comments and empty lines kept.

A node stands on one line while it fits `WIDTH` and has no comment inside; else its steps,
arguments or parameters stand on a line each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from archdsl.syntax import ast
from archdsl.syntax.comments import always_apart
from archdsl.syntax.traversal import walk

WIDTH = 104
INDENT = "  "

# How tightly an expression holds together; a looser one inside a tighter place is bracketed.
_CHAIN, _WHEN, _LABEL, _SUM, _PRODUCT, _SIGN, _ATOM = range(7)


def format(file: ast.File) -> str:
    """The canonical text of a file, ending in a newline.

    >>> from archdsl.syntax.parser import parse
    >>> print(format(parse("variant xl=GPT( D=1600,heads = 25 )")), end="")
    variant xl = GPT(D = 1600, heads = 25)
    """
    return "".join(line.rstrip() + "\n" for line in _stacked(file.items, file.closing, ""))


def expression(node: ast.Expr) -> str:
    """An expression on one line, for messages."""
    return _flat(node)


def type_text(node: ast.Type | ast.BlockType) -> str:
    """A type as it is written."""
    if isinstance(node, ast.BlockType):
        return "block"
    axes = ", ".join(_axis(a) for a in node.axes)
    text = node.dtype + (f"[{axes}]" if axes else "")
    text += f" < {_flat(node.below, _SUM)}" if node.below else ""
    return text + (f" pad {_flat(node.pad, _SUM)}" if node.pad else "")


def _axis(node: ast.Axis) -> str:
    bound = f" <= {_flat(node.bound, _SUM)}" if node.bound else ""
    return _flat(node.size, _SUM) + bound


# -- one line --


def _strength(node: ast.Condition | ast.Typed) -> int:
    match node:
        case ast.Chain():
            return _CHAIN
        case ast.When():
            return _WHEN
        case ast.Labeled() | ast.Typed():
            return _LABEL
        case ast.Binary():
            return _SUM if node.op in "+-" else _PRODUCT
        case ast.Negate():
            return _SIGN
        case _:
            return _ATOM


def _flat(node: ast.Condition | ast.Typed, at_least: int = _CHAIN) -> str:
    text = _flat_inside(node)
    return f"({text})" if _strength(node) < at_least else text


def _flat_inside(node: ast.Condition | ast.Typed) -> str:
    match node:
        case ast.Name(id=text) | ast.Int(text=text) | ast.Float(text=text):
            return text
        case ast.Bool():
            return str(node.value).lower()
        case ast.String():
            return f'"{node.value}"'
        case ast.Negate():
            return f"-{_flat(node.operand, _SIGN)}"
        case ast.Binary():
            tie = _strength(node)
            return f"{_flat(node.left, tie)} {node.op} {_flat(node.right, tie + 1)}"
        case ast.Call():
            return f"{node.callee.id}({', '.join(_entry_flat(a) for a in node.args)})"
        case ast.Labeled():
            return f"{node.label.id}: {_flat(node.value, _SUM)}"
        case ast.Chain():
            return " -> ".join(_flat(s.value, _WHEN) for s in node.steps)
        case ast.Lambda():
            return f"{{ {' -> '.join(_flat(s.value, _WHEN) for s in node.steps)} }}"
        case ast.When():
            other = f" else {_flat(node.otherwise, _LABEL)}" if node.otherwise else ""
            return f"{_flat(node.value, _LABEL)} if {_flat(node.condition, _SUM)}{other}"
        case ast.Compare():
            return f"{_flat(node.left, _SUM)} {node.op} {_flat(node.right, _SUM)}"
        case ast.Not():
            return f"not {_flat(node.operand, _SUM)}"
        case ast.Typed():
            return f"{node.name.id}: {type_text(node.type)}"
        case _:
            assert_never(node)


def _entry_flat(node: ast.Arg | ast.Param) -> str:
    head, value = _entry(node)
    return head + (_flat(value) if value else "")


def _entry(node: ast.Arg | ast.Param) -> tuple[str, ast.Expr | ast.Typed | None]:
    """What stands before the value of an argument or a parameter, and the value."""
    match node:
        case ast.Arg():
            return (f"{node.name.id} = " if node.name else ""), node.value
        case ast.Param():
            head = node.name.id + (f": {type_text(node.type)}" if node.type else "")
            return (f"{head} = " if node.default else head), node.default
        case _:
            assert_never(node)


# -- several lines; the first comes without its indent, the others with theirs --


def _laid(
    node: ast.Condition | ast.Typed, indent: str, used: int, at_least: int = _CHAIN
) -> list[str]:
    """The lines of an expression, `used` columns of the first one being taken."""
    flat = _flat(node, at_least)
    if used + len(flat) <= WIDTH and not _commented(node):
        return [flat]
    deeper = indent + INDENT
    match node:
        case ast.Chain() if at_least > _CHAIN:
            return ["(", *_flow(node.steps, deeper), indent + ")"]
        case _ if at_least > _strength(node):
            return ["(", *_indented(_laid(node, deeper, len(deeper)), deeper), indent + ")"]
        case ast.Chain() if node.steps[0].trivia.leading:
            return ["", *_flow(node.steps, deeper)]
        case ast.Chain():
            first, *others = _flow(node.steps, indent)
            return [first.removeprefix(indent), *others]
        case ast.Lambda():
            lines = [*_flow(node.steps, deeper), *_comments(node.closing, deeper)]
            return ["{", *lines, indent + "}"]
        case ast.Call():
            return [
                f"{node.callee.id}(",
                *_listed(node.args, node.closing, deeper),
                indent + ")",
            ]
        case ast.When():
            lines = _laid(node.value, indent, used, _LABEL)
            lines = _joined(lines, " if ", node.condition, indent, used)
            if node.otherwise is None:
                return lines
            return _joined(lines, " else ", node.otherwise, indent, used, _LABEL)
        case ast.Labeled():
            return _headed(f"{node.label.id}: ", node.value, indent, used, _SUM)
        case ast.Binary():
            tie = _strength(node)
            left = _laid(node.left, indent, used, tie)
            return _joined(left, f" {node.op} ", node.right, indent, used, tie + 1)
        case ast.Negate():
            return _headed("-", node.operand, indent, used, _SIGN)
        case ast.Compare():
            left = _laid(node.left, indent, used, _SUM)
            return _joined(left, f" {node.op} ", node.right, indent, used)
        case ast.Not():
            return _headed("not ", node.operand, indent, used, _SUM)
        case _:
            return [flat]  # nothing inside it can be broken


def _joined(
    left: list[str],
    head: str,
    value: ast.Expr | ast.Condition,
    indent: str,
    used: int,
    at_least: int = _SUM,
) -> list[str]:
    """Lines that began behind `used` columns, and an expression behind them."""
    column = len(left[-1]) + (used if len(left) == 1 else 0)
    return _glued(left, _headed(head, value, indent, column, at_least))


def _headed(
    head: str, value: ast.Condition | ast.Typed, indent: str, used: int, at_least: int = _CHAIN
) -> list[str]:
    """The lines of an expression behind a word or two."""
    return _glued([head], _laid(value, indent, used + len(head), at_least))


def _flow(steps: Sequence[ast.Step], indent: str) -> list[str]:
    """A step a line, the first one's indent included."""
    lines: list[str] = []
    arrow = ""
    for step in steps:
        body = _headed(arrow, step.value, indent, len(indent), _WHEN)
        lines += _comments(step.trivia.leading, indent)
        lines += _indented(_trailed(body, step.trivia), indent)
        if not arrow:
            arrow, indent = "-> ", indent + INDENT
    return lines


def _listed(
    nodes: Sequence[ast.Arg | ast.Param], closing: Sequence[str], indent: str
) -> list[str]:
    """An argument or parameter a line, and the comments behind the last."""
    lines: list[str] = []
    for node in nodes:
        head, value = _entry(node)
        body = _headed(head, value, indent, len(indent)) if value else [head]
        lines += _comments(node.trivia.leading, indent)
        lines += _indented(_trailed(_glued(body, [","]), node.trivia), indent)
    return lines + _comments(closing, indent)


def _commented(node: ast.Node) -> bool:
    """Whether comments inside a node forbid putting it on one line."""
    for each in walk(node):
        trivia = getattr(each, "trivia", ast.PLAIN)
        if trivia.leading or trivia.trailing is not None or getattr(each, "closing", ()):
            return True
    return False


def _indented(lines: list[str], indent: str) -> list[str]:
    return [indent + lines[0], *lines[1:]]


def _glued(left: list[str], right: list[str]) -> list[str]:
    return [*left[:-1], left[-1] + right[0], *right[1:]]


def _trailed(lines: list[str], trivia: ast.Trivia) -> list[str]:
    return lines if trivia.trailing is None else _glued(lines, [f"  {trivia.trailing}"])


def _comments(comments: Sequence[str], indent: str) -> list[str]:
    return [indent + c if c else "" for c in comments]


# -- statements and items --


def _stacked(
    nodes: Sequence[ast.Item | ast.Statement | ast.Line],
    closing: Sequence[str],
    indent: str,
) -> list[str]:
    """Nodes one below the other, with the comments and empty lines around them."""
    lines: list[str] = []
    before: ast.Node | None = None
    for node in nodes:
        if before and (node.trivia.blank or always_apart(before, node)):
            lines.append("")
        lines += _comments(node.trivia.leading, indent)
        lines += _indented(_trailed(_paragraph(node, indent), node.trivia), indent)
        before = node
    return lines + _comments(closing, indent)


def _paragraph(node: ast.Item | ast.Statement | ast.Line, indent: str) -> list[str]:
    used = len(indent)
    match node:
        case ast.Use():
            return [f'use "{node.path.value}"']
        case ast.Block():
            result = f": {type_text(node.type)}" if node.type else ""
            head = _params(f"block {node.name.id}", node.params, result, indent)
            return _braced(head, node.body.statements, node.body.closing, indent)
        case ast.Model():
            head = _params(f"model {node.name.id}", node.params, "", indent)
            return _braced(head, node.body.statements, node.body.closing, indent)
        case ast.Variant():
            head = _headed(f"variant {node.name.id} = ", node.call, indent, used)
            if node.facts is None:
                return head
            return _braced(head, node.facts.statements, node.facts.closing, indent)
        case ast.Weights():
            head = [f'weights "{node.title.value}" for {node.model.id}']
            return _braced(head, node.rules, node.closing, indent)
        case ast.Rule():
            lines = [f"{node.ours.text} = {' | '.join(p.text for p in node.theirs)}"]
            for each in node.conversions:
                lines = _glued(lines, _conversion(each, indent))
            return lines
        case ast.Ignore():
            return [f"ignore {node.theirs.text}"]
        case ast.Optional():
            return [f"optional {node.prefix.text}"]
        case ast.Config():
            return _braced(["config"], node.rules, node.closing, indent)
        case ast.Only():
            head = _headed("if ", node.condition, indent, used, _SUM)
            return _braced(head, node.rules, node.closing, indent)
        case ast.Setting():
            fields = " | ".join(field.id for field in node.fields)
            lines = _headed(f"{fields} = ", node.value, indent, used, _SUM)
            if node.default is None:
                return lines
            return _joined(lines, " default ", node.default, indent, used)
        case ast.Input():
            return [f"input {node.name.id}: {type_text(node.type)}"]
        case ast.Edge():
            return _headed(f"{node.name.id} = ", node.value, indent, used)
        case ast.Output():
            before_value = f"output {node.name.id}: {type_text(node.type)} = "
            return _headed(before_value, node.value, indent, used)
        case ast.Loss():
            return _headed("loss ", node.call, indent, used)
        case ast.Init():
            return _headed("init ", node.rule, indent, used)
        case ast.Expect():
            left = _headed("expect ", node.left, indent, used, _SUM)
            column = len(left[-1])
            return _glued(left, _headed(f" {node.op} ", node.right, indent, column, _SUM))
        case ast.ExpectType():
            return [f"expect {node.name.id}: {type_text(node.type)}"]
        case ast.Result():
            # A sign in front would go on with the line above.
            return _laid(node.value, indent, used, _ATOM if _signed(node.value) else _CHAIN)
        case _:
            assert_never(node)


def _conversion(node: ast.Conversion, indent: str) -> list[str]:
    lines = [f" -> {node.name.id}"]
    for i, arg in enumerate(node.args):
        lines = _glued(lines, _headed(", " if i else "(", arg, indent, WIDTH // 2, _SUM))
    return _glued(lines, [")"]) if node.args else lines


def _signed(node: ast.Expr) -> bool:
    """Whether an expression's text begins with a sign."""
    match node:
        case ast.Negate():
            return True
        case ast.Binary():
            return _signed(node.left) and _strength(node.left) >= _strength(node)
        case ast.Chain():
            return _signed(node.steps[0].value) and not isinstance(
                node.steps[0].value, ast.Chain
            )
        case ast.When():
            return _signed(node.value) and _strength(node.value) >= _LABEL
        case _:
            return False


def _params(head: str, node: ast.Params, tail: str, indent: str) -> list[str]:
    flat = f"{head}({', '.join(_entry_flat(p) for p in node.params)}){tail}"
    if len(indent) + len(flat) + len(" {") <= WIDTH and not _commented(node):
        return [flat]
    lines = _listed(node.params, node.closing, indent + INDENT)
    return [f"{head}(", *lines, f"{indent}){tail}"]


def _braced(
    head: list[str],
    nodes: Sequence[ast.Statement | ast.Line],
    closing: Sequence[str],
    indent: str,
) -> list[str]:
    """Prints a head and its nodes in braces."""
    if not nodes and not closing:
        return _glued(head, [" {}"])
    inside = _stacked(nodes, closing, indent + INDENT)
    return [*_glued(head, [" {"]), *inside, indent + "}"]
