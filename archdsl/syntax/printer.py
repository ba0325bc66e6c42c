"""Prints a tree as canonical text: the inverse of parsing, with comments and blank lines.

A node that fits into `WIDTH` and has no comment inside is printed on one line. Otherwise each
step, argument or parameter has a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from archdsl.syntax import ast
from archdsl.syntax.comments import needs_blank_line
from archdsl.syntax.traversal import walk

WIDTH = 104
INDENT = "  "

# Precedence of expressions; one with a lower precedence than its place gets parentheses.
_CHAIN, _WHEN, _LABEL, _ANY, _ALL, _COMPARE, _OR, _AND, _SUM, _PRODUCT, _SIGN, _ATOM = range(12)
_OPERATORS = {"or": _ANY, "and": _ALL, "|": _OR, "&": _AND, "+": _SUM, "-": _SUM}


def format(file: ast.File) -> str:
    """The canonical text of a file, ending in a newline.

    >>> from archdsl.syntax.parser import parse
    >>> print(format(parse("variant xl=GPT( D=1600,heads = 25 )")), end="")
    variant xl = GPT(D = 1600, heads = 25)
    """
    return "".join(line.rstrip() + "\n" for line in _node_lines(file.items, file.closing, ""))


def expression(node: ast.Expr) -> str:
    """An expression on one line, for messages."""
    return _flat(node)


def type_text(node: ast.Type | ast.Types | ast.BlockType | ast.Choices) -> str:
    """A type on one line."""
    if isinstance(node, ast.Types):
        return f"({', '.join(map(type_text, node.types))})"
    if isinstance(node, ast.BlockType):
        return "block"
    if isinstance(node, ast.Choices):
        return f"one_of({', '.join(name.id for name in node.names)})"
    axes = ", ".join(_axis(a) for a in node.axes)
    text = node.dtype + (f"[{axes}]" if axes else "")
    text += f" < {_before_equals(node.below, _SUM)}" if node.below else ""
    return text + (f" pad {_before_equals(node.pad, _SUM)}" if node.pad else "")


def _condition_text(node: ast.Expr | None) -> str:
    return f" if {_before_equals(node, _ANY)}" if node else ""


def _before_equals(node: ast.Expr, at_least: int) -> str:
    """An expression that `=` may follow: a `tied` at its end would be a name there."""
    text, last = _flat(node, at_least), node
    while isinstance(last, ast.Binary | ast.Compare | ast.Negate | ast.Not):
        last = last.right if isinstance(last, ast.Binary | ast.Compare) else last.operand
    repeats = isinstance(last, ast.Repeat) and text.endswith(" tied")
    return f"({text})" if repeats else text


def _axis(node: ast.Axis) -> str:
    bound = f" <= {_flat(node.bound, _SUM)}" if node.bound else ""
    least = f"{_flat(node.least, _SUM)} <= " if node.least else ""
    return least + _flat(node.size, _SUM) + bound


# -- one line --


def _precedence(node: ast.Expr | ast.Typed) -> int:
    match node:
        case ast.Chain():
            return _CHAIN
        case ast.When():
            return _WHEN
        case ast.Labeled() | ast.Typed():
            return _LABEL
        case ast.Binary():
            return _OPERATORS.get(node.op, _PRODUCT)
        case ast.Compare():
            return _COMPARE
        case ast.Repeat():
            return _PRODUCT
        case ast.Negate() | ast.Not():
            return _SIGN
        case _:
            return _ATOM


def _flat(node: ast.Expr | ast.Typed, at_least: int = _CHAIN) -> str:
    text = _flat_without_parentheses(node)
    return f"({text})" if _precedence(node) < at_least else text


def _flat_without_parentheses(node: ast.Expr | ast.Typed) -> str:
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
            tie = _precedence(node)
            return f"{_flat(node.left, tie)} {node.op} {_flat(node.right, tie + 1)}"
        case ast.Repeat():
            return f"{_flat(node.block, _PRODUCT)} * {_flat(node.count, _SIGN)}{_layers(node)}"
        case ast.Call():
            return f"{node.callee.id}({', '.join(_entry_flat(a) for a in node.args)})"
        case ast.Labeled():
            return f"{node.label.id}: {_flat(node.value, _SUM)}"
        case ast.Chain():
            return " -> ".join(_flat(s.value, _WHEN) for s in node.steps)
        case ast.Lambda():
            return f"{{ {' -> '.join(_flat(s.value, _WHEN) for s in node.steps)} }}"
        case ast.Several():
            return f"({', '.join(map(_flat, node.values))})"
        case ast.When():
            other = f" else {_flat(node.otherwise, _LABEL)}" if node.otherwise else ""
            return f"{_flat(node.value, _LABEL)} if {_flat(node.condition, _ANY)}{other}"
        case ast.Compare():
            return f"{_flat(node.left, _OR)} {node.op} {_flat(node.right, _OR)}"
        case ast.Not():
            return f"not {_flat(node.operand, _SIGN)}"
        case ast.Typed():
            return f"{node.name.id}: {type_text(node.type)}"
        case _:
            assert_never(node)


def _layers(node: ast.Repeat) -> str:
    """The words after the number of layers."""
    return (" tied" if node.tied else "") + (f" as {node.number.id}" if node.number else "")


def _entry_flat(node: ast.Arg | ast.Param) -> str:
    head, value = _entry(node)
    return head + (_flat(value) if value else "")


def _entry(node: ast.Arg | ast.Param) -> tuple[str, ast.Expr | ast.Typed | None]:
    """The text before the value of an argument or parameter, and the value."""
    match node:
        case ast.Arg():
            return (f"{node.name.id} = " if node.name else ""), node.value
        case ast.Param():
            head = node.name.id + (f": {type_text(node.type)}" if node.type else "")
            return (f"{head} = " if node.default else head), node.default
        case _:
            assert_never(node)


# -- several lines: the first without its indent, the others with it --


def _lines(
    node: ast.Expr | ast.Typed, indent: str, used: int, at_least: int = _CHAIN
) -> list[str]:
    """The lines of an expression; the first one starts at column `used`."""
    flat = _flat(node, at_least)
    if used + len(flat) <= WIDTH and not _has_comments(node):
        return [flat]
    deeper = indent + INDENT
    match node:
        case ast.Chain() if at_least > _CHAIN:
            return ["(", *_step_lines(node.steps, deeper), indent + ")"]
        case _ if at_least > _precedence(node):
            return ["(", *_indent(_lines(node, deeper, len(deeper)), deeper), indent + ")"]
        case ast.Chain() if node.steps[0].trivia.leading:
            return ["", *_step_lines(node.steps, deeper)]
        case ast.Chain():
            first, *others = _step_lines(node.steps, indent)
            return [first.removeprefix(indent), *others]
        case ast.Lambda():
            lines = [*_step_lines(node.steps, deeper), *_comment_lines(node.closing, deeper)]
            return ["{", *lines, indent + "}"]
        case ast.Call():
            return [
                f"{node.callee.id}(",
                *_list_lines(node.args, node.closing, deeper),
                indent + ")",
            ]
        case ast.Several():
            return ["(", *_list_lines(node.args, node.closing, deeper), indent + ")"]
        case ast.When():
            lines = _lines(node.value, indent, used, _LABEL)
            lines = _append(lines, " if ", node.condition, indent, used, _ANY)
            if node.otherwise is None:
                return lines
            return _append(lines, " else ", node.otherwise, indent, used, _LABEL)
        case ast.Labeled():
            return _prepend(f"{node.label.id}: ", node.value, indent, used, _SUM)
        case ast.Binary():
            tie = _precedence(node)
            left = _lines(node.left, indent, used, tie)
            return _append(left, f" {node.op} ", node.right, indent, used, tie + 1)
        case ast.Repeat():
            left = _lines(node.block, indent, used, _PRODUCT)
            left = _append(left, " * ", node.count, indent, used, _SIGN)
            return _concatenate(left, [_layers(node)])
        case ast.Negate():
            return _prepend("-", node.operand, indent, used, _SIGN)
        case ast.Compare():
            left = _lines(node.left, indent, used, _OR)
            return _append(left, f" {node.op} ", node.right, indent, used, _OR)
        case ast.Not():
            return _prepend("not ", node.operand, indent, used, _SIGN)
        case _:
            return [flat]  # it cannot be split


def _append(
    left: list[str],
    head: str,
    value: ast.Expr,
    indent: str,
    used: int,
    at_least: int = _SUM,
) -> list[str]:
    """Lines that start at column `used`, followed by `head` and an expression."""
    column = len(left[-1]) + (used if len(left) == 1 else 0)
    return _concatenate(left, _prepend(head, value, indent, column, at_least))


def _prepend(
    head: str, value: ast.Expr | ast.Typed, indent: str, used: int, at_least: int = _CHAIN
) -> list[str]:
    """The lines of an expression after `head`."""
    return _concatenate([head], _lines(value, indent, used + len(head), at_least))


def _step_lines(steps: Sequence[ast.Step], indent: str) -> list[str]:
    """A line for each step; the first one has its indent."""
    lines: list[str] = []
    arrow = ""
    for step in steps:
        body = _prepend(arrow, step.value, indent, len(indent), _WHEN)
        lines += _comment_lines(step.trivia.leading, indent)
        lines += _indent(_add_trailing(body, step.trivia), indent)
        if not arrow:
            arrow, indent = "-> ", indent + INDENT
    return lines


def _list_lines(
    nodes: Sequence[ast.Arg | ast.Param], closing: Sequence[str], indent: str
) -> list[str]:
    """A line for each argument or parameter, and the comments after the last."""
    lines: list[str] = []
    for node in nodes:
        head, value = _entry(node)
        body = _prepend(head, value, indent, len(indent)) if value else [head]
        lines += _comment_lines(node.trivia.leading, indent)
        lines += _indent(_add_trailing(_concatenate(body, [","]), node.trivia), indent)
    return lines + _comment_lines(closing, indent)


def _has_comments(node: ast.Node) -> bool:
    """Whether there are comments inside a node, so that it needs several lines."""
    for each in walk(node):
        trivia = getattr(each, "trivia", ast.PLAIN)
        if trivia.leading or trivia.trailing is not None or getattr(each, "closing", ()):
            return True
    return False


def _indent(lines: list[str], indent: str) -> list[str]:
    return [indent + lines[0], *lines[1:]]


def _concatenate(left: list[str], right: list[str]) -> list[str]:
    return [*left[:-1], left[-1] + right[0], *right[1:]]


def _add_trailing(lines: list[str], trivia: ast.Trivia) -> list[str]:
    return lines if trivia.trailing is None else _concatenate(lines, [f"  {trivia.trailing}"])


def _comment_lines(comments: Sequence[str], indent: str) -> list[str]:
    return [indent + c if c else "" for c in comments]


# -- statements and items --


def _node_lines(
    nodes: Sequence[ast.Item | ast.Statement | ast.Line],
    closing: Sequence[str],
    indent: str,
) -> list[str]:
    """The lines of nodes, with the comments and blank lines around them."""
    lines: list[str] = []
    before: ast.Node | None = None
    for node in nodes:
        if before and (node.trivia.blank or needs_blank_line(before, node)):
            lines.append("")
        lines += _comment_lines(node.trivia.leading, indent)
        lines += _indent(_add_trailing(_statement_lines(node, indent), node.trivia), indent)
        before = node
    return lines + _comment_lines(closing, indent)


def _statement_lines(node: ast.Item | ast.Statement | ast.Line, indent: str) -> list[str]:
    used = len(indent)
    match node:
        case ast.Use():
            return [f'use "{node.path.value}"']
        case ast.Block():
            result = f": {type_text(node.type)}" if node.type else ""
            head = _parameter_lines(f"block {node.name.id}", node.params, result, indent)
            return _brace_lines(head, node.body.statements, node.body.closing, indent)
        case ast.Model():
            head = _parameter_lines(f"model {node.name.id}", node.params, "", indent)
            return _brace_lines(head, node.body.statements, node.body.closing, indent)
        case ast.Variant():
            head = _prepend(f"variant {node.name.id} = ", node.call, indent, used)
            if node.facts is None:
                return head
            return _brace_lines(head, node.facts.statements, node.facts.closing, indent)
        case ast.Weights():
            head = [f'weights "{node.title.value}" for {node.model.id}']
            return _brace_lines(head, node.rules, node.closing, indent)
        case ast.SharedLines():
            head = [f'weights "{node.title.value}"']
            if node.params is not None:
                head = _parameter_lines(head[0], node.params, "", indent)
            return _brace_lines(head, node.rules, node.closing, indent)
        case ast.Include():
            named = f'include "{node.title.value}"'
            return _argument_lines(named, node.args, node.closing, indent)
        case ast.Rule():
            lines = [f"{node.ours.text} = {' | '.join(p.text for p in node.theirs)}"]
            for each in node.conversions:
                lines = _concatenate(lines, _conversion_lines(each, indent))
            return lines
        case ast.Ignore():
            return [f"ignore {node.theirs.text}"]
        case ast.Optional():
            return [f"optional {node.prefix.text}"]
        case ast.Rename():
            return [f"rename {node.theirs.text} = {node.new.text}"]
        case ast.Config():
            return _brace_lines(["config"], node.rules, node.closing, indent)
        case ast.Only():
            head = _prepend("if ", node.condition, indent, used, _ANY)
            return _brace_lines(head, node.rules, node.closing, indent)
        case ast.Setting():
            fields = " | ".join(field.id for field in node.fields)
            lines = _prepend(f"{fields} = ", node.value, indent, used, _SUM)
            if node.default is not None:
                lines = _append(lines, " default ", node.default, indent, used)
            if node.null is not None:
                lines = _append(lines, " null ", node.null, indent, used)
            return lines
        case ast.Input():
            declared = f"input {node.name.id}: {type_text(node.type)}"
            if node.default is None:
                return [declared]
            return _prepend(f"{declared} = ", node.default, indent, used, _SUM)
        case ast.Weight():
            declared = f"weight {node.name.id}: {type_text(node.type)}"
            if node.start is None:
                return [declared]
            return _prepend(f"{declared} = ", node.start, indent, used, _SUM)
        case ast.Edge():
            return _prepend(f"{node.name.id} = ", node.value, indent, used)
        case ast.Edges():
            names = ", ".join(name.id for name in node.names)
            return _prepend(f"{names} = ", node.value, indent, used)
        case ast.State():
            lines = [f"state {node.name.id}: {type_text(node.type)} along {node.axis.id}"]
            if node.start is not None:
                lines = _append(lines, " from ", node.start, indent, used)
            return _append(lines, " = ", node.value, indent, used, _CHAIN)
        case ast.Output():
            before_value = f"output {node.name.id}: {type_text(node.type)}"
            before_value += _condition_text(node.condition) + " = "
            return _prepend(before_value, node.value, indent, used)
        case ast.Loss():
            return _loss_lines(node, indent, used)
        case ast.Init():
            return _prepend("init ", node.rule, indent, used)
        case ast.Expect():
            left = _prepend("expect ", node.left, indent, used, _SUM)
            column = len(left[-1])
            return _concatenate(
                left, _prepend(f" {node.op} ", node.right, indent, column, _SUM)
            )
        case ast.ExpectType():
            return [f"expect {node.name.id}: {type_text(node.type)}"]
        case ast.Result():
            # A leading sign would continue the line above.
            return _lines(
                node.value, indent, used, _ATOM if _begins_with_sign(node.value) else _CHAIN
            )
        case _:
            assert_never(node)


def _loss_lines(node: ast.Loss, indent: str, used: int) -> list[str]:
    """A sum of losses, on one line if it fits, else a line for each."""
    lines, condition = ["loss "], _condition_text(node.condition)
    heads = ["" if each.weight is None else f"{_flat(each.weight)} * " for each in node.terms]
    flat = [head + _flat(term.call) for head, term in zip(heads, node.terms, strict=True)]
    short = len(indent + " + ".join(["loss ", *flat])) + len(condition) <= WIDTH
    apart = " + " if short and not _has_comments(node) else None
    for number, (head, term) in enumerate(zip(heads, node.terms, strict=True)):
        inner = indent if number == 0 or apart else indent + INDENT
        if number and apart:
            lines = _concatenate(lines, [apart])
        elif number:
            lines.append(f"{inner}+ ")
        column = len(lines[-1]) + (used if len(lines) == 1 else 0)
        lines = _concatenate(lines, _prepend(head, term.call, inner, column))
    return _concatenate(lines, [condition])


def _conversion_lines(node: ast.Conversion, indent: str) -> list[str]:
    lines = [f" -> {node.name.id}"]
    for i, arg in enumerate(node.args):
        lines = _concatenate(lines, _prepend(", " if i else "(", arg, indent, WIDTH // 2, _SUM))
    return _concatenate(lines, [")"]) if node.args else lines


def _begins_with_sign(node: ast.Expr) -> bool:
    """Whether the text of an expression begins with a sign."""
    match node:
        case ast.Negate() | ast.Not():
            return True
        case ast.Binary() | ast.Compare():
            return _begins_with_sign(node.left) and _precedence(node.left) >= _precedence(node)
        case ast.Repeat():
            return _begins_with_sign(node.block) and _precedence(node.block) >= _PRODUCT
        case ast.Chain():
            return _begins_with_sign(node.steps[0].value) and not isinstance(
                node.steps[0].value, ast.Chain
            )
        case ast.When():
            return _begins_with_sign(node.value) and _precedence(node.value) >= _LABEL
        case _:
            return False


def _argument_lines(
    head: str, args: Sequence[ast.Arg], closing: Sequence[str], indent: str
) -> list[str]:
    """Prints arguments in parentheses, if there are any."""
    if not args and not closing:
        return [head]
    flat = f"{head}({', '.join(_entry_flat(a) for a in args)})"
    if len(indent) + len(flat) <= WIDTH and not closing and not any(map(_has_comments, args)):
        return [flat]
    return [f"{head}(", *_list_lines(args, closing, indent + INDENT), f"{indent})"]


def _parameter_lines(head: str, node: ast.Params, tail: str, indent: str) -> list[str]:
    flat = f"{head}({', '.join(_entry_flat(p) for p in node.params)}){tail}"
    if len(indent) + len(flat) + len(" {") <= WIDTH and not _has_comments(node):
        return [flat]
    lines = _list_lines(node.params, node.closing, indent + INDENT)
    return [f"{head}(", *lines, f"{indent}){tail}"]


def _brace_lines(
    head: list[str],
    nodes: Sequence[ast.Statement | ast.Line],
    closing: Sequence[str],
    indent: str,
) -> list[str]:
    """Prints a head and its nodes in braces."""
    if not nodes and not closing:
        return _concatenate(head, [" {}"])
    inside = _node_lines(nodes, closing, indent + INDENT)
    return [*_concatenate(head, [" {"]), *inside, indent + "}"]
