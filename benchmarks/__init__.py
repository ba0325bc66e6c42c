"""Comparisons of archdsl with what people would use instead, each workload in a file.

    python -m benchmarks                     all of them
    python -m benchmarks gpt2 vit --quick    some, in small sizes

A workload's file has a function `workloads(folder, small)`: the races of it, in the sizes that
docs/performance.md tells of or in ones that take seconds; what it writes goes to the folder.
Its name stands in `NAMES`. How races are run is in archdsl/bench/runner.py.
"""

NAMES = (
    "gpt2",
    "smollm2",
    "vit",
    "translation",
    "training",
    "starting",
    "growth",
)
