"""The settings of a training run: the names of the command's options, of a TOML file, and of
`model.fit`.

`ROWS` is the one table of their meaning, types and ranges. The command's help, the checks and
the messages come from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any, ClassVar

from archdsl.diagnostics import did_you_mean, fail, listing
from archdsl.execution.arguments import is_number
from archdsl.frozen import Frozen

OPTIMIZERS = ("adamw", "sgd", "muon", "lamb")
SCHEDULES = ("cosine", "linear", "constant", "wsd", "inverse_sqrt")
LONGEST_WARMUP = 100  # steps, if the settings do not say


class Settings(Frozen):
    """What a run does. A step is one update of the weights.

    | about | settings |
    | --- | --- |
    | length of the run | `steps` |
    | batch | `batch` examples, `accumulate` of such batches per step, `length` positions |
    | | `pack`: several short texts in a window, with no attention across them |
    | | `by_length`: examples of about equal length in a batch, which then has little padding |
    | optimizer | `optimizer`, `weight_decay`, `beta1`, `beta2`, `epsilon`, `momentum`, `clip` |
    | learning rate | `learning_rate`, `schedule`, `last_rate` as a share of the highest |
    | | `warmup` steps (a tenth of the run, at most 100), `decay_share` of the steps for wsd |
    | average of the weights | `ema`, its decay |
    | fine-tuning | `freeze`, patterns of paths (see `graph.path_patterns`) |
    | | `lora_rank`, `lora_alpha`, `lora_targets`, patterns of paths |
    | memory | `recompute`: activations of layers are computed twice and not stored |
    | random numbers | `seed`, for the order of the data and for dropout |
    | evaluation | `eval_every` steps, on `eval_batches` batches |
    | checkpoints | `save_every` steps, the last `keep` |
    | samples | `sample_every` steps, from `sample_prompt` |
    | metrics | `tensorboard`: also as event files of TensorBoard |
    """

    steps: int = 1000
    batch: int = 8
    accumulate: int = 1
    length: int | None = None
    pack: bool = False
    by_length: bool = False
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    schedule: str = "cosine"
    warmup: int | None = None
    last_rate: float = 0.1
    decay_share: float = 0.2
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    momentum: float = 0.95
    clip: float | None = 1.0
    ema: float | None = None
    freeze: tuple[str, ...] = ()
    lora_rank: int | None = None
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = ()
    recompute: bool = False
    seed: int = 0
    eval_every: int = 250
    eval_batches: int = 20
    save_every: int = 250
    keep: int = 2
    sample_every: int = 0
    sample_prompt: str = ""
    tensorboard: bool = False


# -- kinds of values --


class Kind(Frozen):
    """The values that a setting can have; `shown` stands for one in `--help`."""

    shown: ClassVar[str] = "X"

    def expected(self) -> str:
        """What a message says that it expects."""
        raise NotImplementedError

    def read(self, value: Any) -> Any:
        """The value of a setting, given in Python or TOML. Raises `ValueError`."""
        raise NotImplementedError

    def parse(self, text: str) -> Any:
        """The value of a setting, given as text on a command line. Raises `ValueError`."""
        return self.read(text)


class Whole(Kind):
    """A whole number of at least `low`.

    >>> Whole(1).parse("2_000")
    2000
    """

    shown: ClassVar[str] = "N"
    low: int = 0

    def expected(self) -> str:
        return f"a whole number, at least {self.low}"

    def read(self, value: Any) -> int:
        if not isinstance(value, Integral) or isinstance(value, bool) or value < self.low:
            raise ValueError
        return int(value)

    def parse(self, text: str) -> int:
        return self.read(int(text))


class Real(Kind):
    """A number between bounds; those in `open` are excluded.

    >>> Real(0, 1, open="high").expected()
    'a number, at least 0 and below 1'
    """

    low: float = 0
    high: float = math.inf
    open: str = ""  # "low", "high" or both

    def expected(self) -> str:
        low = f"above {self.low:g}" if "low" in self.open else f"at least {self.low:g}"
        high = f"below {self.high:g}" if "high" in self.open else f"at most {self.high:g}"
        return f"a number {low}" if self.high == math.inf else f"a number, {low} and {high}"

    def read(self, value: Any) -> float:
        if not is_number(value) or not math.isfinite(value):
            raise ValueError
        above = value > self.low if "low" in self.open else value >= self.low
        below = value < self.high if "high" in self.open else value <= self.high
        if not (above and below):
            raise ValueError
        return float(value)

    def parse(self, text: str) -> float:
        return self.read(float(text))


class Choice(Kind):
    """One of some names."""

    shown: ClassVar[str] = "NAME"
    names: tuple[str, ...]

    def expected(self) -> str:
        return listing(self.names)

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.names:
            raise ValueError
        return value


class Flag(Kind):
    """True or false."""

    def expected(self) -> str:
        return "true or false"

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def parse(self, text: str) -> bool:
        return self.read({"true": True, "false": False}.get(text))


class Text(Kind):
    """Any text."""

    shown: ClassVar[str] = "TEXT"

    def expected(self) -> str:
        return "a text"

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        return value


class Texts(Kind):
    """A list of texts; an option is repeated."""

    shown: ClassVar[str] = "PATTERN"

    def expected(self) -> str:
        return "a list of texts"

    def read(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise ValueError
        return tuple(value)

    def parse(self, text: str) -> tuple[str, ...]:
        return (text,)


class Maybe(Kind):
    """A value of another kind, or none: `None` in Python, "none" in TOML and on a command
    line."""

    kind: Kind

    def expected(self) -> str:
        return f"{self.kind.expected()}, or none"

    def read(self, value: Any) -> Any:
        return None if value is None or value == "none" else self.kind.read(value)

    def parse(self, text: str) -> Any:
        return None if text == "none" else self.kind.parse(text)


# -- the table --


class Row(Frozen):
    """A setting: what it is about, the kind of its values, and its meaning for `--help`."""

    name: str
    about: str
    kind: Kind
    help: str
    metavar: str = ""  # of its value in `--help`; that of its kind if empty

    @property
    def option(self) -> str:
        """The name on the command line.

        >>> Row("last_rate", "learning rate", Real(), "").option
        '--last-rate'
        """
        return "--" + self.name.replace("_", "-")

    @property
    def default(self) -> Any:
        return getattr(DEFAULTS, self.name)


DEFAULTS = Settings()
_POSITIVE, _DECAY = Real(open="low"), Real(0, 1, open="high")

ROWS = (
    Row("steps", "length of the run", Whole(1), "updates of the weights"),
    Row("batch", "batch", Whole(1), "examples that are computed at once"),
    Row("accumulate", "batch", Whole(1), "batches per step, whose gradients are added up"),
    Row("length", "batch", Maybe(Whole(1)), "positions of an example (default: the most)"),
    Row("pack", "batch", Flag(), "put several short texts into a window, apart"),
    Row("by_length", "batch", Flag(), "batches of examples of about equal length"),
    Row("optimizer", "optimizer", Choice(OPTIMIZERS), listing(OPTIMIZERS)),
    Row("weight_decay", "optimizer", Real(), "of matrices, times the learning rate"),
    Row("beta1", "optimizer", _DECAY, "decay of the mean of the gradients"),
    Row("beta2", "optimizer", _DECAY, "decay of the mean of their squares"),
    Row("epsilon", "optimizer", _POSITIVE, "added to the root of the mean square"),
    Row("momentum", "optimizer", _DECAY, "of sgd and muon"),
    Row("clip", "optimizer", Maybe(_POSITIVE), "the largest length of the gradient"),
    Row("learning_rate", "learning rate", _POSITIVE, "the highest rate of the run"),
    Row("schedule", "learning rate", Choice(SCHEDULES), listing(SCHEDULES)),
    Row(
        "warmup",
        "learning rate",
        Maybe(Whole()),
        "steps in which the rate rises from 0 "
        f"(default: a tenth of the run, at most {LONGEST_WARMUP})",
    ),
    Row("last_rate", "learning rate", Real(0, 1), "the rate at the end, as a share"),
    Row(
        "decay_share", "learning rate", Real(0, 1), "the share of the steps in which wsd falls"
    ),
    Row(
        "ema",
        "average of the weights",
        Maybe(Real(0, 1, open="low high")),
        "decay of a running average of the weights, such as 0.999",
    ),
    Row(
        "freeze",
        "fine-tuning",
        Texts(),
        "a pattern of paths of weights that do not change, as 'h.0-5' (repeatable)",
    ),
    Row(
        "lora_rank",
        "fine-tuning",
        Maybe(Whole(1)),
        "train low-rank matrices beside linear layers, and nothing else (default: none)",
    ),
    Row("lora_alpha", "fine-tuning", _POSITIVE, "their product is multiplied by alpha / rank"),
    Row(
        "lora_targets",
        "fine-tuning",
        Texts(),
        "a pattern of paths of these layers, as 'h.*.attention' (repeatable; default: all "
        "linear layers inside of stacks)",
    ),
    Row(
        "recompute",
        "memory",
        Flag(),
        "compute activations of layers twice instead of storing them",
    ),
    Row("seed", "random numbers", Whole(), "of the first weights, the order of data, dropout"),
    Row("eval_every", "evaluation", Whole(), "steps between two evaluations; 0: none"),
    Row("eval_batches", "evaluation", Whole(1), "batches of an evaluation"),
    Row("save_every", "checkpoints", Whole(), "steps between two checkpoints; 0: at the end"),
    Row("keep", "checkpoints", Whole(1), "the last checkpoints to keep, besides the best"),
    Row("sample_every", "samples", Whole(), "steps between two samples of text; 0: none"),
    Row("sample_prompt", "samples", Text(), "the text that samples continue"),
    Row("tensorboard", "metrics", Flag(), "write event files of TensorBoard too"),
)
"""All settings by what they are about, in the order of `--help`."""

BY_NAME = {row.name: row for row in ROWS}


def settings_from(
    given: Mapping[str, object], place: Callable[[str], str] = "`{}`".format
) -> Settings:
    """Checks settings by name, and completes them with defaults.

    `place` says where a setting stands, for messages, such as "`steps` in `run.toml`". Raises
    `ArchError` "unknown-argument" for a name that is no setting, and "argument-value" for a
    value of the wrong type or outside its range.

    >>> settings_from({"steps": 200, "clip": "none"}).clip is None
    True
    """
    found = {}
    for name, value in given.items():
        row = BY_NAME[check_name(name, BY_NAME)]
        try:
            found[name] = row.kind.read(value)
        except ValueError:
            refuse(row, value, place(name))
    settings = replace(DEFAULTS, **found)
    warmup_steps(settings)
    return settings


def warmup_steps(settings: Settings) -> int:
    """The steps of the warmup: a tenth of the run, at most 100, if the settings do not say."""
    if settings.warmup is None:
        return min(settings.steps // 10, LONGEST_WARMUP)
    if settings.warmup > settings.steps:
        fail(
            "argument-value",
            "the warmup is longer than the run",
            expected=f"at most {settings.steps} steps, the length of the run",
            found=f"warmup = {settings.warmup}",
            help="leave out `warmup`: it is then a tenth of the run",
        )
    return settings.warmup


def check_name(name: str, known: Collection[str], place: str = "") -> str:
    """Returns the name of a setting if it is one of `known`; else raises `ArchError`."""
    if name not in known:
        fail(
            "unknown-argument",
            f"{place}there is no setting `{name:.80}`",
            expected=listing(known),
            help=did_you_mean(name, known),
        )
    return name


def refuse(row: Row, value: object, place: str) -> None:
    """Raises `ArchError` for a value that a setting cannot have."""
    near = None
    if isinstance(row.kind, Choice) and isinstance(value, str):
        near = did_you_mean(value, row.kind.names)
    fail(
        "argument-value",
        f"{place} cannot be {value!r:.80}",
        expected=row.kind.expected(),
        help=near,
    )
