"""Benchmarks of archdsl and of other libraries, one file per group of workloads.

    python -m benchmarks                     all of them
    python -m benchmarks gpt2 vit --quick    some, in small sizes
    python -m benchmarks device --device CUDA    what one device can do: benchmarks/device/

Each file has a function `workloads(folder, small)`, which returns workloads in the sizes of
docs/performance.md, or in small ones that take seconds, and writes files to the folder.
`NAMES` lists the files. archdsl/bench/runner.py runs the workloads.
"""

NAMES = (
    "gpt2",
    "smollm2",
    "vit",
    "translation",
    "training",
    "starting",
    "growth",
    "states",
)
