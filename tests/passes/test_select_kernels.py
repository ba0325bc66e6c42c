"""Which kernel is selected for a unit of work."""

from __future__ import annotations

import pytest

from archdsl.passes.select_kernels import (
    CPU,
    TINYGRAD,
    Attention,
    Linear,
    Lookup,
    Norm,
    Work,
    choose,
)


@pytest.mark.parametrize(
    ("work", "kernel"),
    [
        (Linear(1, 768, 768), "matvec"),
        (Linear(4, 768, 768), "matvec"),
        (Linear(64, 768, 768), "matmul"),
        (Linear(64, 768, 10), "matvec"),  # too few columns for a register tile
        (Attention(12, 1, 900, 64, tables=False), "attend_few"),
        (Attention(12, 128, 128, 64, tables=False), "attend"),
        (Attention(12, 128, 128, 64, tables=True), TINYGRAD),
        (Norm(5, 768, "rms"), "norm"),
        (Norm(5, 768, "l2"), TINYGRAD),
        (Lookup(5, 50257, 768), "embed"),
    ],
)
def test_the_cheapest_kernel_that_fits_is_selected(work: Work, kernel: str) -> None:
    assert choose(work, CPU) == kernel
    assert choose(work, None) == TINYGRAD
