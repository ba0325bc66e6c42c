"""A model chosen from a file, its parameters fixed, as a typed graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from archdsl.diagnostics import Note, Span, did_you_mean, listing
from archdsl.graph.nodes import Apply, Graph, Input
from archdsl.graph.ops import OPS
from archdsl.graph.signature import Mismatch, Param
from archdsl.graph.types import Type, Varying
from archdsl.semantics.binding import Bound, Callee, bind, signature
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.library import Scope
from archdsl.semantics.numbers import SQRT
from archdsl.semantics.report import Report
from archdsl.semantics.values import POISON, Env, Poison, Scalar, Symbol, Tensor, Value
from archdsl.syntax import ast

# How fresh weights are drawn: the rules, and the numbers that they take with their defaults.
INITS: dict[str, dict[str, float]] = {"normal": {"std": 0.02}, "xavier": {}}

Setting = int | float | bool | str


class ModelBuilder:
    """Walks one model's statements; `graph` is what they mean, if nothing is wrong."""

    def __init__(self, scope: Scope, model: ast.Model, report: Report):
        self.model = model
        self.report = report
        self.varying: dict[str, Varying] = {}
        self.work = Elaborator(report, self.varying)
        self.env = Env(scope, {"sqrt": SQRT})
        self.inputs: list[Input] = []
        self.labels: list[Input] = []
        self.outputs: list[tuple[str, str]] = []
        self.loss: Apply | None = None
        self.init = ("normal", tuple(INITS["normal"].items()))
        self.facts: list[ast.Expect | ast.ExpectType] = []

    def build(
        self, variant: ast.Variant | None, settings: Mapping[str, Setting]
    ) -> Graph | None:
        """The graph for a variant's arguments and for settings from outside."""
        self._parameters(variant, settings)
        for statement in self.model.body.statements:
            self._statement(statement)
        if not self.outputs and not self.report.diagnostics:
            self.report.add(
                "model",
                f"`{self.model.name.id}` has no output",
                self.model.name.span,
                expected="`output name: type = expression`",
            )
        if self.report.diagnostics:
            return None
        return Graph(
            self.model.name.id,
            tuple(self.varying.values()),
            tuple(self.inputs),
            tuple(self.work.building.nodes),
            tuple(self.outputs),
            tuple(self.labels),
            self.loss,
            self.init,
        )

    # -- parameters --

    def _parameters(self, variant: ast.Variant | None, settings: Mapping[str, Setting]) -> None:
        params = self.model.params.params
        names = [p.name.id for p in params]
        given = self._arguments(variant, names) if variant else {}
        for name in settings:
            if name not in names:
                self.report.add(
                    "unknown-argument",
                    f"`{self.model.name.id}` has no parameter `{name}`",
                    expected=listing(names),
                    found=f"`{name}`",
                    notes=(Note("the model is declared here", self.model.name.span),),
                    help=did_you_mean(name, names),
                )
        for param in params:
            name = param.name.id
            if name in self.env.names and name != "sqrt":
                self.report.add(
                    "duplicate-name", f"there are two parameters `{name}`", param.name.span
                )
            value = self._parameter(param, given, settings)
            if isinstance(value, Scalar):
                value = Scalar(value.value, name, param.name.span)
            self.env.names[name] = value

    def _parameter(
        self, param: ast.Param, given: dict[str, Value], settings: Mapping[str, Setting]
    ) -> Value:
        name = param.name.id
        if param.type is not None:
            self.report.add(
                "argument-value",
                "a model's parameters are numbers and choices",
                param.type.span,
                help="tensors come in by `input`",
            )
            return POISON
        default = self.work.value(param.default, self.env) if param.default else None
        if name in settings:
            return self._setting(param, settings[name], default)
        if name in given:
            return given[name]
        if default is None:
            self.report.add(
                "missing-argument",
                f"`{self.model.name.id}` needs `{name}`, which has no default",
                param.span,
                help=f"give it: `--set {name}=…`",
            )
            return POISON
        return default

    def _setting(
        self,
        param: ast.Param,
        setting: Setting,
        default: Value | None,
        span: Span | None = None,
    ) -> Value:
        """A value from outside, which must be of the default's kind."""
        name = param.name.id
        old = default.value if isinstance(default, Scalar) else None
        if isinstance(default, Symbol) and isinstance(setting, str):
            return Symbol(setting, param.name.span)
        whole = isinstance(setting, int) and not isinstance(setting, bool)
        fits = (
            default is None
            or (isinstance(old, bool) and isinstance(setting, bool))
            or (isinstance(old, int) and not isinstance(old, bool) and whole)
            or (isinstance(old, float) and (whole or isinstance(setting, float)))
            or (isinstance(old, str) and isinstance(setting, str))
        )
        if fits:
            return Scalar(setting)
        kinds = {
            bool: "`true` or `false`",
            int: "a whole number",
            float: "a number",
            str: "a string",
        }
        self.report.add(
            "argument-value",
            f"`{name}` of `{self.model.name.id}` cannot be {str(setting).lower()}",
            span,
            expected=kinds.get(type(old), "a name that chooses"),
            found=str(setting),
            notes=(Note("its default is here", param.span),),
        )
        return POISON

    def _arguments(self, variant: ast.Variant, names: list[str]) -> dict[str, Value]:
        callee = Callee(
            self.model.name.id,
            tuple(replace(p, default=None) for p in signature(self.model.params)),
            variant.call.span,
        )

        def evaluate(expr: ast.Expr | ast.Typed, param: Param | None) -> Value:
            return self.work.value(expr, self.env)

        slots = bind(callee, variant.call.args, None, evaluate, self.report) or {}
        given: dict[str, Value] = {}
        for name, (bound,) in slots.items():
            param = next(p for p in self.model.params.params if p.name.id == name)
            chooses = isinstance(bound.value, Symbol) and isinstance(param.default, ast.Name)
            given[name] = bound.value if chooses else self._given(param, bound)
        return given

    def _given(self, param: ast.Param, bound: Bound) -> Value:
        """A variant's argument, which must be of the default's kind as any setting."""
        assert bound.expr is not None
        value = self.work.known(bound.expr, self.env)
        if not isinstance(value, Scalar):
            return value
        default = self.work.value(param.default, self.env) if param.default else None
        return self._setting(param, value.value, default, bound.span)

    # -- statements --

    def _statement(self, statement: ast.Statement) -> None:
        match statement:
            case ast.Input():
                self._input(statement)
            case ast.Edge():
                self.work.blocks.edge(statement, self.env)
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
                    "this value has no name and no use",
                    statement.span,
                    help="write `name = …`, or `output name: type = …`",
                )

    def _input(self, node: ast.Input) -> None:
        name = node.name.id
        made = self._new_input(node.name, node.type, self.env.names)
        if made:
            self.inputs.append(made)
        self.env.names[name] = Tensor(name, made.type) if made else POISON

    def _new_input(
        self, name: ast.Name, node: ast.Type, taken: Mapping[str, Value]
    ) -> Input | None:
        if name.id in taken:
            self.report.add("duplicate-name", f"`{name.id}` is bound already", name.span)
            return None
        type = self.work.shapes.declared(node, self.env)
        if type is None:
            return None
        pad = None
        if node.pad:
            pad = self._pad(name.id, node, type)
            if pad is None:
                return None
        return Input(name.id, type, pad, name.span)

    def _pad(self, name: str, node: ast.Type, type: Type) -> int | None:
        assert node.pad is not None
        value = self.work.number(node.pad, self.env)
        if isinstance(value, Poison):
            return None
        vars = sorted(type.vars)
        if type.dtype != "int" or len(type.axes) != 1 or len(vars) != 1:
            self.report.add(
                "type-mismatch",
                "padding fills up a sequence of tokens",
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
                "padding is one of the values that the input may have",
                node.pad.span,
                expected=f"0 <= pad < {type.below}",
                found=value.text,
            )
            return None
        (axis,) = vars
        if self.varying[axis].ragged is None:
            self.varying[axis] = replace(self.varying[axis], ragged=name)
        return int(pad)

    def _output(self, node: ast.Output) -> None:
        value = self.work.tensor(node.value, self.env)
        if node.name.id in self.env.names:
            self.report.add(
                "duplicate-name", f"`{node.name.id}` is bound already", node.name.span
            )
        self.env.names[node.name.id] = value
        if isinstance(value, Poison):
            return
        what = f"the output `{node.name.id}`"
        if self.work.shapes.agrees(value.type, node.type, self.env, what):
            self.outputs.append((node.name.id, value.ref))

    def _loss(self, node: ast.Loss) -> None:
        name = node.call.callee
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
            return
        if self.loss is not None:
            self.report.add("duplicate-name", "a model has one loss", node.span)
            return

        def evaluate(expr: ast.Expr | ast.Typed, param: Param | None) -> Value:
            if not isinstance(expr, ast.Typed):
                return self.work.value(expr, self.env)
            label = self._new_input(expr.name, expr.type, self.env.names)
            if label is None:
                return POISON
            self.labels.append(label)
            return Tensor(label.name, label.type)

        slots = bind(
            Callee(op.name, op.params, node.call.span),
            node.call.args,
            None,
            evaluate,
            self.report,
        )
        if slots is None:
            return
        made = self.work.operators.site(op, slots, self.env, node.call.span)
        if isinstance(made, Poison):
            return
        site, refs = made
        try:
            type = op.infer(site)
        except Mismatch as mismatch:
            self.work.operators.mismatch(mismatch, op, slots, node.call.span)
            return
        id = self.work.building.fresh()
        self.loss = Apply(id, op.name, refs, tuple(site.attr.items()), "", type, node.call.span)

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
                f"there is no rule of initialisation `{name.id}`",
                name.span,
                expected=listing(INITS),
                help=did_you_mean(name.id, INITS),
            )
            return
        settings = dict(numbers)
        for arg, free in zip(args, [*numbers, *[""] * len(args)], strict=False):
            key = arg.name.id if arg.name else free
            value = self.work.number(arg.value, self.env)  # type: ignore[arg-type]
            if isinstance(value, Poison):
                return
            if key not in numbers or isinstance(value.value, bool | str) or value.value <= 0:
                self.report.add(
                    "argument-value",
                    f"`{name.id}` takes {listing(numbers, 'and') or 'no number'}, above 0",
                    arg.span,
                    help=did_you_mean(key, numbers),
                )
                return
            settings[key] = float(value.value)
        self.init = (name.id, tuple(settings.items()))
