"""Checks of a single rule of a `weights` block, which need no weights."""

from __future__ import annotations

from archdsl.diagnostics import did_you_mean, listing
from archdsl.published.conversions import CONVERSIONS, JOINED
from archdsl.published.paths import (
    expressions,
    holes,
    is_computed,
    is_linear,
    parts,
    paths_of,
    stacked_hole,
)
from archdsl.semantics.report import Report
from archdsl.syntax import ast


class RuleChecks:
    def __init__(self, report: Report):
        self.report = report

    def report_error(self, message: str, at: ast.Node, **more: object) -> None:
        self.report.add("weights-map", message, at.span, **more)

    def is_valid(self, rule: ast.Rule) -> bool:
        """Checks that both sides of a rule have the same holes and that conversions exist."""
        fits = True
        for path in rule.theirs:
            ours, theirs = holes(rule.ours), holes(path)
            if stacked := stacked_hole(rule):
                ours.remove(f"{{{stacked}}}")
            if expressions(path):  # `{i // 6}.{i % 6}` has one hole
                theirs = list(dict.fromkeys(theirs))
            if sorted(ours) != sorted(theirs) or len(set(ours)) < len(ours):
                self.report_error(
                    "both sides of a rule must have the same `{…}` and `*`, each once",
                    rule,
                    expected=listing(ours, "and") or "none",
                    found=listing(theirs, "and") or "none",
                )
                fits = False
        unknown = [each for each in rule.conversions if not self.is_known(each)]
        fits = fits and self.has_valid_numbers(rule)
        return not unknown and fits and self.has_valid_parts(rule)

    def has_valid_numbers(self, rule: ast.Rule) -> bool:
        """Checks the expressions of a rule: those on the left are solved for their names."""
        for path in paths_of(rule):
            for each in expressions(path):
                try:
                    fits = is_linear(each) if path is rule.ours else is_computed(each)
                except ZeroDivisionError:
                    fits = False
                if not fits:
                    expected = "a number times a name plus a number, such as `{2 * i + 1}`"
                    message = f"`{{{each}}}` does not give a number for each layer"
                    self.report_error(message, path, expected=expected)
                    return False
        return True

    def is_known(self, node: ast.Conversion) -> bool:
        """Checks that a conversion exists and has the right number of arguments."""
        name, count = node.name.id, len(node.args)
        if name not in CONVERSIONS:
            help = did_you_mean(name, CONVERSIONS)
            message = f"unknown conversion `{name}`"
            self.report_error(message, node.name, expected=listing(CONVERSIONS), help=help)
            return False
        row = CONVERSIONS[name]
        if not count if row.numbers is None else count not in row.numbers:
            wanted = name + row.written
            self.report_error(f"`{name}` needs other arguments", node, expected=wanted)
            return False
        return True

    def has_valid_parts(self, rule: ast.Rule) -> bool:
        """Checks that a single list is used with `split` on the left, or on the right with a
        conversion that joins them."""
        names = [c.name.id for c in rule.conversions]
        if "stacked" in names and stacked_hole(rule) is None:
            self.report_error(
                "`stacked` needs one `{…}` on the left that the right does not have",
                rule,
                expected="ours.{i}.{j}.weight = theirs.{i}.weight -> stacked",
            )
            return False
        ours, *theirs = (len(parts(path.text)) for path in (rule.ours, *rule.theirs))
        if bool(ours) == ("split" in names) and all(
            bool(each) == any(name in JOINED for name in names) for each in theirs
        ):
            return True
        self.report_error(
            "a list of names does not fit the rule",
            rule,
            expected="lists of equal length on both sides, or one on the left with `split`, or "
            "one on the right with `concat` or `weight_norm`",
            found=f"lists of {' and '.join(map(str, (ours, *theirs)))} names",
        )
        return False
