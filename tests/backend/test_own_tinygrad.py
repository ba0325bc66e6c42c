"""A user's own tinygrad code is not affected by archdsl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archdsl.backend.target import probe
from archdsl.backend.toolchain import ensure_compiler
from tests.suite import some

ROOT = Path(__file__).parents[2]

# What a user's process does: `own()` tells what a TinyJit of theirs computes, and is made of.
USER = """
import json, os
from tinygrad import Context, Device, Tensor, TinyJit
from tinygrad.engine.jit import JIT_BATCH_SIZE
from tinygrad.helpers import CAPTURING, DEV, TC_OPT, SPLIT_REDUCEOP, getenv

def own():
    @TinyJit
    def step(x):
        return ((x * 2 + 1).contiguous().sum() * 3).realize()

    results = [step(Tensor([1.0, 2.0, i], device="CPU").realize()).item() for i in range(4)]
    return results, [str(call.src[0].op) for call in step.captured.linear.src]

def state():
    settings = [JIT_BATCH_SIZE, CAPTURING, TC_OPT, SPLIT_REDUCEOP]
    return {
        "environment": dict(os.environ),
        "settings": [each.value for each in settings],
        "devices": [str(each) for each in DEV.value],
        "CC": getenv("CC", "clang"),
    }

def model(**options):
    import archdsl
    sizes = dict(vocab=32, context=16, D=64, heads=2, depth=3)
    return archdsl.compile("gpt.arch", device="CPU", **sizes, **options)
"""


def ran(code: str, **variables: str) -> Any:
    """The JSON that a new process prints, without CC and DEV unless given."""
    kept = {key: value for key, value in os.environ.items() if key not in ("CC", "DEV")}
    environment = {**kept, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, "-c", USER + code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize(
    "options", ["", "dtype='bfloat16'", "quantize='int8'", "kernels='tinygrad'"]
)
def test_a_model_leaves_the_process_as_it_was(options: str) -> None:
    if "bfloat16" in options and not ensure_compiler().bfloat16:
        pytest.skip("no clang that computes in bfloat16")
    before, after = ran(
        "import archdsl, numpy as np\n"
        "before = state()\n"
        f"made = model({options})\n"
        "made(tokens=[[1, 2, 3]])\n"
        "made.decoder(1).feed(np.array([[5]]))\n"
        "print(json.dumps([before, state()]))\n"
    )
    assert after == before


@pytest.mark.long
def test_choosing_a_device_leaves_the_environment_as_it_was() -> None:
    before, after, chosen = ran(
        "from archdsl.backend.target import open_device\n"
        "before = state()\n"
        "open_device()\n"
        "after = state()\n"
        "print(json.dumps([before, after, Device.DEFAULT == os.environ['DEV']]))\n"
    )
    assert after == before
    assert chosen  # tinygrad chooses as it would have, and says so as it would have


@pytest.mark.long
def test_a_users_jit_has_tinygrads_own_runner() -> None:
    """Before a model of ours is made, beside one that runs, and after it."""
    found = ran(
        "first = own()\n"
        "made = model()\n"
        "tokens = made(tokens=[[1, 2, 3]])['logits'].numpy()\n"
        "second = own()\n"
        "again = made(tokens=[[1, 2, 3]])['logits'].numpy()\n"
        "print(json.dumps([first, second, own(), (tokens == again).all().item()]))\n",
        CC=ensure_compiler().path,
    )
    first, second, third, same = found
    assert first == second == third
    assert set(first[1]) == {"Ops.PROGRAM"}  # one call after the other, and no graph
    assert same


@pytest.mark.long
def test_ours_has_the_runner_in_c() -> None:
    """A model's whole capture is one call; ten calls from Python would be more."""
    kinds = ran(
        "from archdsl.backend.kernels import graph_runner\n"
        "calls = []\n"
        "call = graph_runner.CPUGraphRunner.__call__\n"
        "def counted(self, *given, **named):\n"
        "    calls.append(len(self.table))\n"
        "    return call(self, *given, **named)\n"
        "graph_runner.CPUGraphRunner.__call__ = counted\n"
        "made = model()\n"
        "made(tokens=[[1, 2, 3]]), made(tokens=[[4, 5, 6]])\n"
        "print(json.dumps(calls))\n"
    )
    assert len(kinds) == 2
    assert min(kinds) > 10


def test_the_runner_is_put_back_where_a_capture_fails() -> None:
    before, after = ran(
        "from archdsl.backend.program import Program\n"
        "from archdsl.backend.target import open_device\n"
        "open_device('CPU')\n"
        "def fails(x):\n"
        "    raise ValueError('no')\n"
        "before = state(), str(Device['CPU'].graph)\n"
        "try:\n"
        "    Program(fails, 'CPU')(Tensor([1.0], device='CPU').realize())\n"
        "except ValueError:\n"
        "    print(json.dumps([before, (state(), str(Device['CPU'].graph))]))\n"
    )
    assert after == before
    assert before[1] == "None"


def test_workers_compile_with_the_same_clang() -> None:
    """tinygrad's worker processes compile too, and get the clang only through the renderer."""
    sizes = ran(
        "import archdsl.backend.target as target, pickle\n"
        "target.open_device('CPU')\n"
        "renderer = Device['CPU'].renderer\n"
        "source = 'void k(float *x) { x[0] = 1; }'\n"
        "sent = pickle.loads(pickle.dumps(renderer))\n"
        "both = [each.compiler.compile(source) for each in (renderer, sent)]\n"
        "print(json.dumps([len(both[0]), both[0] == both[1], type(sent).__name__]))\n"
    )
    assert sizes[0] > 0
    assert sizes[1:] == [True, "ClangRenderer"]


@pytest.mark.long
def test_a_model_is_compiled_where_python_starts_workers() -> None:
    numbers = ran(
        "made = model()\nprint(json.dumps(made(tokens=[[1, 2, 3]])['logits'].tolist()))\n",
        PARALLEL="2",
        CCACHE="0",
    )
    alone = ran(
        "made = model()\nprint(json.dumps(made(tokens=[[1, 2, 3]])['logits'].tolist()))\n",
        PARALLEL="0",
    )
    assert numbers == alone


def test_our_settings_hold_in_a_capture_alone() -> None:
    from tinygrad import Device, Tensor
    from tinygrad.helpers import JIT_BATCH_SIZE

    from archdsl.backend.program import Program
    from archdsl.backend.target import open_device

    open_device("CPU")
    before = JIT_BATCH_SIZE.value, Device["CPU"].graph
    inside = []

    def function(x: Tensor) -> Tensor:
        inside.append(JIT_BATCH_SIZE.value)
        return (x + 1).contiguous().realize()

    Program(function, "CPU")(Tensor([1.0], device="CPU").realize())
    assert inside == [0]
    assert before[0] != 0
    assert (JIT_BATCH_SIZE.value, Device["CPU"].graph) == before


@pytest.mark.long
def test_the_settings_of_webgpu_are_there_as_it_is_opened_alone() -> None:
    pytest.importorskip("pydawn", reason="dawn-python is not installed")
    if not probe("WEBGPU").runs:
        pytest.skip("no WebGPU here")
    before, after, numbers = ran(
        "from archdsl.backend.target import open_device\n"
        "before = state()\n"
        "device = open_device('WEBGPU')\n"
        "after = state()\n"
        "x = Tensor([1.0, 2.0], device=device)\n"
        "print(json.dumps([before, after, (x * 3).tolist()]))\n"
    )
    assert after == before
    assert numbers == [3, 6]


@pytest.mark.parametrize("device", some(["CPU", "CPU:1"], "CPU"))
def test_a_user_can_go_on_with_an_output(device: str) -> None:
    """If no clang is on the PATH, the device uses the one that was found."""
    numbers = ran(
        "from archdsl.backend.target import open_device\n"
        f"x = Tensor([1.0, 2.0], device=open_device('{device}'))\n"
        "print(json.dumps((x * 1.2345).tolist()))\n",
        PATH="/nowhere",
        CCACHE="0",
    )
    assert numbers == pytest.approx([1.2345, 2.469])
