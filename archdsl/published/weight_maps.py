"""`weights` blocks: a one-to-one map between a model's weights and a checkpoint's tensors.

A rule pairs two paths. `{i}` matches one part of a path and `*` the rest; both sides have the
same ones. `{q,k,v}` on both sides is one rule for each name. With `split` or `concat` it names
the weights that are parts of one tensor on the other side, and so does a `{j}` that is only on
the left, with `stacked`. Each weight of the model must match exactly one rule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from archdsl.diagnostics import Note, did_you_mean, listing
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph
from archdsl.graph.sites import Parameter, count_parameters, parameters
from archdsl.published.config_values import tensors_read
from archdsl.published.conversions import (
    CONVERSIONS,
    JOINED,
    Conversion,
    ConversionError,
    Shapes,
)
from archdsl.published.paths import (
    expressions,
    fill,
    matcher,
    pairs,
    parts,
    paths_of,
    pattern,
    rule_with_numbers,
    stacked_hole,
    templates,
)
from archdsl.published.renames import apply_renames
from archdsl.published.rule_checks import RuleChecks
from archdsl.semantics.elaborate import Elaborator
from archdsl.semantics.report import Report
from archdsl.semantics.values import Env, Scalar
from archdsl.syntax import ast

_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")  # a whole part of a path, such as a layer's
_JOINED = re.compile(
    r"[0-9}*][{*]|[}*][0-9]"
)  # a part such as `1{i}`, which matches many numbers
_SHOWN = 5
_MOST = 100_000  # so that a stack of 10**12 layers does not take forever


class Pairing(Frozen):
    """Weights of the model, `ours`, and the tensors of a checkpoint that they come from.

    `theirs` are alternative names of the tensors; the first is written on export. `shapes` are
    those of the checkpoint's tensors.
    """

    ours: tuple[str, ...]
    theirs: tuple[tuple[str, ...], ...]
    conversions: tuple[Conversion, ...]
    shapes: Shapes


class WeightMap(Frozen):
    """A weight map, with `pairings` in the order of the model's weights.

    `ignored` are patterns of other tensors that a checkpoint may have; `optional` are prefixes
    that its names may lack.
    """

    title: str
    pairings: tuple[Pairing, ...]
    ignored: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    config: ast.Config | None = None

    def ignores(self, name: str) -> bool:
        names = [name, *(prefix + name for prefix in self.optional)]
        return any(re.fullmatch(pattern, n) for pattern in self.ignored for n in names)


def weight_maps(
    file: ast.File,
    model: ast.Model,
    graph: Graph,
    work: Elaborator,
    env: Env,
    whole: bool = True,
    absent: Collection[str] | None = (),
    optional: Collection[str] = (),
) -> dict[str, WeightMap]:
    """Builds the weight maps of a file for a model with the parameters of `env`.

    Raises `ArchError` if a map is not one to one. The first layers of each stack are enough to
    check this, up to one that no rule names by its number. With `whole`, the maps contain all
    layers. `absent` are the weights of parts that the model lacks because of a condition; rules
    for them have no effect. If it is None, any rule may match nothing. `optional` are the nodes
    that only parts with a condition need; a map without rules for their weights is left out.
    """
    report = Report()
    blocks = [
        _MapBuilder(item, work, env, report)
        for item in file.items
        if isinstance(item, ast.Weights) and item.model.id == model.name.id
    ]
    most = None if whole else 2 + max((block.named for block in blocks), default=0)
    known = list(islice(parameters(graph, most), _MOST + 1))
    amount = count_parameters(graph)
    maps: dict[str, WeightMap] = {}
    for block in blocks:
        title = block.node.title
        if title.value in maps:
            message = f"there are two weight maps {title.value!r}"
            report.add("duplicate-name", message, title.span)
        found = block.of(known, amount, absent, optional)
        if found:
            maps[title.value] = found
    if report.mistakes and not whole:
        # Its message counts all weights.
        return weight_maps(file, model, graph, work, env, True, absent, optional)
    report.raise_any()
    return maps


def check_rules(file: ast.File, model: ast.Model, work: Elaborator, env: Env) -> None:
    """Checks each rule without the weights of the model, which has a mistake.

    Raises `ArchError`.
    """
    report = Report()
    for item in file.items:
        if isinstance(item, ast.Weights) and item.model.id == model.name.id:
            block = _MapBuilder(item, work, env, report)
            for line in block.lines:
                if isinstance(line, ast.Rule):
                    block.is_valid(line)
    report.raise_any()


def check_owners(file: ast.File, report: Report) -> None:
    """Reports `weights` blocks for a model that is not in the file."""
    models = [item.name.id for item in file.items if isinstance(item, ast.Model)]
    for item in file.items:
        if isinstance(item, ast.Weights) and item.model.id not in models:
            report.add(
                "unknown-name",
                f"there is no model `{item.model.id}` in this file",
                item.model.span,
                help=did_you_mean(item.model.id, models),
            )


def active_lines(
    rules: Iterable[ast.Line], work: Elaborator, env: Env
) -> Iterator[ast.Config | ast.Optional | ast.Rename | ast.Rule | ast.Ignore | ast.Setting]:
    """The lines of a block whose conditions hold for these parameters."""
    for rule in rules:
        if isinstance(rule, ast.Include):
            continue  # includes.py has replaced it, or reported a mistake
        if not isinstance(rule, ast.Only):
            yield rule
        elif work.conditions.holds(rule.condition, env) is True:
            yield from active_lines(rule.rules, work, env)


@dataclass
class _Match:
    """A rule with the values of its holes and the matched weights, by part name."""

    rule: ast.Rule
    holes: dict[str, str]
    weights: dict[str, Parameter]


class _MapBuilder:
    """Builds the map of one `weights` block."""

    def __init__(self, node: ast.Weights, work: Elaborator, env: Env, report: Report):
        self.node, self.work, self.env, self.report = node, work, env, report
        self.checks = RuleChecks(report)
        before = work.report.mistakes
        lines = [
            each
            for line in active_lines(node.rules, work, env)
            for each in (pairs(line) if isinstance(line, ast.Rule) else (line,))
        ]
        numbers = {
            name: value.value
            for name, value in env.names.items()
            if isinstance(value, Scalar) and type(value.value) is int
        }
        lines = [
            rule_with_numbers(line, numbers) if isinstance(line, ast.Rule) else line
            for line in lines
        ]
        self.lines = list(apply_renames(lines, report))
        self.converted: dict[int, tuple[Conversion, ...]] = {}
        self.whole = work.report.mistakes == before

    @property
    def named(self) -> int:
        """The highest layer number that a rule names, as in `h.0.norm.*`."""
        rules = [line for line in self.lines if isinstance(line, ast.Rule)]
        paths = [path.text for rule in rules for path in paths_of(rule)]
        if any(_JOINED.search(path) for path in paths):
            return _MOST
        named = [int(n) for path in paths for n in _NUMBER.findall(path)]
        computed = (e for rule in rules for path in paths_of(rule) for e in expressions(path))
        named += [sum(map(int, re.findall(r"\b\d+", each))) for each in computed]
        return max(named, default=0)

    def of(
        self,
        known: list[Parameter],
        amount: int,
        absent: Collection[str] | None,
        optional: Collection[str],
    ) -> WeightMap | None:
        """Builds the map for known weights of the model, of `amount` in total.

        Returns None if it has no rules for the weights of optional parts.
        """
        title = self.node.title
        configs = [line for line in self.lines if isinstance(line, ast.Config)]
        for second in configs[1:]:
            self.report_error("a `weights` block can have only one `config`", second)
        if amount > _MOST:
            self.report_error(
                f"the model has more than {_MOST:,} weights, too many for a map", title
            )
            return WeightMap(title.value, ())
        rules = [r for r in self.lines if isinstance(r, ast.Rule) and self.is_valid(r)]
        found, unnamed = self.match_rules(rules, known)
        if unnamed and all(weight.node in optional for weight in unnamed):
            return None
        self.report_unnamed(rules, known, [weight.path for weight in unnamed])
        if absent is not None:
            self.report_unused(rules, found, [p.path for p in known], absent)
        pairings = [self.pairing(each) for each in found]
        self.report_duplicates(pairings)
        for line in self.lines:
            if isinstance(line, ast.Ignore) and expressions(line.theirs):
                message = "an `ignore` cannot compute numbers"
                self.report_error(message, line.theirs, help="write `{i}`")
        ignored = [pattern(r.theirs.text) for r in self.lines if isinstance(r, ast.Ignore)]
        fields = [each for c in configs for each in active_lines(c.rules, self.work, self.env)]
        ignored += map(re.escape, tensors_read(fields, self.work, self.env))
        prefixes = (r.prefix.text for r in self.lines if isinstance(r, ast.Optional))
        config = configs[0] if configs else None
        plain = tuple(pairing for pairing, _ in pairings)
        return WeightMap(title.value, plain, tuple(ignored), tuple(prefixes), config)

    def is_own(self, rule: ast.Rule) -> bool:
        """Whether a rule is in the block itself, and not in lines that it includes."""
        return self.node.span.covers(rule.span)

    def is_valid(self, rule: ast.Rule) -> bool:
        return self.checks.is_valid(rule)

    def report_error(self, message: str, at: ast.Node, **more: object) -> None:
        self.report.add("weights-map", message, at.span, **more)

    # -- matching rules with weights --

    def match_rules(
        self, rules: list[ast.Rule], known: list[Parameter]
    ) -> tuple[list[_Match], list[Parameter]]:
        """Matches rules with weights; one match has all parts of a rule.

        Returns the matches, and the weights without a rule.
        """
        patterns = [(rule, matcher(rule.ours.text)) for rule in rules]
        found: dict[object, _Match] = {}
        unnamed = []
        for weight in known:
            path = weight.path
            matches = [(rule, m) for rule, ours in patterns if (m := ours(path)) is not None]
            # A rule of the block replaces an included one.
            if any(self.is_own(rule) for rule, _ in matches):
                matches = [each for each in matches if self.is_own(each[0])]
            for other, _ in matches[1:]:
                notes = (Note("the other is here", matches[0][0].ours.span),)
                self.report_error(f"two rules match `{path}`", other.ours, notes=notes)
            if not matches:
                unnamed.append(weight)
                continue
            rule, values = matches[0]
            part = values.pop("_part", "")
            if stacked := stacked_hole(rule):
                part = f"{values.pop(stacked)}.{part}"
            key = (id(rule), *values.values())
            if key not in found:
                found[key] = _Match(rule, values, {})
            found[key].weights[part] = weight
        return list(found.values()), unnamed

    def report_unnamed(
        self, rules: list[ast.Rule], known: list[Parameter], unnamed: list[str]
    ) -> None:
        """Reports weights without a rule."""
        if (
            unnamed
            and self.whole
            and len(rules) == sum(isinstance(r, ast.Rule) for r in self.lines)
        ):
            more = f" and {len(unnamed) - _SHOWN} more" if len(unnamed) > _SHOWN else ""
            self.report_error(
                f"this map has no rule for {len(unnamed)} of the model's {len(known)} weights",
                self.node.title,
                found=", ".join(unnamed[:_SHOWN]) + more,
                help=f"add a rule such as `{unnamed[0]} = …`",
            )

    def report_unused(
        self,
        rules: list[ast.Rule],
        found: list[_Match],
        paths: list[str],
        absent: Collection[str],
    ) -> None:
        used = {id(each.rule) for each in found}
        for rule in rules:
            ours = matcher(rule.ours.text)
            unknown = id(rule) not in used and all(ours(path) is None for path in absent)
            if unknown and self.is_own(rule):
                near = did_you_mean(rule.ours.text, templates(paths))
                self.report_error(
                    f"no weight of the model matches `{rule.ours.text}`", rule.ours, help=near
                )

    def pairing(self, found: _Match) -> tuple[Pairing, ast.Rule]:
        rule = found.rule
        names = parts(rule.ours.text) or ("",)
        if stacked_hole(rule):
            count = len(found.weights) // len(names)
            names = tuple(f"{i}.{name}" for i in range(count) for name in names)
        missing = [name for name in names if name not in found.weights]
        if missing:
            near = next(iter(found.weights.values())).path
            self.report_error(
                f"the model has `{near}`, but no {listing(missing)} with the same prefix",
                rule.ours,
            )
            return Pairing((), (), (), ()), rule
        weights = [found.weights[name] for name in names]
        theirs = tuple([fill(path.text, found.holes) for path in rule.theirs])
        conversions = self.conversions(rule)
        shapes: Shapes = tuple([w.weight.shape for w in weights])
        try:
            for each in reversed(conversions):
                shapes = each.before(shapes, len(theirs[0]))
        except ConversionError as unfit:
            self.report_error(f"`{weights[0].path}`: {unfit}", rule)
        return Pairing(tuple([w.path for w in weights]), theirs, conversions, shapes), rule

    def conversions(self, rule: ast.Rule) -> tuple[Conversion, ...]:
        """The conversions of a rule, evaluated once for all layers."""
        if id(rule) not in self.converted:
            found = [self.conversion(each, rule) for each in rule.conversions]
            self.converted[id(rule)] = tuple(each for each in found if each is not None)
        return self.converted[id(rule)]

    def conversion(self, node: ast.Conversion, rule: ast.Rule) -> Conversion | None:
        numbers: list[int | float] = []
        for arg in node.args:
            value = (
                self.number(arg)
                if CONVERSIONS[node.name.id].calculates
                else self.work.shapes.positive(arg, self.env, "a size")
            )
            if value is None:
                self.report.extend(self.work.report.diagnostics)
                return None
            numbers.append(value)
        named = {"split": rule.ours} | dict.fromkeys(JOINED, rule.theirs[0])
        listed = named.get(node.name.id)
        return Conversion(
            node.name.id, tuple(numbers), len(parts(listed.text)) if listed else 0
        )

    def number(self, arg: ast.Expr) -> int | float | None:
        value = self.work.number(arg, self.env)
        return value.value if isinstance(value, Scalar) else None  # type: ignore[return-value]

    def report_duplicates(self, pairings: list[tuple[Pairing, ast.Rule]]) -> None:
        """Reports tensors of the checkpoint that would become two weights."""
        by: dict[str, ast.Rule] = {}
        for pairing, rule in pairings:
            for name in {name for names in pairing.theirs for name in names}:
                if name in by:
                    self.report_error(
                        f"`{name}` would become two weights of the model",
                        rule.theirs[0],
                        notes=(Note("this rule uses it too", by[name].theirs[0].span),),
                        help="write `{i}` for the part of the path that differs between layers",
                    )
                by[name] = rule
