"""Expected and measured times of a model on this machine.

The least time that a workload can take follows from the two limits of a machine: its peak of
operations, and its bandwidth of memory (Williams, Waterman and Patterson 2009, "Roofline").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.backend.target import open_device
from archdsl.bench.candidates import Subject, workloads
from archdsl.bench.results import measure, report

_CPU = "CPU"


def measure_times(
    subject: Subject,
    rows: int,
    length: int,
    new: int,
    rounds: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Measures the workloads of `archdsl bench`: a forward pass, and decoding if the model is a
    decoder. Adds to each what limits it, and the least seconds it can take.

    The limits are measured in the same rounds, on the CPU; there are none for other devices.
    """
    device = open_device(subject.device)
    results = [
        measure(each, rounds, progress) for each in workloads(subject, rows, length, new)
    ]
    found = report(results) | {"device": device, "dtype": subject.dtype, "rounds": rounds}
    for result, entry in zip(results, found["workloads"], strict=True):
        work = result.workload
        entry |= {"flops": work.flops, "bytes": work.bytes}
        if device.partition(":")[0] == _CPU:
            entry |= expected(entry)
    return found


def expected(entry: dict[str, Any]) -> dict[str, Any]:
    """The least seconds of a workload at the measured limits, and the limit that decides.

    >>> peak = {"compute_roofline_flops_per_second": 1e9}
    >>> peak |= {"memory_roofline_bytes_per_second": 1e8}
    >>> expected(peak | {"flops": 5e9, "bytes": 2e9})
    {'expected_seconds': 20.0, 'limit': 'memory'}
    """
    least = {
        limit: amount / entry[f"{limit}_roofline_{unit}_per_second"]
        for limit, unit in (("compute", "flops"), ("memory", "bytes"))
        if (amount := entry[unit])
    }
    limit = max(least, key=least.__getitem__)
    return {"expected_seconds": least[limit], "limit": limit}
