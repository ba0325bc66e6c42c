"""A fuzzer: mutated specs must be answered by diagnostics, whatever they say.

    python -m tests.fuzz --count 100000 --seed 0

Each mutant is made from its own seed, so that `--start I --count 1` makes mutant I again.
One that ends in an exception, takes half a minute or comes back from the printer as
another tree is a failure: it is made small and printed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

from archdsl.analysis import check
from archdsl.diagnostics import ArchError
from archdsl.syntax import ast
from archdsl.syntax.parser import parse
from archdsl.syntax.printer import format
from archdsl.syntax.traversal import walk

ROOT = Path(__file__).parents[1]
SECONDS = 30

TOKEN = re.compile(r'"[^"\n]*"|#[^\n]*|[A-Za-z_]\w*|[0-9][\w.]*|\s+|->|[=<>]=|//|.')
KINDS = (r"[A-Za-z_]", r"[0-9]", r"[-+*/<=>:,]", r"[(){}\[\]]")
NUMBERS = ["0", "1", "2", "3", "7", "-1", "0.5", "1e-400", "1e30", "1e300", "1_000_000_000_000"]
NUMBERS += ["1" + "0" * 29, "9" * 31, "9" * 5000, "(1 / 3)", "(2 - 2)", "007", "2.0"]
WORDS = ["x", "T", "D", "block", "causal", "float", "sqrt", "params", "self", "model", "pad"]
WORDS += [
    "weight",
    "state",
    "along",
    "tied",
    "as",
    "i",
    "mask",
    "within",
    "not",
    "include",
    "where",
    "...",
]
NOISE = "\0\t\n\r \"#'()*+,-./0:;<=>@[\\]^_`{|}~éα→\u00a0\u200b\u2028\ufeff\ud800\U0001d538"

FIXED = ast.Int | ast.Float | ast.Bool | ast.Negate | ast.Binary | ast.Labeled | ast.Chain
# What stands in the place of these may be any of those; all else gives way to its own class.
FITTING: tuple[tuple[Any, Any], ...] = (
    (FIXED | ast.Lambda, ast.Expr),
    (ast.Expect | ast.ExpectType, ast.Expect | ast.ExpectType),
    (ast.Statement, ast.Statement),
    (ast.Item, ast.Item),
)

SHORT = 500  # characters of a text that is taken twice as often as one of three times as many
Tokens = list[str]
Mutation = Callable[[random.Random, Tokens, Tokens], Tokens]


@dataclass(frozen=True)
class Failure:
    """A mutant that was not answered: its number, its text, and what came instead."""

    number: int
    text: str
    error: str


@dataclass(frozen=True)
class Corpus:
    """The trees that mutants are made of, and how often each is taken."""

    trees: list[ast.File]
    weights: list[float]

    def pick(self, rng: random.Random) -> ast.File:
        (found,) = rng.choices(self.trees, self.weights)
        return found


def corpus() -> Corpus:
    """The specs, the reference's examples and the tests' cases.

    Long ones are taken less often: they take most of the time, and short ones have the whole
    language too.
    """
    files = [*(ROOT / "specs").rglob("*.arch"), *(ROOT / "tests" / "cases").rglob("*.arch")]
    texts = [path.read_text(encoding="utf-8") for path in sorted(files)]
    reference = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    texts += re.findall(r"^```arch\n(.*?)^```", reference, re.DOTALL | re.MULTILINE)
    found = Corpus([], [])
    for text in texts:
        with suppress(ArchError):  # some cases are there for their grammar's mistakes
            found.trees.append(parse(text))
            found.weights.append(1 / (len(text) + SHORT))
    return found


# -- mutations of a text's tokens; the second list is another text's --


def _some(rng: random.Random, tokens: Tokens, most: int = 12) -> tuple[int, int]:
    start = rng.randrange(len(tokens) + 1)
    return start, min(len(tokens), start + rng.randint(1, most))


def delete(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    a, b = _some(rng, tokens, 4)
    return tokens[:a] + tokens[b:]


def duplicate(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    a, b = _some(rng, tokens)
    times = rng.choice([1, 1, 1, 2, 3, 200])
    return tokens[:b] + tokens[a:b] * times + tokens[b:]


def move(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    a, b = _some(rng, tokens)
    rest = tokens[:a] + tokens[b:]
    to = rng.randrange(len(rest) + 1)
    return rest[:to] + tokens[a:b] + rest[to:]


def borrow(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    a, b = _some(rng, other)
    to = rng.randrange(len(tokens) + 1)
    return tokens[:to] + other[a:b] + tokens[to:]


def exchange(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    """A token for another of its kind, so that the text often stays a spec."""
    kind = re.compile(rng.choice(KINDS))
    places = [i for i, token in enumerate(tokens) if kind.match(token)]
    choices = [token for token in tokens + other if kind.match(token)]
    if not places:
        return tokens
    i = rng.choice(places)
    return [*tokens[:i], rng.choice(choices), *tokens[i + 1 :]]


def number(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    places = [i for i, token in enumerate(tokens) if token[0].isdigit()]
    i = rng.choice(places or range(len(tokens)))
    return [*tokens[:i], rng.choice(NUMBERS), *tokens[i + 1 :]]


def rename(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    names = sorted({token for token in tokens if token[0].isalpha()})
    old = rng.choice(names or ["x"])
    new = rng.choice(names + WORDS)
    return [new if token == old else token for token in tokens]


def line(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    """A whole line left out, doubled, or put elsewhere."""
    lines = "".join(tokens).split("\n")
    one = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), one)
    return TOKEN.findall("\n".join(lines))


def splice(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    """The head of one text and the tail of another."""
    return tokens[: rng.randrange(len(tokens) + 1)] + other[rng.randrange(len(other) + 1) :]


def noise(rng: random.Random, tokens: Tokens, other: Tokens) -> Tokens:
    text = "".join(tokens)
    at = rng.randrange(len(text) + 1)
    return TOKEN.findall(text[:at] + rng.choice(NOISE) + text[at + rng.randrange(2) :])


# How often each is taken: many mutants should still be specs.
MUTATIONS: dict[Mutation, int] = {
    exchange: 3,
    number: 3,
    rename: 2,
    line: 2,
    delete: 1,
    duplicate: 1,
    move: 1,
    borrow: 1,
    splice: 1,
    noise: 1,
}

# -- mutations of a tree, after which the grammar still holds --


def graft(rng: random.Random, tree: ast.File, donor: ast.File) -> ast.File:
    """A part of a tree for another that fits there."""
    own = list(walk(tree))[1:] or [tree]
    old = rng.choice(own)
    fitting = next((may for is_, may in FITTING if isinstance(old, is_)), type(old))
    choices = [node for node in [*own, *walk(donor)] if isinstance(node, fitting)]
    grafted: ast.File = _grafted(tree, old, rng.choice(choices))
    return grafted


def _grafted(node: Any, old: Any, new: Any) -> Any:
    if node is old:
        return new
    if isinstance(node, tuple):
        return tuple(_grafted(each, old, new) for each in node)
    if not hasattr(node, "span"):
        return node
    return replace(
        node, **{f.name: _grafted(getattr(node, f.name), old, new) for f in fields(node)}
    )


def mutant(seed: int, number: int, texts: Corpus) -> str:
    """The mutant of a seed and a number."""
    rng = random.Random(f"{seed} {number}")
    tree, other = texts.pick(rng), texts.pick(rng)
    for _ in range(rng.choice([0, 1, 2, 3, 5])):
        tree = graft(rng, tree, other)
    tokens, borrowed = TOKEN.findall(format(tree)), TOKEN.findall(format(other))
    for mutate in rng.choices([*MUTATIONS], [*MUTATIONS.values()], k=rng.choice([0, 1, 1, 2])):
        tokens = mutate(rng, tokens, borrowed) or ["x"]
    return "".join(tokens)


# -- what must hold --


def complaint(text: str, seconds: int = SECONDS) -> str | None:
    """What is wrong with how a text is answered, or None: a traceback, or a word."""
    try:
        with _limit(seconds):
            try:
                file = parse(text)
            except ArchError as error:
                found = list(error.diagnostics)
            else:
                if parse(format(file)) != file:
                    return "the printed text parses to another tree"
                found = check(file)
            for each in found:
                each.render()
                each.as_dict()
    except Exception:
        return traceback.format_exc()
    return None


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """Ends what takes too long by a TimeoutError."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def minimal(text: str, error: str) -> str:
    """A smaller text that fails in the same way."""

    def fails(tokens: Tokens) -> bool:
        return _way(complaint("".join(tokens), SECONDS // 10)) == _way(error)

    tokens = TOKEN.findall(text)
    size = len(tokens) // 2
    while size:
        for start in range(len(tokens) - size, -1, -size):
            less = tokens[:start] + tokens[start + size :]
            if fails(less):
                tokens = less
        size //= 2
    return "".join(tokens)


def _way(error: str | None) -> str | None:
    """The kind of an error and the last place of ours that it went through."""
    if error is None or "File" not in error:
        return error
    frames = re.findall(r'archdsl/(\w+/\w+\.py)", line (\d+)', error)
    kind = error.strip().splitlines()[-1].partition(":")[0]
    return kind if "Recursion" in kind or "Timeout" in kind else f"{kind} {frames[-1:]}"


def failures(count: int, seed: int, start: int = 0) -> Iterator[Failure]:
    """The mutants, of so many, that were not answered; each way of failing once."""
    texts = corpus()
    ways = set()
    for number in range(start, start + count):
        text = mutant(seed, number, texts)
        error = complaint(text)
        if error is not None and _way(error) not in ways:
            ways.add(_way(error))
            yield Failure(number, minimal(text, error), error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="the number of the first mutant")
    args = parser.parse_args()
    found = 0
    for failure in failures(args.count, args.seed, args.start):
        found += 1
        again = f"--seed {args.seed} --start {failure.number} --count 1"
        sys.stdout.write(f"== {again}\n{failure.text!a}\n-- {failure.error}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{args.count} mutants of seed {args.seed}: {found} ways of failing\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
