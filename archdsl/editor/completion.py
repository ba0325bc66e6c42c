"""What may be written at a place: keywords, operators, blocks, names, values of arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import get_args

from archdsl.describe.operators import parameter, usage
from archdsl.editor.document import Document, Version
from archdsl.editor.hover import comment, documentation, header, value_type
from archdsl.editor.places import Position
from archdsl.frozen import Frozen
from archdsl.graph.ops import CALLED
from archdsl.graph.signature import Kind, Param
from archdsl.published.conversions import CONVERSIONS
from archdsl.semantics.binding import MASKS, callee, signature
from archdsl.semantics.library import Scope, standard_library
from archdsl.semantics.models import INITS
from archdsl.semantics.names import IN_BLOCKS
from archdsl.semantics.numbers import FUNCTIONS
from archdsl.semantics.values import Several, Tensor
from archdsl.syntax import ast
from archdsl.syntax.context import Context, context
from archdsl.syntax.printer import expression

_WORD = re.compile(r"[A-Za-z_0-9]*\Z")
_QUOTED = re.compile(r'^\s*(use|include)\s+"([^"\n]*)\Z')


class Completion(Frozen):
    """A text that may be written here. `kind` is a keyword, or what the name stands for."""

    text: str
    kind: str
    detail: str = ""
    documentation: str = ""


def completions(document: Document, position: Position) -> list[Completion]:
    """The texts that may follow, each once; an editor filters them by what is written."""
    version = document.version
    offset = version.lines.offset(position)
    line = version.text[version.text.rfind("\n", 0, offset) + 1 : offset]
    if quoted := _QUOTED.search(line):
        found = _files(version) if quoted[1] == "use" else _titles(version.scope)
        return list(found)
    source, inside = version.pieces.within(offset)
    before = source.text[:inside]
    if "#" in re.sub(r'"[^"\n]*"', "", line) or line.count('"') % 2:
        return []  # a comment or a string
    here = context(_WORD.sub("", before))
    every = _fitting(document, here) if here else _anything(version)
    return list({each.text: each for each in every}.values())


def _fitting(document: Document, here: Context) -> Iterator[Completion]:
    version, scope = document.version, document.version.scope
    words = [Completion(word, "keyword") for word in here.words if _is_allowed(word, here.item)]
    if here.item == "weights":
        yield from _in_weights(version, here)
    elif not here.name:
        pass
    elif here.call is None and "loss" in here.last:
        yield from _operators(loss=True)
    elif here.last[:1] == ("init",):
        yield from (Completion(name, "initializer") for name in INITS)
    elif here.item == "variant" and here.call is None:
        yield from _models(version)
    elif here.last[:1] in (("==",), ("!=",)):
        chosen = dict(here.choices).get(here.last[1], ())
        yield from (Completion(each, "choice") for each in chosen)
        yield from _names(document, here)
    elif here.is_step:
        yield from (Completion(n, "parameter") for n, rule in here.defined if rule == "choice")
        yield from _blocks(scope)
        yield from _operators()
    elif here.call is not None:
        yield from _arguments(document, here, here.call)
    elif "true" in here.words:  # an expression may follow
        yield from _names(document, here)
        yield from _functions()
        yield from _blocks(scope)
        yield from _operators()
    yield from words


def _is_allowed(word: str, item: str) -> bool:
    """Whether a statement of this keyword may be in an item."""
    node = getattr(ast, word.capitalize(), None)
    return item != "block" or node not in get_args(ast.Statement) or node in IN_BLOCKS


def _anything(version: Version) -> Iterator[Completion]:
    """Behind a mistake: all that has a name."""
    yield from _blocks(version.scope)
    yield from _operators()


# -- names --


def _names(document: Document, here: Context) -> Iterator[Completion]:
    """The names that the item defines before the place."""
    types = dict(_types(document))
    kinds = {"edges": "edge", "param": "parameter", "choice": "parameter", "typed": "input"}
    for name, rule in here.defined:
        yield Completion(name, kinds.get(rule, rule), types.get(name, ""))


def _types(document: Document) -> Iterator[tuple[str, str]]:
    for built in document.built.values():
        for span, value in built.values.items():
            if isinstance(value, Tensor | Several) and document.version.is_own(span):
                yield span.text, value_type(value)


def _functions() -> Iterator[Completion]:
    for name, function in FUNCTIONS.items():
        yield Completion(name, "function", f"{name}({', '.join(function.params)})")


def _operators(loss: bool = False) -> Iterator[Completion]:
    for op in CALLED.values():
        if op.loss == loss:
            yield Completion(op.name, "operator", usage(op), documentation(op))


def _blocks(scope: Scope) -> Iterator[Completion]:
    for name, definition in scope.blocks.items():
        block = definition.block
        yield Completion(name, "block", header(block), " ".join(comment(block)))


def _models(version: Version) -> Iterator[Completion]:
    for item in version.file.items:
        if isinstance(item, ast.Model):
            yield Completion(item.name.id, "model", header(item), " ".join(comment(item)))


def _choices(version: Version, model: str, parameter: str) -> Iterator[Completion]:
    """The choices of a parameter of a model."""
    for item in version.file.items:
        if isinstance(item, ast.Model) and item.name.id == model:
            for param in item.params.params:
                if param.name.id == parameter and isinstance(param.type, ast.Choices):
                    yield from (Completion(each.id, "choice") for each in param.type.names)


# -- arguments --


def _arguments(document: Document, here: Context, call: str) -> Iterator[Completion]:
    """The parameters of a call that have no argument yet, and the values of this one."""
    version = document.version
    params = _parameters(version, here, call)
    rest = [each for each in params if each.name not in here.given]
    if here.argument is not None:
        rest = [each for each in params if each.name == here.argument]
    for param in rest:
        yield from _values(version, here, call, param)
    if here.argument is None:
        for param in rest:
            yield Completion(f"{param.name} = ", "parameter", _described(param))
    yield from _names(document, here)
    yield from _functions()
    kinds = {each.kind for each in rest}
    if kinds & {Kind.BLOCK, Kind.ANY}:
        yield from _blocks(version.scope)
        yield from _operators()


def _parameters(version: Version, here: Context, call: str) -> tuple[Param, ...]:
    """The parameters of an operator, a block, a loss, or the model of a variant."""
    if here.item == "variant":
        models = (each for each in version.file.items if isinstance(each, ast.Model))
        return next((signature(m.params) for m in models if m.name.id == call), ())
    if call in CALLED and CALLED[call].loss:
        return CALLED[call].params
    called = callee(call, version.scope, version.file.span)
    first = called.receiver if called else None  # mostly given by the arrow
    return tuple(each for each in called.params if each is not first) if called else ()


def _values(version: Version, here: Context, call: str, param: Param) -> Iterator[Completion]:
    yield from (Completion(each, "choice", parameter(param)) for each in param.choices)
    if here.item == "variant":
        yield from _choices(version, call, param.name)
    if param.kind is Kind.BOOL and here.argument is None:
        yield Completion(param.name, "switch", _described(param))
    if param.kind is Kind.MASK:
        yield from (Completion(each, "mask") for each in ("causal", *sorted(MASKS)))
    if param.default is None or (isinstance(param.default, ast.Name) and here.argument):
        yield Completion("none", "choice", _described(param))


def _described(param: Param) -> str:
    if isinstance(param.default, ast.Spanned):  # of a block
        return f"{param.name} = {expression(param.default)}"  # type: ignore[arg-type]
    return parameter(param)


# -- files and weights --


def _files(version: Version) -> Iterator[Completion]:
    """The files that `use` finds: those beside this one and those of the library."""
    folders = {version.path.parent.resolve(), standard_library().resolve()}
    paths: Iterable[str] = {each.name for folder in folders for each in folder.glob("*.arch")}
    yield from (Completion(n, "file") for n in sorted(paths) if n != version.path.name)


def _titles(scope: Scope) -> Iterator[Completion]:
    yield from (Completion(title, "weights") for title in scope.lines)


def _in_weights(version: Version, here: Context) -> Iterator[Completion]:
    if here.last[:1] == ("for",):
        yield from _models(version)
    elif here.last[:1] == ("->",):
        yield from (Completion(each, "conversion") for each in CONVERSIONS)
