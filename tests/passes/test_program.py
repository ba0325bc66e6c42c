"""Programs print, the text parses back, and the printed kernels are the ones that run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad.uop.ops import Ops, UOp

import archdsl
from archdsl.backend.program import Program as Capture
from archdsl.cli import main
from archdsl.execution.decoder import Decoder
from archdsl.graph.parser import parse
from archdsl.graph.printer import show
from archdsl.passes.program import Program
from archdsl.passes.select_kernels import KERNELS
from tests.execution.test_decoder import SPECS
from tests.suite import some

# Of each three layers: the first two are traced, the third has the calls of the second.
DEPTH = 3
CASES = {spec: {**sizes, "depth": DEPTH} for spec, sizes in SPECS.items() if "depth" in sizes}
OURS = sorted({kernel.name for kernel in KERNELS}, key=len, reverse=True)


@pytest.mark.parametrize("spec", ["gpt", "transformer", "vit"])
def test_programs_print(
    spec: str, capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]
) -> None:
    sizes = {"D": 64, "heads": 4, "depth": 3}
    sizes |= {"classes": 10} if spec == "vit" else {"vocab": 100, "context": 50}
    settings = [word for n, size in sizes.items() for word in ("--set", f"{n}={size}")]
    assert main(["show", f"{spec}.arch", "--emit", "program", *settings]) == 0
    golden(f"passes/{spec}_program.txt", capsys.readouterr().out)


def test_a_printed_graph_is_shown_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "transformer.arch"]) == 0
    typed = capsys.readouterr().out
    (tmp_path / "t.graph").write_text(typed)
    for stage in ("typed", "passes", "program", "weights"):
        printed = []
        for spec in ("transformer.arch", str(tmp_path / "t.graph")):
            assert main(["show", spec, "--emit", stage]) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]

    (tmp_path / "t.graph").write_text(typed.replace("%1 = embed(source;", "%1 = embd(source;"))
    assert main(["show", str(tmp_path / "t.graph")]) == 1
    error = capsys.readouterr().err
    assert "t.graph:6:6: error[syntax]: unknown operator `embd`" in error
    assert "did you mean `embed`?" in error
    (tmp_path / "t.graph").write_text(
        typed.replace("output logits = %27", "output logits = %99")
    )
    assert main(["show", str(tmp_path / "t.graph")]) == 1
    assert "logits refers to %99, which is not defined" in capsys.readouterr().err


def launched(capture: Capture[Any]) -> Counter[str]:
    """How often each of archdsl's kernels is among the captured calls."""
    found: Counter[str] = Counter()
    for call in _calls(capture._run.captured.linear):
        name = call.src[0].arg.name if call.src[0].op is Ops.PROGRAM else ""
        kernel = next((each for each in OURS if name.startswith(f"{each}_")), None)
        if kernel:
            found[kernel] += 1
    return found


def _calls(linear: UOp) -> list[UOp]:
    """Calls of programs, those that a runner has taken together among them."""
    found = []
    for call in linear.src:
        inner = call.src[0]
        if inner.op is Ops.CUSTOM_FUNCTION:
            found += _calls(inner.src[0])
        else:
            found.append(call)
    return found


@pytest.mark.parametrize("spec", some(CASES, "gpt.arch:GPT"))
def test_the_printed_kernels_are_launched(spec: str) -> None:
    model = archdsl.compile(spec, device="CPU", seed=3, **CASES[spec])
    decoder = Decoder(model.executable, 2)
    tokens = decoder.plan.tokens
    random = np.random.default_rng(5)
    given: dict[str, Any] = {}
    for each in model.graph.inputs:
        sizes = {axis.name: axis.near(12) for axis in model.graph.varying}
        shape = [2, *(axis.size.at(sizes) for axis in each.type.axes)]
        whole = each.type.dtype == "int"
        given[each.name] = (
            random.integers(2, 50, shape) if whole else random.standard_normal(shape)
        )
    model(**given)
    (forward,) = model.executable._captures
    whole_program = model.executable.lowered(model.executable.graph, given)
    assert launched(forward.capture) == checked(whole_program)

    others = {name: each for name, each in given.items() if name != tokens}
    decoder.begin(**others)
    if decoder.plan.once is not None:
        (once,) = (c for key, c in decoder._captures.items() if key[0] == "once")
        assert launched(once) == checked(model.executable.lowered(decoder.plan.once, others))
    for n, last in ((1, False), (32, False), (32, True)):
        decoder.reset()
        decoder.feed(np.resize(given[tokens], (2, n)), last)
        (step,) = (c for key, c in decoder._captures.items() if key[:2] == (n, last))
        assert launched(step) == checked(decoder.lowered(n, last))


def checked(program: Program) -> Counter[str]:
    """The kernels that a program launches, after a check that its text parses back."""
    text = str(program)
    assert parse(text[text.index("graph ") :]) == program.graph
    assert parse(show(program.graph)) == program.graph
    return program.launches()
