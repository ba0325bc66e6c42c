"""What `archdsl train` prints: the plan, a live line or plain lines, and the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING

from archdsl.cli.common import print_note
from archdsl.cli.progress_line import print_json, print_text
from archdsl.cli.table import records, whole, wrap
from archdsl.graph.cost import format_bytes, format_count
from archdsl.progress import doing
from archdsl.training.events import Event, Notice
from archdsl.training.trained import ADAPTER

if TYPE_CHECKING:
    from archdsl.training.loop import Result
    from archdsl.training.plan import Plan
    from archdsl.training.split import Piece, SplitPlan


class Reporter:
    """Shows the events of a run.

    With a terminal for progress, the last line has the newest event; evaluations and samples
    are printed above it. Otherwise every `every`-th event is a line, or a line of JSON.
    `begin` is called at the first step that is done.
    """

    def __init__(self, steps: int, as_json: bool, every: int, begin: Callable[[], None]):
        self._steps, self._json, self._every, self._begin = steps, as_json, every, begin
        self._last: Event | None = None
        self._live = sys.stderr.isatty() and sys.stdout.isatty() and not as_json

    def showing(self) -> AbstractContextManager[object]:
        """The progress line, within the block."""
        return doing(
            "training",
            "steps",
            self._steps,
            lambda: self._last.step if self._last else 0,
            lambda: describe(self._last) if self._last else "compiling",
        )

    def __call__(self, event: Event | Notice) -> None:
        if isinstance(event, Notice):
            self._notice(event.text)
            return
        if self._last is None:
            self._begin()
        self._last = event
        due = event.step % self._every == 0 or event.step == event.steps
        special = event.valid is not None or event.sample is not None
        if self._json:
            if due or special or event.saved:
                print_json({"event": "step", **asdict(event)})
            return
        if special or (due and not self._live):
            print_text(format_event(event))
        if event.sample is not None:
            print_text(event.sample)

    def _notice(self, text: str) -> None:
        if self._json:
            print_json({"event": "notice", "text": text})
        else:
            print_note(text)

    def end(self, result: Result) -> None:
        """Prints the end of a run."""
        if self._json:
            found = asdict(result) | {"folder": str(result.folder)}
            print_json({"event": "end", **found})
            return
        if result.signal is not None:
            return
        losses = [] if result.loss is None else [f"loss {result.loss:.4f}"]
        if result.valid is not None:
            losses.append(f"validation loss {result.valid:.4f}")
        print_text(
            f"{result.step:,} steps in {format_seconds(result.seconds)}: {', '.join(losses)}"
        )
        if result.best_valid is not None:
            print_text(
                f"least validation loss {result.best_valid:.4f} at step {result.best_step:,}"
            )
        if (result.folder / ADAPTER).is_dir():
            print_text(
                f"adapter: {result.folder / ADAPTER}; `archdsl merge` adds it to a model"
            )
            return
        kind = "last" if result.best_step is None else "best"
        print_text(f"weights: {result.folder / kind / 'model.safetensors'}")


def format_event(event: Event) -> str:
    """A line about a step.

    >>> event = Event(20, 100, 2.5, 1e-3, 0.7, "tokens", 12345.6, 9.0, 75.2, 3e9, valid=2.75)
    >>> format_event(event)
    'step 20/100, loss 2.5000, 12,346 tokens/s, 1 min 15 s left, validation loss 2.7500'
    """
    found = f"step {event.step}/{event.steps}, {describe(event)}"
    if event.valid is not None:
        found += f", validation loss {event.valid:.4f}"
    return found + (", saved" if event.saved else "")


def describe(event: Event) -> str:
    """The loss, the speed, the time left, and the share of the machine's flops."""
    parts = [f"loss {event.loss:.4f}", f"{event.speed:,.0f} {event.unit}/s"]
    parts.append(f"{format_seconds(event.seconds_left)} left")
    if event.share is not None:
        parts.append(f"{event.share:.0%} of the peak".replace("%", " %"))
    return ", ".join(parts)


def format_plan(plan: Plan, data: Sequence[str]) -> str:
    """The plan of a run as a table."""
    parts = [
        whole(f"{format_bytes(getattr(plan.bytes, name))} {name}")
        for name in plan.bytes.__match_args__
        if getattr(plan.bytes, name)
    ]
    limit = "" if plan.memory is None else f" of {format_bytes(plan.memory)}"
    frozen = plan.parameters - plan.trained
    shares = f", in {plan.shares} shares" if plan.shares > 1 else ""
    each = " for each share" if shares else " on each device" if plan.split else ""
    rows = [("data", data[0]), *(("", each) for each in data[1:])]
    rows += [
        ("parameters", f"{plan.parameters:,}" + (f", {frozen:,} frozen" if frozen else "")),
        ("step", f"{plan.step_units:,} {plan.unit}, {format_count(plan.flops)} flops{shares}"),
        (
            "run",
            f"{plan.steps:,} steps, {plan.run_units:,} {plan.unit}, "
            f"{plan.epochs:.3g} times the data",
        ),
        ("memory", f"{format_bytes(plan.bytes.total)}{limit}{each}: {', '.join(parts)}"),
    ]
    if plan.peak and plan.step_seconds is not None and plan.run_seconds is not None:
        rows.append(
            (
                "time",
                f"at least {format_seconds(plan.step_seconds)} a step, "
                f"{format_seconds(plan.run_seconds)} in all, "
                f"at {format_count(plan.peak, 'FLOP/s')}",
            )
        )
    lines = [plan.name, *records(rows)]
    if plan.split:
        lines += format_split(plan.split)
    return "\n".join(lines)


def format_split(split: SplitPlan) -> Iterator[str]:
    """How weights are split over devices, and what these add up: two tables."""
    yield ""
    yield from wrap(
        f"weights over {split.count} devices: {format_bytes(split.share)} of "
        f"{format_bytes(split.bytes)} on each; one device alone would need "
        f"{format_bytes(split.memory)} of memory",
        rest="  ",
    )
    yield from records(
        (
            each.name,
            f"{format_bytes(each.share)} of {format_bytes(each.bytes)}",
            f"{each.path} {whole(f'[{_sizes(each, split.count)}]')}",
        )
        for each in split.weights
    )
    for each in dict.fromkeys((row.name, row.size, row.why) for row in split.whole):
        yield from wrap("{} = {}, because {}".format(*each), "  whole: ", "    ")
    total = format_bytes(sum(each.bytes for each in split.traffic))
    yield f"added up over the devices in a step: {total}"
    yield from records(
        (
            each.name,
            format_bytes(each.bytes),
            "gradient of the input of" if each.backward else "result of",
            each.at,
        )
        for each in split.traffic
    )


def _sizes(piece: Piece, count: int) -> str:
    """The sizes of a weight, with what divides one of them.

    >>> from archdsl.training.split import Piece
    >>> _sizes(Piece("heads", "q.weight", (8, 16), 0, 512, 256), 2)
    '8/2, 16'
    """
    sizes = [str(size) for size in piece.shape]
    sizes[piece.axis] += f"/{count}"
    return ", ".join(sizes)


def format_seconds(seconds: float) -> str:
    """A duration for people.

    >>> [format_seconds(each) for each in (0.00123, 3.21, 75.2, 7290)]
    ['0.0012 s', '3.2 s', '1 min 15 s', '2 h 1 min']
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
