"""What a run will need, before its first step: tokens, parameters, bytes, and time.

Weights, gradients and the optimizer's numbers are exact. The activations are what
`passes.kept_values` counts, within a factor of 1.5 of what a step allocates. The time is that
of the flops of matrix products at the machine's peak rate, a backward pass counted as two
forward passes (Kaplan et al. 2020, section 2.1): no run is faster.

Several processes or devices have a share of each batch. Memory and time are those of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil, prod

from archdsl.backend.interpret import measured
from archdsl.backend.optimizers import kind_of, states_of
from archdsl.backend.tinygrad_devices import total_memory
from archdsl.diagnostics import fail
from archdsl.execution import inputs
from archdsl.execution.executable import Executable
from archdsl.execution.fit import ROOM
from archdsl.execution.memory import machine_memory
from archdsl.execution.train_step import loss_graph
from archdsl.execution.trained_weights import in_layers
from archdsl.frozen import Frozen
from archdsl.graph.cost import BYTES, format_bytes
from archdsl.graph.nodes import Graph
from archdsl.graph.sites import parameters
from archdsl.passes.kept_values import kept_values
from archdsl.passes.program import lower
from archdsl.passes.split_weights import Split
from archdsl.training.batches import Counter
from archdsl.training.data import Data, Dataset
from archdsl.training.finetuning import trained_graph
from archdsl.training.order import order_of
from archdsl.training.processes import ALONE, Shares
from archdsl.training.settings import Settings
from archdsl.training.split import SplitPlan, plan_split
from archdsl.training.text_data import TextWindows

_SAMPLED = 4  # batches whose sizes are measured


class Bytes(Frozen):
    """The memory of a run, or of one of its shares, in bytes.

    `masters` are float32 copies of weights in half precision, `averages` those of `ema`.
    """

    weights: int
    masters: int
    gradients: int
    optimizer: int
    averages: int
    activations: int

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in self.__match_args__)


class Plan(Frozen):
    """What a run will need.

    - `trained` of `parameters` numbers are trained.
    - `step_units` are the tokens of a step, or its examples; `data_units` those of all data.
    - `shares` of each batch are computed at once.
    - `bytes` are the memory of a share, of `memory` bytes that its tensors may have; None if
      unknown. If weights are split over devices, they are those of a device.
    - `flops` are those of a step. `peak` are those that compute a share per second, if known.
    """

    name: str
    parameters: int
    trained: int
    steps: int
    unit: str
    step_units: int
    data_units: int
    shares: int
    bytes: Bytes
    memory: int | None
    flops: int
    peak: float | None
    split: SplitPlan | None = None

    @property
    def run_units(self) -> int:
        return self.steps * self.step_units

    @property
    def epochs(self) -> float:
        """How often the run reads the data."""
        return self.run_units / self.data_units

    @property
    def step_seconds(self) -> float | None:
        """The least seconds of a step."""
        count = self.split.count if self.split else self.shares
        return self.flops / count / self.peak if self.peak else None

    @property
    def run_seconds(self) -> float | None:
        return None if self.step_seconds is None else self.step_seconds * self.steps

    def as_dict(self) -> dict[str, object]:
        """The plan as plain data, for `--json`."""
        found = {name: getattr(self, name) for name in self.__match_args__}
        found["bytes"] = {n: getattr(self.bytes, n) for n in (*Bytes.__match_args__, "total")}
        found["split"] = self.split and self.split.as_dict()
        more = ("run_units", "epochs", "step_seconds", "run_seconds")
        return found | {name: getattr(self, name) for name in more}


def make_plan(
    executable: Executable,
    settings: Settings,
    data: Data,
    frozen: frozenset[str] = frozenset(),
    peak: float | None = None,
    shares: Shares = ALONE,
    split: Split | None = None,
) -> Plan:
    """Plans a run. `frozen` are the paths of weights that are not trained; `peak` are the
    flops per second of what computes a share of a batch, and `split` says how weights are
    split over devices.

    Raises `ArchError` if the run does not fit into the device's memory, and says what would.
    """
    graph = trained_graph(executable.graph, settings)
    counter = Counter(graph, executable.graph)
    order = order_of(data.train, settings)
    rows, sizes, units, work = 1, dict[str, int](), 0, 0
    count = min(_SAMPLED, ceil(len(data.train) / settings.batch))
    for number in range(count):
        batch = inputs.check(graph, data.train.batch(order.numbers(number)), labels=True)
        rows, found = measured(graph, batch)
        sizes = {name: max(size, sizes.get(name, 0)) for name, size in found.items()}
        units += counter.units(batch)
        work += counter.flops(batch)
    every = {each.path: each.weight.shape for each in parameters(graph)}
    reached = {each.path for each in parameters(loss_graph(graph))}
    examples = ceil(rows / shares.count)
    table = None
    if split is not None:
        alone = needed_bytes(executable, settings, sizes, rows, frozen).total
        table = plan_split(graph, split, executable.dtype, rows, sizes, settings, alone)
    plan = Plan(
        name=graph.name,
        parameters=sum(map(prod, every.values())),
        trained=sum(prod(every[path]) for path in reached - frozen),
        steps=settings.steps,
        unit=counter.unit,
        step_units=units * settings.accumulate // count,
        data_units=_data_units(data.train, units / (count * rows)),
        shares=shares.count,
        bytes=needed_bytes(executable, settings, sizes, examples, frozen, split),
        memory=usable_memory(executable.device, shares),
        flops=work * settings.accumulate // count,
        peak=peak,
        split=table,
    )
    if plan.memory is not None and plan.bytes.total > plan.memory:
        _refuse(plan, executable, settings, sizes, frozen, shares, split)
    return plan


def _data_units(dataset: Dataset, each: float) -> int:
    """The tokens or examples of data, whose examples have `each` of them."""
    if isinstance(dataset, TextWindows):  # windows that overlap
        return len(dataset.tokens)
    return max(1, round(len(dataset) * each))


def needed_bytes(
    executable: Executable,
    settings: Settings,
    sizes: Mapping[str, int],
    rows: int,
    frozen: frozenset[str] = frozenset(),
    split: Split | None = None,
) -> Bytes:
    """The memory of a run with batches of `rows` examples of these sizes, or that of one of the
    devices that its weights are split over."""
    graph = loss_graph(trained_graph(executable.graph, settings))
    width = BYTES[executable.dtype]
    shapes = {
        each.path: each.weight.shape for each in parameters(graph) if each.path not in frozen
    }
    trained = sum(prod(shape) // _parts(split, path) for path, shape in shapes.items())
    target = None if split else executable.target
    program = lower(graph, rows, sizes, executable.dtype, target, trains=True)
    parts = dict.fromkeys(split.values, split.count) if split else {}
    kept = kept_values(program, settings.recompute, frozen, parts)
    return Bytes(
        weights=_weight_bytes(executable, split),
        masters=0 if executable.dtype == "float32" else 4 * trained,
        gradients=4 * trained,
        optimizer=4 * sum(_states(graph, settings, shapes, split)),
        averages=0 if settings.ema is None else 4 * trained,
        # The loss computes in float32, and the gradient of the logits is as large as they are.
        activations=width * (kept.stored + kept.passing) + 2 * 4 * kept.logits,
    )


def _parts(split: Split | None, path: str) -> int:
    """Over how many devices a weight is split."""
    return split.share(path) if split else 1


def _weight_bytes(executable: Executable, split: Split | None) -> int:
    """The bytes of all weights; those of quantized matrices as they are in memory."""
    if executable.quantize is not None:
        return sum(each.nbytes() for each in executable.parameters.in_memory().values())
    shapes = {path: each.weight.shape for path, each in executable.weights.items()}
    numbers = sum(prod(shape) // _parts(split, path) for path, shape in shapes.items())
    return BYTES[executable.dtype] * numbers


def _states(
    graph: Graph,
    settings: Settings,
    shapes: Mapping[str, tuple[int, ...]],
    split: Split | None,
) -> Iterator[int]:
    """The numbers that an optimizer has for each weight: see `backend.optimizers.Rule`."""
    inside = in_layers(graph)
    for path, shape in shapes.items():
        kind = kind_of(settings.optimizer, shape, path in inside)
        yield states_of(kind, settings.momentum) * prod(shape) // _parts(split, path)


def usable_memory(device: str, shares: Shares = ALONE) -> int | None:
    """The bytes of a device's memory that the tensors of a share can have; None if unknown."""
    if device.partition(":")[0] == "CPU":
        return int(ROOM * machine_memory() / shares.here)
    found = total_memory(device)
    return None if found is None else int(ROOM * found)


# -- what would fit --


def _refuse(
    plan: Plan,
    executable: Executable,
    settings: Settings,
    sizes: Mapping[str, int],
    frozen: frozenset[str],
    shares: Shares,
    split: Split | None,
) -> None:
    """Raises `ArchError` for a run that needs too much memory."""
    assert plan.memory is not None
    found = plan.bytes
    parts = [f"{format_bytes(getattr(found, name))} {name}" for name in found.__match_args__]
    shown = ", ".join(part for part in parts if not part.startswith("0 "))
    ways = list(_smaller(plan.memory, executable, settings, sizes, frozen, shares, split))
    fail(
        "argument-value",
        f"training `{plan.name}` needs more memory than {executable.device} has",
        expected=f"at most {format_bytes(plan.memory)}",
        found=f"{format_bytes(found.total)}: {shown}",
        help=f"set {', or '.join(ways)}" if ways else "set smaller sizes of the model",
    )


def _smaller(
    memory: int,
    executable: Executable,
    settings: Settings,
    sizes: Mapping[str, int],
    frozen: frozenset[str],
    shares: Shares,
    split: Split | None,
) -> Iterator[str]:
    """Settings that fit: recompute, the largest smaller batch, or both."""
    sizes_of_batch = range(settings.batch, shares.count - 1, -1)
    batches = [each for each in sizes_of_batch if settings.batch % each == 0]
    divisible = executable.graph.objective("contrastive") is None
    for recompute in sorted({settings.recompute, True}):
        tried = replace(settings, recompute=recompute)
        for batch in batches:
            rows = ceil(batch / shares.count)
            if needed_bytes(executable, tried, sizes, rows, frozen, split).total > memory:
                continue
            changes = []
            if batch != settings.batch:
                changes.append(f"batch = {batch}")
                if divisible:
                    count = settings.accumulate * (settings.batch // batch)
                    changes.append(f"accumulate = {count}")
            if recompute and not settings.recompute:
                changes.append("recompute = true")
            yield " and ".join(changes)
            if batch == settings.batch:
                return
            break
