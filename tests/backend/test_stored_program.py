"""Stored programs give the same bits as traced ones, or are not used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor
from tinygrad.helpers import Context

import archdsl
from archdsl.backend import program_cache, program_store
from archdsl.backend.program import Program
from archdsl.backend.target import kernels_for, open_device
from archdsl.backend.tensors import realize_outside_capture
from archdsl.cache import Store
from archdsl.execution.decoder import Decoder
from archdsl.model import Model
from archdsl.syntax.parser import parse
from tests.execution.test_decoder import SPECS

Array = NDArray[Any]

SMALL = {"vocab": 32, "context": 16, "D": 64, "depth": 2, "heads": 2}
WHOLE = {
    "vit.arch:ViT": {"D": 32, "depth": 2, "heads": 2, "image": 16, "patch": 8, "classes": 5},
    "bert.arch:Bert": {"D": 32, "depth": 2, "heads": 2, "vocab": 40, "context": 16},
}


# Those that have most that there is: caches, a memory, a ring, images, a batch of padded rows.
FEW = ("gpt.arch:GPT", "t5.arch:T5", "mistral.arch:Mistral", *WHOLE)


def mostly_slow(specs: dict[str, Any]) -> list[Any]:
    """The specs, of which all but a few are tried with `-m slow`."""
    slow = pytest.mark.slow
    return [pytest.param(spec, marks=() if spec in FEW else slow) for spec in sorted(specs)]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new store for each test."""
    place = tmp_path / "programs"
    monkeypatch.setenv("ARCHDSL_PROGRAMS", "1")
    monkeypatch.setattr(Store, "folder", place)
    kernels_for(open_device("CPU"))
    return place


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that are traced."""
    found: list[str] = []
    plain = Program.__init__

    def watched(self: Any, function: Callable[..., Any], *args: Any, **named: Any) -> None:
        plain(self, function, *args, **named)
        whole = self._run._function

        def noticed(*given: Any, **others: Any) -> Any:
            found.append(getattr(whole, "__name__", "?"))
            return whole(*given, **others)

        self._run.fxn = noticed

    monkeypatch.setattr(Program, "__init__", watched)
    return found


def entries(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.is_dir() else []


def inputs(model: Model) -> dict[str, Array]:
    """Random inputs of a model, two rows of each."""
    random = np.random.default_rng(3)
    found: dict[str, Array] = {}
    for each in model.graph.inputs:
        lengths = {axis.name: axis.near(11) for axis in model.graph.varying}
        sizes = [axis.size.at(lengths) for axis in each.type.axes]
        if each.type.dtype == "int":
            below = each.type.below or 30
            found[each.name] = random.integers(2 if below > 2 else 0, below, (2, *sizes))
        else:
            found[each.name] = random.standard_normal((2, *sizes)).astype(np.float32)
    return found


def stepped(model: Model) -> list[Array]:
    """A prefill of two rows of unequal length, steps after it, and reordered rows."""
    decoder = Decoder(model.executable, rows=2)
    given = inputs(model)
    tokens = given.pop(decoder.plan.tokens)
    decoder.begin(**given)
    found = [decoder.prefill([tokens[0, :9].tolist(), tokens[1].tolist()])]
    found += [decoder.feed(tokens[:, i : i + 1]) for i in range(2)]
    decoder.reorder([1, 0])
    return [*found, decoder.feed(tokens[:, :1])]


def whole(model: Model) -> list[Array]:
    return [each.numpy() for each in model(**inputs(model)).values()]


def same(found: list[Array], right: list[Array]) -> bool:
    pairs = zip(found, right, strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.few(1)
@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("spec", mostly_slow(SPECS))
def test_a_stored_decoder_gives_the_same_bits(
    spec: str, quantize: str | None, traced: list[str], store: Path
) -> None:
    def model() -> Model:
        return archdsl.compile(spec, device="CPU", seed=5, quantize=quantize, **SPECS[spec])

    right = stepped(model())
    assert "step" in traced
    assert entries(store)
    first = traced.copy()
    assert same(stepped(model()), right)
    # What has one kernel, or is computed by none, is no sequence and is traced again.
    assert set(traced[len(first) :]) <= {"_move"}


@pytest.mark.few(2)
@pytest.mark.parametrize("spec", mostly_slow({**SPECS, **WHOLE}))
def test_a_stored_forward_pass_gives_the_same_bits(spec: str, traced: list[str]) -> None:
    def model(seed: int) -> Model:
        sizes: Any = {**SPECS, **WHOLE}[spec]
        return archdsl.compile(spec, device="CPU", seed=seed, **sizes)

    right = [whole(model(seed)) for seed in (1, 2)]
    assert not same(*right)
    assert traced == ["outputs"]  # the second model's was stored by the first
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARCHDSL_PROGRAMS", "0")
        assert same(whole(model(2)), right[1])
    assert traced == ["outputs", "outputs"]


@pytest.mark.long
@pytest.mark.parametrize(
    "how", [{"quantize": "int8"}, {"dtype": "bfloat16"}, {"dtype": "float16"}], ids=str
)
def test_other_dtypes_are_stored_apart(how: dict[str, Any], traced: list[str]) -> None:
    def model(**how: Any) -> Model:
        return archdsl.compile("gpt.arch", device="CPU", seed=4, **SMALL, **how)

    plain, right = whole(model()), whole(model(**how)) + stepped(model(**how))
    before = traced.copy()
    assert before.count("outputs") == 2
    assert same(whole(model(**how)) + stepped(model(**how)), right)
    assert same(whole(model()), plain)
    assert not same(plain, right[: len(plain)])
    assert set(traced[len(before) :]) <= {"_move"}


@pytest.mark.long
def test_two_models_share_no_memory(traced: list[str]) -> None:
    first, other = (archdsl.compile("gpt.arch", device="CPU", seed=s, **SMALL) for s in (1, 2))
    alone = [
        stepped(archdsl.compile("gpt.arch", device="CPU", seed=s, **SMALL)) for s in (1, 2)
    ]
    decoders = [Decoder(model.executable, rows=1) for model in (first, other)]
    tokens = inputs(first)["tokens"][:1]
    for decoder in decoders:
        decoder.prefill([tokens[0, :5].tolist()])
    taken = [[d.feed(tokens[:, 5:6])[0, 0] for d in decoders] for _ in range(3)]
    single = []
    for model in (first, other):
        decoder = Decoder(model.executable, rows=1)
        decoder.prefill([tokens[0, :5].tolist()])
        single.append([decoder.feed(tokens[:, 5:6])[0, 0] for _ in range(3)])
    assert same([t[0] for t in taken], single[0])
    assert same([t[1] for t in taken], single[1])
    assert not same(*alone)


def test_changed_weights_are_seen(tmp_path: Path, traced: list[str]) -> None:
    def model(seed: int) -> Model:
        return archdsl.compile("gpt.arch", device="CPU", seed=seed, **SMALL)

    right = whole(model(2))
    loaded = model(1)
    before = whole(loaded)
    for path, other in model(2).parameters.items():
        loaded.parameters[path].assign(other).realize()
    assert same(whole(loaded), right)
    assert not same(before, right)
    model(1).save(tmp_path / "one.npz")
    loaded.load(tmp_path / "one.npz")
    assert same(whole(loaded), before)
    assert traced == ["outputs"]


def test_a_change_that_is_still_to_be_made_is_seen(traced: list[str]) -> None:
    def model(seed: int) -> Model:
        return archdsl.compile("gpt.arch", device="CPU", seed=seed, **SMALL)

    right = whole(model(2))
    changed = model(1)
    for path, other in model(2).parameters.items():
        changed.parameters[path].assign(other)
    assert same(whole(changed), right)
    assert len(traced) == 2


@pytest.mark.long
def test_another_process_runs_what_was_stored(tmp_path: Path) -> None:
    script = """
import hashlib, sys, numpy, archdsl
from archdsl.backend import interpret
from archdsl.execution.decoder import Decoder
traced = []
plain = interpret.forward
interpret.forward = lambda *given: (traced.append(1), plain(*given))[1]
model = archdsl.compile(
    "llama.arch:Llama", device="CPU", quantize="int8", vocab=64, context=32, D=64, depth=2,
    heads=4, kv_heads=2, inner=96,
)
decoder = Decoder(model.executable, rows=1)
found = [decoder.prefill([[1, 2, 3, 4, 5]]), decoder.feed(numpy.array([[7]]))]
print(len(traced), hashlib.sha256(b"".join(each.tobytes() for each in found)).hexdigest())
"""
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "CACHEDB": str(tmp_path / "kernels.db"),
        "PYTHONPATH": str(Path(archdsl.__file__).parents[1]),
    }

    def ran(**more: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment | more,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    first, second, alone = ran(), ran(), ran(NUM_CPU_THREADS="1")
    assert first[0] != "0"
    assert second == ["0", first[1]]
    assert alone[0] != "0"  # other kernels share their work otherwise


# -- keys --


def program(calls: list[int], key: str = "doubled", **named: Any) -> Program[Tensor]:
    """A program of two kernels that notes when it is traced."""

    def doubled(x: Tensor) -> Tensor:
        calls.append(1)
        first = (x * 2).contiguous().realize()
        return (first.sum(0, keepdim=True) + x).contiguous().realize()

    return Program(doubled, "CPU", key=(key,), **named)


def given(*numbers: float) -> Tensor:
    return Tensor(np.array(numbers, np.float32), device="CPU").realize()


def test_a_key_is_of_all_that_a_program_depends_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Path
) -> None:
    calls: list[int] = []

    def again(expected: int, *numbers: float, **named: Any) -> None:
        numbers = numbers or (1.0, 2.0)
        found = program(calls, **named)(given(*numbers)).tolist()
        assert found == pytest.approx([2 * sum(numbers) + each for each in numbers])
        assert len(calls) == expected

    again(1)
    again(1)
    again(2, 1.0, 2.0, 3.0)  # another shape
    again(3, key="another")
    again(
        4,
        known=lambda: {"weight": realize_outside_capture(Tensor([1.0, 2.0], device="CPU") + 1)},
    )
    again(
        4,
        known=lambda: {"weight": realize_outside_capture(Tensor([5.0, 2.0], device="CPU") + 1)},
    )
    again(5, known=lambda: {"weight": realize_outside_capture(Tensor([1.0], device="CPU") + 1)})
    with Context(BEAM=0, NOOPT=1):  # type: ignore[no-untyped-call]
        again(6)
    with Context(NUM_CPU_THREADS=1):  # type: ignore[no-untyped-call]
        again(7)
    compiler = program_cache.ensure_compiler()
    for number, changed in enumerate(
        (replace(compiler, version="0.0"), replace(compiler, path=sys.executable)), 8
    ):
        with monkeypatch.context() as patch:
            patch.setattr(program_cache, "ensure_compiler", lambda changed=changed: changed)
            again(number)
    for number, name in enumerate(("_sources", "_tinygrad", "processor"), 10):
        with monkeypatch.context() as patch:
            patch.setattr(program_store, name, lambda: "changed")
            again(number)
    again(12)
    assert len(entries(store)) == 12


def test_sources_and_their_content_make_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "archdsl"
    for name in program_store._SOURCES:
        (package / name).mkdir(parents=True)
    (package / "backend" / "kernels").mkdir()
    kernel = package / "backend" / "kernels" / "sum.c"
    kernel.write_text("int a;")
    monkeypatch.setattr(program_store, "__file__", str(package / "backend" / "x.py"))
    before = program_store._sources.__wrapped__()
    stat = kernel.stat()
    kernel.write_text("int b;")
    os.utime(kernel, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = program_store._sources.__wrapped__()
    kernel.rename(kernel.with_name("other.c"))
    assert len({before, changed, program_store._sources.__wrapped__()}) == 3


def test_the_file_of_the_traced_function_is_part_of_the_key(tmp_path: Path) -> None:
    compiler = program_cache.ensure_compiler()
    file = tmp_path / "traced.py"
    keys = []
    for text in ("a", "b"):
        file.write_text(text)
        keys.append(program_store.environment(compiler, str(file)))
    assert keys[0] != keys[1]


# -- what cannot be stored, and what is damaged --


def test_what_has_no_name_is_not_stored(store: Path) -> None:
    table = realize_outside_capture(Tensor([1.0, 2.0], device="CPU") + 1)

    def looked_up(x: Tensor) -> Tensor:
        first = (x * table).contiguous().realize()
        return (first + first.sum()).contiguous().realize()

    assert Program(looked_up, "CPU", key=("t",))(given(1, 1)).tolist() == [7, 8]
    assert not entries(store)
    named = Program(looked_up, "CPU", key=("t",), known=lambda: {"table": table})
    assert named(given(1, 1)).tolist() == [7, 8]
    assert len(entries(store)) == 1


def test_a_table_is_stored_with_the_program_and_placed_once() -> None:
    tables: dict[tuple[object, ...], Tensor] = {}
    made: list[int] = []

    def looked_up(x: Tensor) -> Tensor:
        if ("table", 1.5) not in tables:
            made.append(1)
            tables["table", 1.5] = realize_outside_capture(Tensor([1.5, 2.0], device="CPU") * 1)
        first = (x * tables["table", 1.5]).contiguous().realize()
        return (first + first.sum()).contiguous().realize()

    for _ in range(2):
        found = Program(looked_up, "CPU", key=("t",), constants=tables)
        assert found(given(1, 1)).tolist() == [5, 5.5]
        assert [*tables] == [("table", 1.5)]
        tables.clear()
    assert made == [1]


def test_state_is_written_in_place() -> None:
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(1)
        state.assign(state + x).realize()
        return (state + state.sum()).contiguous().realize()

    for _ in range(2):
        state = realize_outside_capture(Tensor([0.0, 0.0], device="CPU") + 0)
        named = {"state": state}
        found = Program(counted, "CPU", key=("s",), known=lambda named=named: named)
        assert [found(given(1, 2)).tolist() for _ in range(2)] == [[4, 5], [8, 10]]
        assert state.tolist() == [2, 4]
    assert len(calls) == 1


def test_a_stored_step_may_have_no_cache(traced: list[str]) -> None:
    bigram = parse("""model M(V = 11, D = 8) {
      input tokens: int[T <= 8] < V
      output logits: float[T, V] = tokens -> embed(V, D) -> norm -> linear(V)
      loss next_token(logits, tokens)
    }""")
    found = [
        [each.tokens for each in archdsl.compile(bigram, device="CPU").generate([1], 4)]
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert traced.count("step") == 1


def test_an_output_can_be_an_input_again() -> None:
    calls: list[int] = []

    def turned(x: Tensor) -> Tensor:
        calls.append(1)
        first = (x * 2).contiguous().realize()
        return (x.flip(0) + first).contiguous().realize()

    for _ in range(2):
        found = Program(turned, "CPU", key=("turned",))
        assert found(given(1, 2)).tolist() == [4, 5]
        assert found(found(given(1, 2))).tolist() == [13, 14]
    assert len(calls) == 1


def test_any_flipped_byte_is_noticed(store: Path) -> None:
    calls: list[int] = []
    right = program(calls)(given(1, 2)).tolist()
    (path,) = entries(store)
    data = path.read_bytes()
    assert program_store.read(path.name) is not None
    for place in range(len(data)):
        path.write_bytes(
            data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        )
        assert program_store.read(path.name) is None
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        assert program_store.read(path.name) is None
    for place in (3, 20, 60, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        before = len(calls)
        assert program(calls)(given(1, 2)).tolist() == right
        assert len(calls) == before + 1  # it was traced, and the entry is whole again
        assert path.read_bytes() == data


def test_an_entry_of_another_key_is_none(store: Path) -> None:
    calls: list[int] = []
    program(calls)(given(1, 2))
    (path,) = entries(store)
    path.rename(path.with_name("0" * 32))
    assert program_store.read("0" * 32) is None


def test_the_folder_is_bounded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_store.STORE, "bytes_at_most", 5000)
    for number in range(6):
        program_store.write(f"{number:032}", program_store.Entry({}, [bytes(1000)]))
        os.utime(store / f"{number:032}", (number, number))
    program_store.read(f"{2:032}")  # used last
    program_store.write(f"{6:032}", program_store.Entry({}, [bytes(1000)]))
    left = [int(path.name) for path in entries(store)]
    assert left == [2, 4, 5, 6]
    program_store.write(f"{7:032}", program_store.Entry({}, [bytes(2000)]))
    assert not (store / f"{7:032}").exists()  # one alone would take most of the room


def test_nothing_is_stored_where_it_is_turned_off(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHDSL_PROGRAMS", "0")
    calls: list[int] = []
    for _ in range(2):
        program(calls)(given(1, 2))
    assert len(calls) == 2
    assert not entries(store)


def test_nothing_is_stored_of_what_is_not_captured(store: Path) -> None:
    calls: list[int] = []
    with Context(JIT=0):  # type: ignore[no-untyped-call]
        assert program(calls)(given(1, 2)).tolist() == [7, 8]
    late = program(calls)
    with Context(JIT=0):  # type: ignore[no-untyped-call]
        assert late(given(1, 2)).tolist() == [7, 8]
    assert not entries(store)


def test_a_folder_that_cannot_be_written_is_no_error(store: Path) -> None:
    store.parent.mkdir(exist_ok=True)
    store.write_text("a file")
    calls: list[int] = []
    assert program(calls)(given(1, 2)).tolist() == [7, 8]
