"""How operators are called, as one line."""

from __future__ import annotations

from archdsl.graph.signature import Kind, Op, Param

_KINDS = {
    Kind.TENSOR: "tensor",
    Kind.INT: "int",
    Kind.TOKEN: "int",
    Kind.OFFSET: "int",
    Kind.SIZE: "size",
    Kind.NUMBER: "number",
    Kind.BOOL: "bool",
    Kind.CHOICE: "name",
    Kind.SIZES: "int…",
    Kind.NAMED_SIZES: "name = int…",
    Kind.TEXT: "string",
    Kind.BLOCK: "block",
    Kind.AXIS: "axis",
    Kind.MARK: "name",
    Kind.MASK: "mask",
    Kind.LABEL: "label",
    Kind.ANY: "value",
}


def usage(op: Op) -> str:
    """An operator and the parameters that a spec can give.

    >>> from archdsl.graph.ops import OPS
    >>> usage(OPS["linear"])
    'linear(x: tensor, dim: int, bias: bool = true)'
    """
    params = (each for each in op.params if each.kind is not Kind.AXES)
    return f"{op.name}({', '.join(map(parameter, params))})"


def parameter(param: Param) -> str:
    """A parameter of an operator with its kind and its default; `…` is one that depends."""
    kind = " | ".join(param.choices) if param.choices else _KINDS[param.kind]
    if param.required:
        return f"{param.name}: {kind}"
    default = str(param.default).lower() if isinstance(param.default, bool) else param.default
    default = '""' if default == "" else default
    return f"{param.name}: {kind}" + (f" = {default}" if default not in (None, ()) else " = …")
