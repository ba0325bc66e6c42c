"""Refuses models that no machine can hold, before anything is allocated.

`archdsl check` accepts such sizes: its costs are formulas.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path

from archdsl.diagnostics import fail
from archdsl.graph.nodes import Graph
from archdsl.graph.signature import Weight
from archdsl.graph.sites import count_parameters

_MOST_TENSORS = 1_000_000  # listing their names takes a second
_MOST_POSITIONS = 2**31 - 1  # positions are int32


def check_sizes(graph: Graph) -> None:
    """Raises `ArchError` "argument-value" for more tensors or positions than can be listed."""
    count = count_parameters(graph)
    if count > _MOST_TENSORS:
        fail(
            "argument-value",
            f"`{graph.name}` has {count:_} tensors of weights",
            expected=f"at most {_MOST_TENSORS:_} in a model that runs",
            help="repeat fewer layers",
        )
    for axis in graph.varying:
        if axis.bound > _MOST_POSITIONS:
            fail(
                "argument-value",
                f"the axis `{axis.name}` of `{graph.name}` is too long to compute with",
                expected=f"a bound of at most {_MOST_POSITIONS:_}",
                found=f"{axis.name} <= {axis.bound:_}",
            )


def check_memory(graph: Graph, weights: Mapping[str, Weight], device: str) -> None:
    """Raises `ArchError` "argument-value" for initial weights that do not fit into memory.

    They are drawn on the host, one at a time, as float32; a device may have more memory.
    """
    memory = machine_memory()
    sizes = {path: 4 * prod(weight.shape) for path, weight in weights.items()}
    largest = max(sizes, key=lambda path: sizes[path], default=None)
    needed = sum(sizes.values()) if device == "CPU" else sizes[largest] if largest else 0
    if needed > memory:
        what = f"the weights of `{graph.name}`" if device == "CPU" else f"`{largest}`"
        fail(
            "argument-value",
            f"{what} need more memory than this machine has",
            expected=f"at most {memory:_} bytes",
            found=f"{needed:_} bytes",
            help="set smaller sizes; `archdsl check` prints what a model needs",
        )


def machine_memory(root: Path = Path("/")) -> int:
    """The bytes of memory that this process can use: those of the machine, or fewer if one of
    its control groups has a limit, as that of a container.

    `root` is the folder that has `proc` and `sys`.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _limit_files(root):
        with suppress(OSError, ValueError):  # missing, or `max`
            limits.append(int(path.read_text()))
    return min(limits)


def _limit_files(root: Path) -> list[Path]:
    """The files with the memory limits of this process's control groups and of those above."""
    found = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:  # version 2
                top, name = root / "sys/fs/cgroup", "memory.max"
            elif "memory" in controllers.split(","):
                top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            else:
                continue
            # Inside a container, the group may be the top of what is mounted.
            here = top / group.strip("/")
            found += [each / name for each in (here, *here.parents) if each.is_relative_to(top)]
    return found
