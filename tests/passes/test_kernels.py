"""Which kernel is chosen for what: by the table, and as `show` prints it."""

from __future__ import annotations

import pytest

from archdsl.cli import main
from archdsl.passes.kernels import CPU, TINYGRAD, Attention, Lookup, Norm, Product, Work, choose


@pytest.mark.parametrize(
    ("work", "kernel"),
    [
        (Product(1, 768, 768), "matvec"),
        (Product(4, 768, 768), "matvec"),
        (Product(64, 768, 768), "matmul"),
        (Product(64, 768, 10), "matvec"),  # too few columns for a register tile
        (Attention(12, 1, 900, 64, bias=False), "attend_few"),
        (Attention(12, 128, 128, 64, bias=False), "attend"),
        (Attention(12, 128, 128, 64, bias=True), TINYGRAD),
        (Norm(5, 768, "rms"), "norm"),
        (Norm(5, 768, "l2"), TINYGRAD),
        (Lookup(5, 50257, 768), "embed"),
    ],
)
def test_the_cheapest_that_fits(work: Work, kernel: str) -> None:
    assert choose(work, CPU) == kernel
    assert choose(work, None) == TINYGRAD


def test_every_choice_prints(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["vocab=100", "context=50", "D=32", "heads=2", "depth=3"]
    settings = [word for size in sizes for word in ("--set", size)]
    assert main(["show", "gpt.arch", "--emit", "kernels", *settings]) == 0
    assert (
        capsys.readouterr().out
        == """\
# cpu, batch 1, T = 50
embed: 50 of [100, 32]: embed
self_attention_block.{}.norm: layer [50, 32]: norm
self_attention_block.{}.attention.q: [50, 32] x [32, 32]: matvec
self_attention_block.{}.attention.k: [50, 32] x [32, 32]: matvec
self_attention_block.{}.attention.v: [50, 32] x [32, 32]: matvec
self_attention_block.{}.attention.out: [50, 32] x [32, 32]: matvec, then y + %3
self_attention_block.{}.attention.core: 2 heads of 16, 50 x 50: attend
self_attention_block.{}.norm_2: layer [50, 32]: norm
self_attention_block.{}.mlp.0: [50, 32] x [32, 128]: matmul
self_attention_block.{}.mlp.1: [50, 128] x [128, 32]: matvec, then y + %6
norm: layer [50, 32]: norm
linear: [50, 32] x [32, 100]: matmul
# cpu, batch 1, a step along T of tokens
embed: 1 of [100, 32]: embed
self_attention_block.{}.norm: layer [1, 32]: norm
self_attention_block.{}.attention.q: [1, 32] x [32, 32]: matvec
self_attention_block.{}.attention.k: [1, 32] x [32, 32]: matvec
self_attention_block.{}.attention.v: [1, 32] x [32, 32]: matvec
self_attention_block.{}.attention.attend: 2 heads of 16, 1 x 50: attend_few
self_attention_block.{}.attention.out: [1, 32] x [32, 32]: matvec, then y + %3
self_attention_block.{}.norm_2: layer [1, 32]: norm
self_attention_block.{}.mlp.0: [1, 32] x [32, 128]: matvec
self_attention_block.{}.mlp.1: [1, 128] x [128, 32]: matvec, then y + %6
norm: layer [1, 32]: norm
linear: [1, 32] x [32, 100]: matvec
"""
    )
