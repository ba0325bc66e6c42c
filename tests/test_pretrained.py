"""Import and export of published checkpoints: exact to the bit, or an error."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.diagnostics import ArchError
from archdsl.formats import LazyTensor, read_checkpoint, write_checkpoint, write_safetensors

SPEC = """\
model Tiny(vocab = 7, D = 4, heads = 2, depth = 2, act = relu, tied = false) {
  input tokens: int[T <= 5] < vocab
  h = tokens
    -> tok: embed(vocab, D)
    -> layers: { { norm -> attention(heads, causal, out_bias = false) } -> act } * depth
  output logits: float[T, vocab] =
    h -> unembed(tok) if tied else head: linear(vocab, bias = false)
  loss next_token(logits, tokens)
}

weights "huggingface" for Tiny {
  optional model.
  config {
    model_type = "tiny"
    architectures = list("TinyLM")
    vocab_size = vocab
    hidden_size = D
    num_attention_heads = heads
    num_hidden_layers = depth
    hidden_act = names(act, relu = "relu", gelu = "gelu")
    tie_word_embeddings = tied default false
  }
  layers.{i}.norm.* = model.h.{i}.ln.*
  layers.{i}.attention.{q,k,v}.weight = model.h.{i}.qkv.weight -> transpose -> split
  layers.{i}.attention.{q,k,v}.bias = model.h.{i}.qkv.bias -> split
  layers.{i}.attention.out.weight = model.h.{i}.{left,right}.weight -> concat -> halves(heads)
  if tied {
    tok.weight = model.wte.weight | lm_head.weight
  }
  if not tied {
    tok.weight = model.wte.weight
    head.weight = lm_head.weight -> shaped(1, vocab, D)
  }
  ignore model.h.{i}.mask
}
"""
CONFIG: dict[str, Any] = {
    "model_type": "tiny",
    "architectures": ["TinyLM"],
    "vocab_size": 9,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "num_hidden_layers": 3,
    "hidden_act": "gelu",
    "tie_word_embeddings": False,
}
CARRIERS = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16}

IMPORT_TINY = ["import", "there", "--spec", "tiny.arch", "-o", "my.arch"]

Tensors = dict[str, LazyTensor]


def tensors(dtype: str = "float32", tied: bool = False) -> Tensors:
    """A checkpoint with the sizes of CONFIG and random bits."""
    shapes: dict[str, tuple[int, ...]] = {"model.wte.weight": (9, 12)}
    for i in range(3):
        at = f"model.h.{i}"
        shapes |= {f"{at}.ln.weight": (12,), f"{at}.ln.bias": (12,)}
        shapes |= {f"{at}.qkv.weight": (12, 36), f"{at}.qkv.bias": (36,)}
        shapes |= {f"{at}.left.weight": (6, 12), f"{at}.right.weight": (6, 12)}
    if not tied:
        shapes["lm_head.weight"] = (1, 9, 12)
    random = np.random.default_rng(5)
    return {name: drawn(random, shape, dtype) for name, shape in shapes.items()}


def drawn(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> LazyTensor:
    numbers = random.standard_normal(shape).astype(np.float32)
    bits = numbers.view(np.uint32)
    if dtype == "float16":
        array: Any = numbers.astype(np.float16)
    else:
        array = (bits >> 16).astype(np.uint16) if dtype == "bfloat16" else numbers
    return LazyTensor(dtype, shape, lambda: array)


def bits(stored: LazyTensor) -> list[int]:
    array = np.ascontiguousarray(stored.read())
    return array.view(CARRIERS[stored.dtype]).reshape(-1).tolist()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.arch").write_text(SPEC, encoding="utf-8")


def load(folder: str = "there", **options: Any) -> archdsl.Model:
    return archdsl.from_pretrained(folder, spec="tiny.arch", device="CPU", **options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard", [5_000_000, 2_000])
def test_import_and_export_keep_every_bit(dtype: str, shard: int) -> None:
    write_checkpoint("there", tensors(dtype), CONFIG, shard)
    assert main([*IMPORT_TINY, "--weights", "my.safetensors"]) == 0
    size = str(shard / 1e9)
    export = ["export", "my.arch", "--weights", "my.safetensors", "--to", "back"]
    assert main([*export, "--shard", size]) == 0
    one, two = read_checkpoint("there"), read_checkpoint("back")
    assert two.config == CONFIG
    assert one.tensors.keys() == two.tensors.keys()
    for name, stored in one.tensors.items():
        other = two.tensors[name]
        assert (stored.dtype, stored.shape) == (other.dtype, other.shape)
        assert bits(stored) == bits(other), name
    # The written spec is the library's with these sizes.
    assert archdsl.check("my.arch") == []
    assert archdsl.compile("my.arch").graph == load(dtype="float32").graph


def test_the_default_dtype_is_the_checkpoints() -> None:
    write_checkpoint("half", tensors("bfloat16"), CONFIG)
    assert load("half").dtype == "bfloat16"
    assert load("half", dtype="float32").dtype == "float32"
    mixed = tensors("bfloat16") | {"lm_head.weight": tensors("float16")["lm_head.weight"]}
    write_checkpoint("mixed", mixed, CONFIG)
    assert load("mixed").dtype == "float32"


def test_weights_are_loaded_by_the_map() -> None:
    theirs = tensors()
    write_checkpoint("there", theirs, CONFIG)
    ours = {name: t.numpy() for name, t in load().parameters.items()}
    fused = theirs["model.h.1.qkv.weight"].read()
    for i, part in enumerate("qkv"):
        expected = fused.T[12 * i : 12 * (i + 1)]
        np.testing.assert_array_equal(ours[f"layers.1.attention.{part}.weight"], expected)
    both = [theirs[f"model.h.2.{side}.weight"].read() for side in ("left", "right")]
    rows = np.concatenate(both)[[0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11]]
    np.testing.assert_array_equal(ours["layers.2.attention.out.weight"], rows)


def test_optional_prefixes_may_be_missing() -> None:
    bare = {name.removeprefix("model."): t for name, t in tensors().items()}
    bare["h.0.mask"] = LazyTensor("float32", (1,), lambda: np.zeros(1, np.float32))
    write_checkpoint("bare", bare, CONFIG)
    write_checkpoint("there", tensors(), CONFIG)
    for name, tensor in load("bare").parameters.items():
        np.testing.assert_array_equal(tensor.numpy(), load().parameters[name].numpy())


def test_one_weight_under_two_names_is_one_weight() -> None:
    tied = tensors(tied=True)
    config = {**CONFIG, "tie_word_embeddings": True}
    same = tied | {"lm_head.weight": tied["model.wte.weight"]}
    write_checkpoint("same", same, config)
    assert "head.weight" not in load("same").parameters
    alone = {k: v for k, v in same.items() if k != "model.wte.weight"}
    write_checkpoint("alone", alone, config)
    np.testing.assert_array_equal(
        load("alone").parameters["tok.weight"].numpy(), tied["model.wte.weight"].read()
    )
    other = drawn(np.random.default_rng(1), (9, 12), "float32")
    write_checkpoint("differing", same | {"lm_head.weight": other}, config)
    with pytest.raises(
        ArchError, match=r"1 different, but one weight in this model: model\.wte\.weight and lm"
    ):
        load("differing")


# -- damaged checkpoints --


class Evil:
    """Runs a command when it is unpickled without restrictions."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


def missing() -> None:
    kept = tensors()
    del kept["model.h.1.ln.bias"]
    write_checkpoint("wrong", kept, CONFIG)


def extra() -> None:
    more = {"model.h.1.ln.scale": tensors()["model.h.1.ln.bias"]}
    write_checkpoint("wrong", tensors() | more, CONFIG)


def transposed() -> None:
    changed = tensors()
    old = changed["model.h.2.qkv.weight"]
    changed["model.h.2.qkv.weight"] = LazyTensor(
        "float32", (36, 12), lambda: old.read().T.copy()
    )
    write_checkpoint("wrong", changed, CONFIG)


def truncated() -> None:
    write_checkpoint("wrong", tensors(), CONFIG)
    file = Path("wrong/model.safetensors")
    os.truncate(file, file.stat().st_size - 7)


def another_model() -> None:
    write_checkpoint("wrong", tensors(), {**CONFIG, "model_type": "tinny"})


def another_size() -> None:
    write_checkpoint("wrong", tensors(), {**CONFIG, "hidden_size": 6})


def code_in_a_pickle() -> None:
    write_checkpoint("wrong", tensors(), CONFIG)
    Path("wrong/model.safetensors").unlink()
    Path("wrong/pytorch_model.bin").write_bytes(pickle.dumps({"model.wte.weight": Evil()}))


def no_config() -> None:
    write_checkpoint("wrong", tensors(), CONFIG)
    Path("wrong/config.json").unlink()


def integers() -> None:
    whole = LazyTensor("int32", (12,), lambda: np.zeros(12, np.int32))
    write_checkpoint("wrong", tensors() | {"model.h.0.ln.weight": whole}, CONFIG)


WRONG = [missing, extra, transposed, truncated, another_model, another_size, code_in_a_pickle]
WRONG += [no_config, integers]


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_damaged_checkpoints(
    make: Callable[[], None], golden: Callable[[str, str], None]
) -> None:
    make()
    with pytest.raises(ArchError) as raised:
        load("wrong")
    golden(f"checkpoints/{make.__name__}.txt", f"{raised.value}\n")
    assert not Path("ran").exists()
    assert main(["import", "wrong", "--spec", "tiny.arch", "-o", "my.arch"]) == 1
    assert not Path("my.arch").exists()


LOADED_WRONG = [missing, extra, transposed, truncated, code_in_a_pickle, integers]


@pytest.mark.parametrize("make", LOADED_WRONG, ids=lambda make: make.__name__)
def test_a_damaged_checkpoint_does_not_change_the_model(make: Callable[[], None]) -> None:
    make()
    sizes = {"vocab": 9, "D": 12, "heads": 3, "depth": 3}
    model = archdsl.compile("tiny.arch", device="CPU", **sizes)
    before = {name: tensor.numpy() for name, tensor in model.parameters.items()}
    with pytest.raises(ArchError):
        model.load("wrong")
    for name, tensor in model.parameters.items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])


def test_existing_files_are_not_overwritten() -> None:
    write_checkpoint("there", tensors(), CONFIG)
    assert main([*IMPORT_TINY, "--weights", "w.safetensors"]) == 0
    export = ["export", "my.arch", "--weights", "w.safetensors", "--to", "there"]
    assert main(export) == 1
    assert main(["export", "my.arch:Tiny", *export[2:-1], "other"]) == 0
    assert json.loads(Path("other/config.json").read_text())["model_type"] == "tiny"


def test_a_model_without_a_config_map_is_not_exported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_checkpoint("there", tensors(), CONFIG)
    assert main([*IMPORT_TINY, "--weights", "w.safetensors"]) == 0
    text = Path("my.arch").read_text(encoding="utf-8").replace("act = gelu,", "act = tanh,")
    Path("my.arch").write_text(text, encoding="utf-8")
    archdsl.compile("my.arch")
    export = ["export", "my.arch", "--weights", "w.safetensors", "--to", "back"]
    assert main(export) == 1
    assert "`tanh` has no published name" in capsys.readouterr().err


def test_values_that_the_config_cannot_express_are_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = SPEC.replace("tied = false\n)", "tied = false)")
    text = text.replace("tied = false) {", "tied = false, extra = 1) {")
    text = text.replace("-> act }", "-> act -> scale(extra) }")
    Path("tiny.arch").write_text(text, encoding="utf-8")
    write_checkpoint("there", tensors(), CONFIG)
    assert main([*IMPORT_TINY, "--weights", "w.safetensors"]) == 0
    export = ["export", "my.arch", "--weights", "w.safetensors", "--to"]
    assert main([*export, "one"]) == 0
    capsys.readouterr()
    assert main([*export, "two", "--set", "extra=2"]) == 1
    assert "cannot express `extra = 2`" in capsys.readouterr().err
    assert not Path("two").exists()


SQUARE = """
model Square() { input x: float[3]  output y: float[3] = x -> l: linear(3, bias = false) }
weights "turned" for Square { l.weight = l.weight -> transpose }
weights "other" for Square { l.weight = w -> transpose }
weights "another" for Square { l.weight = w }
"""


def test_own_parameter_names() -> None:
    model = archdsl.compile(archdsl.parse(SQUARE), device="CPU")
    before = model.parameters["l.weight"].numpy()
    model.save("own.safetensors")
    model.load("own.safetensors")
    np.testing.assert_array_equal(model.parameters["l.weight"].numpy(), before)
    model.load("own.safetensors", map="turned")
    np.testing.assert_array_equal(model.parameters["l.weight"].numpy(), before.T)
    write_safetensors("two.safetensors", {"w": before})
    with pytest.raises(ArchError, match="fits more than one map: `'other'` or `'another'`"):
        model.load("two.safetensors")
    model.load("two.safetensors", map="another")
    np.testing.assert_array_equal(model.parameters["l.weight"].numpy(), before)


IMPORT = """
from pathlib import Path
from archdsl.pretrained import describe
from archdsl.analysis import analyse
from archdsl.graph.cost import cost
found = describe("seven")
spec, weights = found.spec, found.weights
graph = analyse(spec).graph
print(cost(graph, {"T": 1024}).params, len(weights))
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_seven_billion_parameters_are_imported_and_costed_without_their_memory() -> None:
    """Uses Llama 2 7B's names and shapes, in sparse files."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "num_hidden_layers": 32,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    }
    D, hidden = 4096, 11008
    shapes = {"model.embed_tokens.weight": (32000, D), "model.norm.weight": (D,)}
    for i in range(32):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.self_attn.{x}_proj.weight": (D, D) for x in "qkvo"}
        shapes |= {f"{at}.mlp.{x}_proj.weight": (hidden, D) for x in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (D, hidden)}
        shapes |= {f"{at}.input_layernorm.weight": (D,)}
        shapes |= {f"{at}.post_attention_layernorm.weight": (D,)}
    shapes["lm_head.weight"] = (32000, D)
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    Path("seven").mkdir()
    Path("seven/config.json").write_text(json.dumps(config), encoding="utf-8")
    with Path("seven/model.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", IMPORT]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    (params, count), (megabytes,) = (map(int, line.split()) for line in ran.stdout.splitlines())
    assert params == 6_738_415_616
    assert count == len(shapes)
    assert megabytes < 600
