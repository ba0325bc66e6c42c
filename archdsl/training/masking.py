"""Masked tokens, which an encoder learns to restore (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.cache import key_of
from archdsl.diagnostics import fail, listing
from archdsl.frozen import Frozen
from archdsl.graph.nodes import Graph, Input
from archdsl.text.tokenizer import TextTokenizer
from archdsl.training.text_data import TextWindows

MASK = "<mask>"  # the name of the mask token in a new vocabulary
SHARE = 0.15  # of the tokens that are no special tokens
HIDDEN, REPLACED = 0.8, 0.1  # of the chosen tokens; the others stay as they are


class MaskedNames(Frozen):
    """The input and the two labels of a model that restores masked tokens.

    `tokens` and `targets` are int[T] < vocab, `masked` is bool[T].
    """

    tokens: Input
    targets: str
    masked: str


class MaskedTokens(Frozen):
    """Texts as the model gets them, the tokens that were there, and which of them count."""

    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    masked: NDArray[np.bool_]


def masked_names(graph: Graph) -> MaskedNames | None:
    """The names of a graph with the loss `cross_entropy(logits, targets: int[T] < vocab, where
    = masked: bool[T])` and one input of such tokens; None for any other graph."""
    loss, labels = graph.objective("cross_entropy"), {each.name: each for each in graph.labels}
    if loss is None:
        return None
    given = dict(loss.inputs)
    targets, masked = (labels.get(str(given.get(name))) for name in ("label", "where"))
    if targets is None or masked is None or len(labels) != 2:
        return None
    alike = [
        each
        for each in graph.required
        if each.type.dtype == "int"
        and [axis.size for axis in each.type.axes] == [axis.size for axis in targets.type.axes]
        and each.type.below == targets.type.below
    ]
    if len(graph.required) != 1 or len(alike) != 1 or len(targets.type.axes) != 1:
        return None
    return MaskedNames(alike[0], targets.name, masked.name)


def mask_tokens(
    tokens: NDArray[np.integer],
    seeds: Sequence[Sequence[int]],
    *,
    mask: int,
    below: int,
    special: Collection[int] = (),
    share: float = SHARE,
) -> MaskedTokens:
    """Chooses a `share` of the tokens [B, T] of each row, at least one. Of these, 80 % become
    `mask`, 10 % another token, and 10 % stay.

    - `seeds`: numbers for each row, such as the seed of the run and the number of the example.
      The same numbers always give the same tokens.
    - `special`: tokens that are never chosen, and that replace none, such as padding.
    - `below`: the number of tokens of the vocabulary.

    Raises `ArchError` ("argument-value") if `share` is not between 0 and 1, or if no token is
    left to replace others.
    """
    if not 0 < share <= 1:
        fail("argument-value", "a share of the tokens is masked", expected="0 < share <= 1")
    usual = np.setdiff1d(np.arange(below), [*special, mask])  # [n]
    if not len(usual):
        fail("argument-value", "all tokens are special: none can replace a token")
    found, counted = tokens.astype(np.int32), np.zeros(tokens.shape, np.bool_)
    for row, (numbers, seed) in enumerate(zip(tokens, seeds, strict=True)):
        places = np.flatnonzero(np.isin(numbers, usual))  # [m]
        if not len(places):
            continue
        random = np.random.default_rng(seed)
        chosen = random.permutation(places)[: max(1, round(share * len(places)))]  # [k]
        fate = random.random(len(chosen))  # [k]
        others = random.choice(usual, len(chosen))  # [k]
        kept = np.where(fate < HIDDEN + REPLACED, others, numbers[chosen])  # [k]
        found[row, chosen] = np.where(fate < HIDDEN, mask, kept)
        counted[row, chosen] = True
    return MaskedTokens(found, tokens.astype(np.int32), counted)


class MaskedText:
    """Windows of text whose tokens are masked. A window is masked alike each time; the next one
    begins one token later, and is masked otherwise."""

    def __init__(
        self, windows: TextWindows, names: MaskedNames, tokenizer: TextTokenizer, seed: int
    ):
        self._windows, self._names, self._seed = windows, names, seed
        special = tokenizer.special()
        self._mask = find_mask(tokenizer)
        self._special = [*special, *tokenizer.without_token(tokenizer.vocabulary)]
        if names.tokens.pad is not None:
            self._special.append(names.tokens.pad)
        self._below = tokenizer.vocabulary
        self.fingerprint = key_of("masked", windows.fingerprint, seed, self._mask, SHARE)

    def __len__(self) -> int:
        return len(self._windows)

    def batch(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Windows by their numbers: the tokens and the targets int32, [B, length], and which of
        them count."""
        tokens = self._windows.batch(numbers)[self._names.tokens.name]
        found = mask_tokens(
            tokens,
            [(self._seed, int(number)) for number in numbers],
            mask=self._mask,
            below=self._below,
            special=self._special,
        )
        return {
            self._names.tokens.name: found.tokens,
            self._names.targets: found.targets,
            self._names.masked: found.masked,
        }

    def describe(self) -> str:
        return f"{self._windows.describe()}, {SHARE:.0%} of them masked"


def find_mask(tokenizer: TextTokenizer) -> int:
    """The number of the mask token, the only special one with `mask` in its name; raises
    `ArchError` "tokenizer" without one."""
    found = {
        number: name for number, name in tokenizer.special().items() if "mask" in name.lower()
    }
    if len(found) != 1:
        fail(
            "tokenizer",
            f"`{tokenizer.origin}` has {len(found) or 'no'} mask tokens",
            expected="one special token such as `[MASK]`",
            found=listing(list(found.values()), "and") if found else None,
            help="use the tokenizer of a masked language model, or let one be built",
        )
    return next(iter(found))
