"""Builds the typed graph of a model, for given values of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from archdsl.diagnostics import did_you_mean, listing
from archdsl.graph.nodes import Apply, Graph, Input, Term
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Param
from archdsl.graph.types import Size, Type, Varying
from archdsl.graph.unused import drop_absent, drop_unused_weights
from archdsl.semantics.binding import Callee, bind
from archdsl.semantics.blocks import names_of
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.library import Scope
from archdsl.semantics.model_parameters import ParameterBinder, Setting
from archdsl.semantics.numbers import FUNCTIONS
from archdsl.semantics.report import Report
from archdsl.semantics.values import (
    POISON,
    Env,
    Poison,
    Scalar,
    Tensor,
    Value,
    describe,
)
from archdsl.syntax import ast

# Initializers of weights, with the defaults of their numbers.
INITS: dict[str, dict[str, float]] = {"normal": {"std": 0.02}, "xavier": {}}


class ModelBuilder:
    """Builds the graph of one model, statement by statement."""

    def __init__(self, scope: Scope, model: ast.Model, report: Report):
        self.model = model
        self.report = report
        self.varying: dict[str, Varying] = {}
        self.elaborator = Elaborator(report, self.varying)
        self.env = Env(scope, dict(FUNCTIONS))
        self.padded = _padded_axes(model)
        self.inputs: list[Input] = []
        self.labels: list[Input] = []
        self.outputs: list[tuple[str, str]] = []
        self.losses: list[Term] = []
        self.init = ("normal", tuple(INITS["normal"].items()))
        self.facts: list[ast.Expect | ast.ExpectType] = []
        self.failed = False  # a part of the model has a mistake
        self.partial = False  # a condition leaves out an output or the loss
        self.complete: Graph | None = None  # the graph with the parts that are left out

    def build(
        self, variant: ast.Variant | None, settings: Mapping[str, Setting]
    ) -> Graph | None:
        """The graph for the arguments of a variant and settings, or None after a report."""
        before = self.report.mistakes
        self._bind_parameters(variant, settings)
        for statement in self.model.body.statements:
            self._statement(statement)
        self._check_defaults()
        if not any(isinstance(s, ast.Output) for s in self.model.body.statements):
            self.report.add(
                "model",
                f"`{self.model.name.id}` has no output",
                self.model.name.span,
                expected="`output name: type = expression`",
            )
        if self.failed or self.report.mistakes > before:
            return None
        if not self.outputs:
            self.report.add(
                "model",
                f"no output of `{self.model.name.id}` fulfils its condition",
                self.model.name.span,
                help="change the parameters that the conditions of its outputs depend on",
            )
            return None
        graph = Graph(
            self.model.name.id,
            tuple(self.varying.values()),
            tuple(self.inputs),
            tuple(self.elaborator.builder.nodes),
            tuple(self.outputs),
            tuple(self.labels),
            tuple(self.losses),
            self.init,
        )
        self.complete = graph = drop_unused_weights(graph)
        return drop_absent(graph) if self.partial else graph

    def bind_parameters(self, settings: Mapping[str, Setting]) -> Env:
        """The parameters of the model for these settings, without its body."""
        self._bind_parameters(None, settings)
        return self.env

    def _bind_parameters(
        self, variant: ast.Variant | None, settings: Mapping[str, Setting]
    ) -> None:
        binder = ParameterBinder(self.model, self.elaborator, self.env, self.report)
        binder.bind(variant, settings)
        self.failed |= binder.failed

    # -- statements --

    def _statement(self, statement: ast.Statement) -> None:
        match statement:
            case ast.Input():
                self._input(statement)
            case ast.Weight():
                self.elaborator.blocks.bind_weight(statement, self.env)
                self.failed |= isinstance(self.env.names[statement.name.id], Poison)
            case ast.Edge() | ast.Edges():
                self.elaborator.blocks.bind_edge(statement, self.env)
                names = names_of(statement)
                self.failed |= any(isinstance(self.env.names[n.id], Poison) for n in names)
            case ast.State():
                self.elaborator.blocks.states.bind(statement, self.env)
                self.failed |= isinstance(self.env.names[statement.name.id], Poison)
            case ast.Output():
                self._output(statement)
            case ast.Loss():
                self._loss(statement)
            case ast.Init():
                self._init(statement)
            case ast.Expect() | ast.ExpectType():
                self.facts.append(statement)
            case ast.Result():
                self.report.add(
                    "syntax",
                    "this value has no name and is never used",
                    statement.span,
                    help="write `name = …` or `output name: type = …`",
                )

    def _input(self, node: ast.Input) -> None:
        new = self._new_input(node.name, node.type)
        if new and node.default:
            default = self._input_default(node, node.default, new.type)
            new = None if default is None else replace(new, default=default)
        if new:
            self.inputs.append(new)
        self._bind(node.name, Tensor(new.name, new.type) if new else POISON)

    def _input_default(
        self, node: ast.Input, expr: ast.Expr, type: Type
    ) -> int | float | bool | None:
        """The default of an input, or None after a report."""
        value = self.elaborator.number(expr, self.env)
        if isinstance(value, Poison):
            return None
        pad = self.elaborator.number(node.type.pad, self.env) if node.type.pad else None
        if isinstance(pad, Scalar) and pad.value == value.value:
            self.report.add(
                "axis",
                f"the default of `{node.name.id}` is its padding, so each row would be empty",
                expr.span,
                expected=f"another number than {pad.value}",
            )
            return None
        if isinstance(value.value, str) or not type.allows(value.value):
            bound = f" < {type.below}" if type.below else ""
            self.report.add(
                "element-bound",
                f"the default of `{node.name.id}` must be one of its values",
                expr.span,
                expected=f"{type.dtype}{bound}",
                found=describe(value),
            )
            return None
        return float(value.value) if type.dtype == "float" else value.value

    def _check_defaults(self) -> None:
        """Reports inputs with a default whose sizes no other input gives."""
        for node in self.model.body.statements:
            if not (isinstance(node, ast.Input) and node.default):
                continue
            types = [each.type for each in self.inputs if each.default is None]
            given = {axis.size for type in types for axis in type.axes}
            own = [each.type for each in self.inputs if each.name == node.name.id]
            for name in sorted(own[0].vars if own else ()):
                if Size.of(name) not in given:
                    self.report.add(
                        "axis",
                        f"`{node.name.id}` has a default, but no other input gives the size of "
                        f"`{name}`",
                        node.default.span,
                        expected=f"an input without a default that has the axis `{name}`",
                        help="remove the default",
                    )

    def _bind(self, name: ast.Name, value: Value) -> None:
        """Binds a name. A name that is bound twice is POISON after that."""
        value = POISON if name.id in self.env.names else value
        self.failed |= isinstance(value, Poison)
        self.env.names[name.id] = value
        self.elaborator.builder.note(name.span, value)

    def _new_input(self, name: ast.Name, node: ast.Type, label: bool = False) -> Input | None:
        """An input. A label of the loss can have only the axes of inputs."""
        known = set(self.varying)
        type = self.elaborator.shapes.input_type(node, self.env)
        if type is None:
            return None
        for axis in type.vars & self.padded.keys():
            self.varying[axis] = replace(self.varying[axis], ragged=self.padded[axis])
        if label and (new := sorted(type.vars - known)):
            self.report.add(
                "axis",
                f"`{new[0]}` is not an axis of an input",
                node.span,
                expected=listing(sorted(known)) or "sizes that are numbers",
                help="an input of a loss can vary only along the axes of the model's inputs",
            )
            return None
        pad = self._pad(node, type, label) if node.pad else None
        if node.pad and pad is None:
            return None
        return Input(name.id, type, pad, span=name.span)

    def _pad(self, node: ast.Type, type: Type, label: bool) -> int | None:
        assert node.pad is not None
        value = self.elaborator.number(node.pad, self.env)
        if isinstance(value, Poison):
            return None
        axes = [a.name for a in type.axes if a.name and a.size == Size.of(a.name)]
        if type.dtype != "int" or len(axes) != 1 or len(type.axes) != 1:
            self.report.add(
                "type-mismatch",
                "only a sequence of tokens can have padding",
                node.pad.span,
                expected="int[T <= context] < vocab pad 0",
                found=str(type),
            )
            return None
        pad = value.value
        whole = isinstance(pad, int) and not isinstance(pad, bool)
        if not whole or not 0 <= int(pad) < (type.below or int(pad) + 1):
            self.report.add(
                "element-bound",
                "the padding value must be one of the values of the input",
                node.pad.span,
                expected="0 <= pad" + (f" < {type.below}" if type.below else ""),
                found=describe(value),
            )
            return None
        (axis,) = type.vars
        if self.varying[axis].ragged is None and label:
            self.report.add(
                "axis",
                f"the input of the axis `{axis}` declares no padding",
                node.pad.span,
                help=f"add `pad {pad}` to that input",
            )
            return None
        return int(pad)

    def _output(self, node: ast.Output) -> None:
        value = self.elaborator.tensor(node.value, self.env)
        self._bind(node.name, value)
        if isinstance(value, Poison):
            return
        what = f"the output `{node.name.id}`"
        fits = self.elaborator.shapes.check(value.type, node.type, self.env, what)
        if self._is_present(node.condition) and fits:
            self.outputs.append((node.name.id, value.ref))

    def _is_present(self, condition: ast.Expr | None) -> bool:
        """Whether the model has an output or a loss with this condition."""
        holds = condition is None or self.elaborator.conditions.holds(condition, self.env)
        self.failed |= isinstance(holds, Poison)
        self.partial |= holds is False
        return holds is True

    def _loss(self, node: ast.Loss) -> None:
        labels = len(self.labels)
        terms = [self._term(each) for each in node.terms]
        if not self._is_present(node.condition):
            del self.labels[labels:]
        elif self.losses:
            self.report.add(
                "duplicate-name",
                "a model can have only one loss",
                node.span,
                help="write a sum: `loss a(…) + 0.1 * b(…)`",
            )
        elif None not in terms:
            self.losses = [each for each in terms if each is not None]

    def _term(self, term: ast.Term) -> Term | None:
        """A loss and its weight; None after a report."""
        weight = self._weight(term.weight) if term.weight is not None else 1.0
        loss = self._term_loss(term.call)
        return None if weight is None or loss is None else Term(weight, loss)

    def _weight(self, expr: ast.Expr) -> float | None:
        number = self.elaborator.number(expr, self.env)
        if isinstance(number, Poison):
            return None
        if isinstance(number.value, bool | str) or number.value <= 0:
            self.report.add(
                "argument-value",
                "the weight of a loss must be a number above 0",
                expr.span,
                found=describe(number),
            )
            return None
        return float(number.value)

    def _term_loss(self, call: ast.Call) -> Apply | None:
        """The node of a loss; adds the labels that it declares."""
        name = call.callee
        op = OPS.get(name.id)
        losses = [n for n, o in OPS.items() if o.loss]
        if op is None or not op.loss:
            self.report.add(
                "unknown-name",
                f"there is no loss `{name.id}`",
                name.span,
                expected=listing(losses),
                help=did_you_mean(name.id, losses),
            )
            return None

        called = Callee(op.name, op.params, call.span, flows=False)

        def evaluate(expr: ast.Expr | ast.Typed, param: Param | None) -> Value:
            if not isinstance(expr, ast.Typed):
                return self.elaborator.steps.argument(expr, param, called, self.env)
            label = self._new_input(expr.name, expr.type, label=True)
            taken = {*self.env.names, *(other.name for other in self.labels)}
            if label is None or label.name in taken:
                return POISON
            self.labels.append(label)
            return Tensor(label.name, label.type)

        arguments = bind(called, call.args, None, evaluate, self.report)
        new = self.elaborator.operators.node(op, arguments, self.env, call.span, "")
        if isinstance(new, Poison):
            self.failed = True
            return None
        return new[0]

    def _init(self, node: ast.Init) -> None:
        name, args = (
            (node.rule, ())
            if isinstance(node.rule, ast.Name)
            else (node.rule.callee, node.rule.args)
        )
        numbers = INITS.get(name.id)
        if numbers is None:
            self.report.add(
                "unknown-name",
                f"there is no initializer `{name.id}`",
                name.span,
                expected=listing(INITS),
                help=did_you_mean(name.id, INITS),
            )
            return
        settings = dict(numbers)
        for arg, free in zip(args, [*numbers, *[""] * len(args)], strict=False):
            key = arg.name.id if arg.name else free
            value = self.elaborator.number(arg.value, self.env)  # type: ignore[arg-type]
            if isinstance(value, Poison):
                return
            number = not isinstance(value.value, bool | str) and value.value > 0
            if key not in numbers or not number:
                takes = f"{listing(numbers, 'and')}, above 0" if numbers else "no arguments"
                self.report.add(
                    "argument-value",
                    f"`{name.id}` takes {takes}",
                    arg.span,
                    help=did_you_mean(key, numbers) if key not in numbers else None,
                )
                return
            settings[key] = float(value.value)
        self.init = (name.id, tuple(settings.items()))


def _padded_axes(model: ast.Model) -> dict[str, str]:
    """The axes that inputs of a model pad, each with the first of these inputs.

    They are ragged from the first line of the body, also above that input.
    """
    found: dict[str, str] = {}
    for each in model.body.statements:
        if isinstance(each, ast.Input) and each.type.pad:
            names = (a.size.id for a in each.type.axes if isinstance(a.size, ast.Name))
            for name in names:
                found.setdefault(name, each.name.id)
    return found
