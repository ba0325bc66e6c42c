"""Parses the text of graph/printer.py back into a graph.

The parser checks only the syntax; graph/verify.py checks the graph.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from archdsl.diagnostics import ArchError, Diagnostic, Source, Span, did_you_mean
from archdsl.graph.nodes import (
    Apply,
    Attribute,
    Body,
    Graph,
    Input,
    Mixture,
    Node,
    Scan,
    Slice,
    Stack,
    Table,
    Tail,
    Term,
)
from archdsl.graph.ops import OPERATORS, RENAMED
from archdsl.graph.signature import Kind, Op
from archdsl.graph.types import Axis, Size, Type, Varying

_T = TypeVar("_T")

_TOKEN = re.compile(
    r"""
      (?P<line>\s*\n\s*)
    | (?P<text>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-f]{4}))*")
    | (?P<float>[0-9]+(?:\.[0-9]+)?e[-+]?[0-9]+|[0-9]+\.[0-9]+)
    | (?P<int>[0-9]+(?:_[0-9]+)*)
    | (?P<id>%\w+)
    | (?P<name>[^\W\d]\w*)
    | (?P<mark><=|//|[-+*^=<@:;,.()\[\]])
    """,
    re.VERBOSE,
)
_KINDS = {"line": "the end of the line", "int": "a whole number", "name": "a name"}
_KINDS |= {"float": "a number", "id": "%…"}


def tensor_names(op: Op) -> Iterator[str]:
    """The tensors of an operator, with those that a decoding step adds."""
    yield from (param.name for param in op.params if param.kind is Kind.TENSOR)
    yield from op.positions


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def parse(text: str, path: str = "<graph>") -> Graph:
    """Parses a graph printed by `show`, so that `show(parse(text)) == text`.

    `path` is the file name in messages. Raises `ArchError` (code `syntax`) at the first
    unexpected token.

    >>> graph = parse('''graph G init xavier
    ... input x: float[4]
    ... %1 = dropout(x; rate = 0.5) @ dropout: float[4]
    ... output y = %1
    ... ''')
    >>> graph.nodes[0].attrs, graph.outputs
    ((('rate', 0.5),), (('y', '%1'),))
    """
    return _Parser(Source(path, text)).graph()


class _Parser:
    """The tokens of a text, the current index, and a method for each part of a graph."""

    def __init__(self, source: Source):
        self.source = source
        self.tokens = list(self.split(source.text))
        self.at = 0

    # -- tokens --

    def split(self, text: str) -> Iterator[_Token]:
        end = len(text.rstrip())
        start = len(text) - len(text.lstrip())
        while start < end:
            if text[start] in " \t":
                start += 1
                continue
            match = _TOKEN.match(text, start, end)
            if match is None:
                raise self.error("unexpected character `{}`", _Token("", text[start], start))
            yield _Token(match.lastgroup or "", match[0], start)
            start = match.end()
        yield _Token("line", "\n", end)
        yield _Token("end", "", end)

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def ahead(self, count: int) -> _Token:
        return self.tokens[min(self.at + count, len(self.tokens) - 1)]

    def error(
        self, message: str, token: _Token, expected: str | None = None, help: str | None = None
    ) -> ArchError:
        span = Span(self.source, token.start, token.start + len(token.text.strip()))
        message = message.format(span.text)
        return ArchError(Diagnostic("syntax", message, span, expected, help=help))

    def unexpected(self, what: str) -> ArchError:
        ends = {"line": "the line ends here", "end": "the text ends here"}
        message = ends.get(self.next.kind, "unexpected `{}`")
        return self.error(message, self.next, expected=what)

    def has(self, text: str) -> bool:
        return self.next.text == text and self.next.kind in ("name", "mark")

    def accept(self, text: str) -> bool:
        if found := self.has(text):
            self.at += 1
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.unexpected(f"`{text}`")

    def take(self, *kinds: str) -> str:
        token = self.next
        if token.kind not in kinds:
            raise self.unexpected(" or ".join(_KINDS[kind] for kind in kinds))
        self.at += 1
        return token.text

    def items_until(self, close: str, one: Callable[[], _T]) -> tuple[_T, ...]:
        """Comma-separated items up to a closing mark."""
        found: list[_T] = []
        while not self.accept(close):
            if found:
                self.expect(",")
            found.append(one())
        return tuple(found)

    def items(self, one: Callable[[], _T]) -> tuple[_T, ...]:
        """One or more comma-separated items."""
        found = [one()]
        while self.accept(","):
            found.append(one())
        return tuple(found)

    def lines(self, word: str, one: Callable[[], _T]) -> tuple[_T, ...]:
        """The lines that start with a word."""
        found = []
        while self.accept(word):
            found.append(one())
            self.take("line")
        return tuple(found)

    # -- the graph --

    def graph(self) -> Graph:
        self.expect("graph")
        name = self.take("name")
        self.expect("init")
        rule = self.take("name")
        numbers = self.items_until(")", self.rate) if self.accept("(") else ()
        self.take("line")
        varying = self.lines("axis", self.varying)
        inputs = self.lines("input", self.input)
        labels = self.lines("label", self.input)
        tables = self.lines("table", self.table)
        nodes = self.nodes()
        outputs = self.lines("output", self.output)
        losses = self.lines("loss", self.loss)
        if self.next.kind != "end":
            raise self.unexpected("the end of the text")
        init = rule, numbers
        return Graph(name, varying, inputs, nodes, outputs, labels, losses, init, tables)

    def loss(self) -> Term:
        if self.next.kind == "id":
            return Term(1.0, self.apply())
        weight = self.number()
        self.expect("*")
        return Term(weight, self.apply())

    def rate(self) -> tuple[str, float]:
        name = self.take("name")
        self.expect("=")
        return name, self.number()

    def varying(self) -> Varying:
        least = 1
        if self.next.kind == "int":
            least = self.integer()
            self.expect("<=")
        name = self.take("name")
        self.expect("<=")
        bound = self.integer()
        ragged = self.take("name") if self.accept("ragged") else None
        return Varying(name, bound, ragged, least=least)

    def input(self) -> Input:
        name = self.take("name")
        self.expect(":")
        type = self.type()
        pad = self.integer() if self.accept("pad") else None
        return Input(name, type, pad, self.scalar() if self.accept("=") else None)

    def table(self) -> Table:
        path = self.path()
        self.expect(":")
        self.expect("[")
        vocab = self.integer()
        self.expect(",")
        dim = self.integer()
        self.expect("]")
        return Table(path, vocab, dim)

    def output(self) -> tuple[str, str]:
        name = self.take("name")
        self.expect("=")
        return name, self.ref()

    def ref(self) -> str:
        return self.take("id", "name")

    # -- nodes --

    def nodes(self) -> tuple[Node, ...]:
        found: list[Node] = []
        while self.next.kind == "id":
            match self.ahead(2).text:
                case "stack":
                    found.append(self.stack())
                case "mixture":
                    found.append(self.mixture())
                case "scan":
                    found.append(self.scan())
                case _:
                    found.append(self.apply())
            self.take("line")
        return tuple(found)

    def apply(self) -> Apply:
        id = self.take("id")
        self.expect("=")
        name = self.next
        op = OPERATORS.get(self.take("name"))
        if op is None:
            help = did_you_mean(RENAMED.get(name.text, name.text), OPERATORS)
            raise self.error("unknown operator `{}`", name, help=help)
        self.expect("(")
        inputs = []
        if not self.has(";") and not self.has(")"):
            inputs.append((next(tensor_names(op)), self.ref()))
        while inputs and self.accept(","):
            param = self.take("name")
            self.expect("=")
            inputs.append((param, self.ref()))
        attrs: tuple[tuple[str, Attribute], ...] = ()
        if self.accept(";"):
            attrs = self.items_until(")", self.setting)
        else:
            self.expect(")")
        tail = self.items(self.tail) if self.accept("then") else ()
        kernels = self.kernels()
        path, type = self.path_and_type()
        return Apply(id, op.name, tuple(inputs), attrs, path, type, tail=tail, kernels=kernels)

    def tail(self) -> Tail:
        name, other = self.take("name"), None
        if self.accept("("):
            other = self.ref()
            self.expect(")")
        return Tail(name, other)

    def kernels(self) -> tuple[str, ...]:
        groups = self.items(self.kernel) if self.accept("by") else ()
        return tuple(name for group in groups for name in group)

    def kernel(self) -> tuple[str, ...]:
        """The name of a kernel, once for each consecutive launch."""
        name = self.take("name")
        return (name,) * (self.integer() if self.accept("*") else 1)

    def setting(self) -> tuple[str, Attribute]:
        name = self.take("name")
        self.expect("=")
        return name, self.literal()

    def stack(self) -> Stack:
        id = self.take("id")
        self.expect("=")
        self.expect("stack")
        self.expect("(")
        x = self.ref()
        self.expect(")")
        self.expect("*")
        start, count = self.next, self.integer()
        tied = self.accept("tied")
        path, type = self.path_and_type()
        self.take("line")
        kinds: dict[int, int] = {}
        bodies: list[Body] = []
        while not bodies or self.ahead(1).text == "layers":
            if bodies:
                self.take("line")
            if self.accept("layers"):
                layers = [n for each in self.items(self.layers) for n in each]
                kinds |= dict.fromkeys(layers, len(bodies))
                self.take("line")
            bodies.append(self.body())
        if kinds and sorted(kinds) != list(range(count)):
            raise self.error("not every one of `{}` layers has a body", start)
        numbers = tuple(kinds[layer] for layer in sorted(kinds))
        return Stack(id, x, count, path, tuple(bodies), type, kinds=numbers, tied=tied)

    def layers(self) -> range:
        """`5` or `0-4`."""
        first = int(self.take("int"))
        return range(first, (int(self.take("int")) if self.accept("-") else first) + 1)

    def body(self) -> Body:
        self.expect("take")
        carry = self.take("id")
        self.expect(":")
        carry_type = self.type()
        self.take("line")
        takes = self.lines("each", self.slice)
        nodes = self.nodes()
        self.expect("yield")
        result = self.ref()
        gives = []
        while self.ahead(1).text == "give":
            self.take("line")
            self.expect("give")
            gives.append(self.slice())
        return Body(carry, carry_type, nodes, result, takes, tuple(gives))

    def mixture(self) -> Mixture:
        id = self.take("id")
        for word in ("=", "mixture", "("):
            self.expect(word)
        x = self.ref()
        for word in (",", "gates", "="):
            self.expect(word)
        gates = self.ref()
        for word in (";", "chosen", "="):
            self.expect(word)
        chosen = self.integer()
        self.expect(")")
        self.expect("*")
        count = self.integer()
        path, type = self.path_and_type()
        self.take("line")
        self.expect("take")
        carry = self.take("id")
        self.expect(":")
        carry_type = self.type()
        self.take("line")
        body = self.nodes()
        self.expect("yield")
        result = self.ref()
        return Mixture(id, x, gates, count, chosen, path, carry, carry_type, body, result, type)

    def scan(self) -> Scan:
        id = self.take("id")
        self.expect("=")
        self.expect("scan")
        valid = None
        if self.accept("("):
            valid = self.ref()
            self.expect(")")
        kernels = self.kernels()
        path, type = self.path_and_type()
        self.take("line")
        self.expect("carry")
        carry = self.take("id")
        start = self.ref() if self.accept("=") else None
        self.expect(":")
        carry_type = self.type()
        self.take("line")
        takes = self.lines("each", self.slice)
        body = []
        while self.next.kind == "id":
            body.append(self.apply())
            self.take("line")
        self.expect("yield")
        result = self.ref()
        read, final = self.after("read", self.ref), self.after("last", lambda: self.take("id"))
        return Scan(
            *(id, path, carry, carry_type, takes, tuple(body), result, read or result, type),
            *(start, valid, final, kernels),
        )

    def after(self, word: str, one: Callable[[], _T]) -> _T | None:
        """What follows a word on the next line, if that line begins with it."""
        if self.ahead(1).text != word:
            return None
        self.take("line")
        self.expect(word)
        return one()

    def slice(self) -> Slice:
        id = self.take("id")
        self.expect("=")
        of = self.ref()
        self.expect(":")
        return Slice(id, of, self.type())

    def path_and_type(self) -> tuple[str, Type]:
        """The path of a node, which may be empty, and its type."""
        path = self.path() if self.accept("@") else ""
        self.expect(":")
        return path, self.type()

    def path(self) -> str:
        parts = ("name", "int", "float")  # two numbers with a dot look like a float
        path = self.take(*parts)
        while self.accept("."):
            path += "." + self.take(*parts)
        return path

    # -- types --

    def type(self) -> Type:
        dtype = self.take("name")
        axes = self.items_until("]", self.axis) if self.accept("[") else ()
        below = self.integer() if self.accept("<") else None
        noncausal = []
        if self.accept("noncausal"):
            noncausal.append(self.take("name"))
            # An axis may be called `pad`; the keyword `pad` is followed by a number.
            while self.next.kind == "name" and self.ahead(1).kind != "int":
                noncausal.append(self.take("name"))
        return Type(dtype, axes, below, frozenset(noncausal))

    def axis(self) -> Axis:
        marks = []
        while self.ahead(1).text == ":":
            marks.append(self.take("name"))
            self.expect(":")
        name: str | None = None
        if self.ahead(1).text == "=":
            name = self.take("name")
            self.expect("=")
            size = self.size()
        else:
            bare = not self.has("(")
            size = self.size()
            if bare and str(size) in size.vars:
                name = str(size)
        return Axis(name, size, tuple(marks))

    def size(self) -> Size:
        """A polynomial: `2 T^2 + T // 2 - 1`."""
        total, sign = Size.of(0), -1 if self.accept("-") else 1
        while True:
            total += self.term() * sign
            if not self.has("+") and not self.has("-"):
                return total
            sign = -1 if self.take("mark") == "-" else 1

    def term(self) -> Size:
        if self.next.kind not in ("int", "name") and not self.has("("):
            raise self.unexpected("a size")
        product = Size.of(self.integer() if self.next.kind == "int" else 1)
        while self.next.kind == "name" or self.has("("):
            factor = self.factor()
            for _ in range(self.integer() if self.accept("^") else 1):
                product *= factor
        return product

    def factor(self) -> Size:
        """`T`, `T // 2` or `(T + 1) // 2`."""
        if self.accept("("):
            found = self.size()
            self.expect(")")
        else:
            found = Size.of(self.take("name"))
        return found // self.integer() if self.accept("//") else found

    # -- values --

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        return sign * int(self.take("int"))

    def number(self) -> int | float:
        sign = -1 if self.accept("-") else 1
        if self.next.kind == "float":
            return sign * float(self.take("float"))
        return sign * int(self.take("int"))

    def scalar(self) -> int | float | bool:
        """A number or a truth value."""
        if self.has("true") or self.has("false"):
            return self.take("name") == "true"
        return self.number()

    def literal(self) -> Attribute:
        words = {"none": None, "true": True, "false": False}
        match self.next.kind:
            case "text":
                value: str = json.loads(self.next.text)
                self.at += 1
                return value
            case "name" if self.next.text in words:
                return words[self.take("name")]
        if not self.accept("("):
            return self.number()
        if self.next.kind == "name":
            return self.items_until(")", self.named_size)
        return self.items_until(")", self.integer)

    def named_size(self) -> tuple[str, int]:
        name = self.take("name")
        self.expect("=")
        return name, self.integer()
