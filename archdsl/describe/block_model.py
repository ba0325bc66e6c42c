"""A model of one block, to look at the block alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from archdsl.diagnostics import Source, fail
from archdsl.syntax import ast
from archdsl.syntax.printer import expression, type_text
from archdsl.syntax.stored import tree_of

FEATURES = 512  # of each vector
LONGEST = 512  # of each sequence
NUMBER = 8  # a parameter without a default
ALONE = "<alone>"  # the path of a text that nobody wrote


def block_model(
    block: ast.Block, file: str, given: Mapping[str, int | float | str]
) -> ast.File:
    """A file with a model of the block's name, which uses the block's `file`.

    The tensors of the block are its inputs, and the numbers its parameters; those without a
    default have the `given` values. The first of several axes varies, and the last one has
    FEATURES. Raises ArchError (`argument-value`) if the block takes another block or does not
    declare its type.
    """
    return tree_of(Source(ALONE, f'use "{file}"\n\n{_text(block, given)}'))


def without_value(block: ast.Block) -> list[ast.Param]:
    """The numbers of a block that have no default."""
    return [each for each in block.params.params if each.type is None and each.default is None]


def result_names(count: int) -> list[str]:
    """The names of the results of a block."""
    return ["result"] if count == 1 else [f"result_{n}" for n in range(1, count + 1)]


def _text(block: ast.Block, values: Mapping[str, int | float | str]) -> str:
    name, varying = block.name.id, set[str]()
    sizes: dict[str, int] = {}
    inputs, numbers = [], []
    for param in block.params.params:
        match param.type:
            case ast.Type():
                if param.default is None:
                    inputs.append(
                        f"  input {param.name.id}: {_input(param.type, varying, sizes)}"
                    )
            case ast.BlockType():
                fail(
                    "argument-value",
                    f"`{name}` cannot be drawn alone: it takes a block, `{param.name.id}`",
                    param.span,
                    help="draw a model or a block that calls it",
                )
            case None:
                value = _literal(values.get(param.name.id, NUMBER))
                value = value if param.default is None else expression(param.default)
                numbers.append(f"{param.name.id} = {value}")
            case _:
                numbers.append(f"{param.name.id}: {type_text(param.type)} = {_default(param)}")
    given = [f"{axis} = {size}" for axis, size in sizes.items() if axis not in varying]
    arguments = ", ".join(f"{each} = {each}" for each in _given(block))
    head = f"model {name}({', '.join([*given, *numbers])}) {{"
    return "\n".join([head, *inputs, *_outputs(block, f"{name}({arguments})"), "}", ""])


def _outputs(block: ast.Block, value: str) -> Iterator[str]:
    match block.type:
        case None:
            fail(
                "argument-value",
                f"`{block.name.id}` cannot be drawn alone: its type is not declared",
                block.name.span,
                help="declare it: `block name(…): float[T, D] { … }`",
            )
        case ast.Types(types=types):
            names = result_names(len(types))
            values = [f"value_{number}" for number in range(1, len(types) + 1)]
            yield f"  {', '.join(values)} = {value}"
            for result, each, type in zip(names, values, types, strict=True):
                yield f"  output {result}: {type_text(type)} = {each}"
        case ast.Type():
            (result,) = result_names(1)
            yield f"  output {result}: {type_text(block.type)} = {value}"


def _literal(value: int | float | str) -> str:
    """A number, a switch or a name as the language writes it."""
    if isinstance(value, str) and not value.isidentifier():
        return str(NUMBER)  # the value is then reported as one that does not fit
    return str(value).lower() if isinstance(value, bool) else str(value)


def _default(param: ast.Param) -> str:
    assert param.default is not None
    return expression(param.default)


def _given(block: ast.Block) -> Iterator[str]:
    """The parameters that the model gives: all but tensors with a default."""
    for param in block.params.params:
        if not (isinstance(param.type, ast.Type) and param.default is not None):
            yield param.name.id


def _input(type: ast.Type, varying: set[str], sizes: dict[str, int]) -> str:
    """The type of an input; notes the names of its axes."""
    axes = []
    for number, axis in enumerate(type.axes):
        last = number == len(type.axes) - 1
        size = "T" if axis.is_rest else expression(axis.size)
        if not size.isidentifier():
            axes.append(size)
        elif number == 0 and not last:
            axes.append(size if size in varying else f"{size} <= {LONGEST}")
            varying.add(size)
        else:
            sizes.setdefault(size, FEATURES if last else NUMBER)
            axes.append(size)
    below = f" < {expression(type.below)}" if type.below is not None else ""
    return f"{type.dtype}[{', '.join(axes)}]{below}"
