"""The readers of files, each with small files that it accepts.

A reader gets the content of one file. The other files of its folder are valid.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from archdsl.analysis import analyse
from archdsl.backend import program_store
from archdsl.cache import Store
from archdsl.cli.run import _read_array
from archdsl.cli.show import _read_graph
from archdsl.diagnostics import ArchError
from archdsl.formats import read_checkpoint, write_npz, write_safetensors
from archdsl.formats.host import LazyTensor
from archdsl.generation.generation_config import TEXT, read_generation_config
from archdsl.graph.printer import show
from archdsl.pretrained import describe
from archdsl.published.recognise import recognise
from archdsl.syntax.parser import parse
from archdsl.tasks.classify import read_preprocessor
from archdsl.tasks.embed import read_pooling
from archdsl.tasks.sound import read_spectrogram, read_wav
from archdsl.text.chat_templates import render
from archdsl.text.tokenizer import read_tokenizer
from archdsl.training.data import open_data
from tests.cli.tiny import TEMPLATE, gpt2
from tests.formats import test_ctranslate2, test_gguf, test_torch_pickle
from tests.text.tokenizer_files import BYTE_FIELDS, PIECE_FIELDS, gguf_file, gpt2_files

ROOT = Path(__file__).parents[2]
MOST = 1 << 20  # numbers of a tensor that is read

Contents = list[bytes]


class Reader(NamedTuple):
    """`read` reads the file `name`; `wrap` makes a file of what is mutated."""

    name: str
    seeds: Callable[[], Contents]
    read: Callable[[Path], object]
    kind: str = "bytes"  # or json, text
    beside: Callable[[Path], object] = lambda folder: None  # writes the rest of the folder
    wrap: Callable[[bytes], bytes] = lambda content: content
    quick: bool = True  # a file takes milliseconds
    valid: bool = True  # the first of the seeds


def made(write: Callable[[Path], object], name: str = "file") -> bytes:
    """What a function writes to a path."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, name))
        return Path(folder, name).read_bytes()


def as_json(*values: object) -> Contents:
    return [json.dumps(value).encode() for value in values]


# -- weights --

ARRAYS: dict[str, Any] = {
    "w": np.arange(6, dtype="float32").reshape(2, 3),
    "b": np.ones(3, "float16"),
}


def tensors(found: Mapping[str, LazyTensor]) -> None:
    for each in found.values():
        if np.prod(each.shape, dtype=float) <= MOST:
            each.read()
            if each.groups is not None:
                each.groups()


def checkpoint(path: Path) -> None:
    tensors(read_checkpoint(path).tensors)


def folder_of(path: Path) -> None:
    tensors(read_checkpoint(path.parent).tensors)


def pickles() -> Contents:
    own = test_torch_pickle
    import pickle

    plain = [pickle.dumps({"a": [1, 2.5, "x", None]}, protocol=p) for p in (2, 4)]
    return [own.pickled(own.WEIGHTS), own.pickled(own.WEIGHTS, 0), *plain]


def in_archive(pickled: bytes) -> bytes:
    own = test_torch_pickle
    return made(lambda path: own.archive(path, pickled, own.STORAGES))


def torch_files() -> Contents:
    own = test_torch_pickle
    return [made(lambda p, k=k: own.whole(p, k)) for k in ("stream", "stored", "deflated")]


def npz_files() -> Contents:
    def compressed(path: Path) -> None:
        np.savez_compressed(path, **ARRAYS)

    return [made(lambda p: write_npz(p, ARRAYS)), made(compressed, "a.npz")]


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def in_npz(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w.npy", content)
    return out.getvalue()


def gguf_files() -> Contents:
    own = test_gguf
    found = [own.small()]
    for name in ("Q4_K", "Q6_K", "Q8_0", "Q2_K", "IQ4_XS"):
        blocks = b"".join(own.random_blocks(name, 1))
        number, block = (own.KINDS | own.CONVERTED)[name][:2]
        found.append(own.gguf_file({"w": ([1, block], number, blocks)}))
    return found


def gguf_vocabularies() -> Contents:
    fields: Iterable[Mapping[str, object]] = (BYTE_FIELDS, PIECE_FIELDS)
    return [made(lambda p, f=f: gguf_file(p, f), "a.gguf") for f in fields]


# -- folders --


def files(*names: str) -> Callable[[], Contents]:
    """These files of a small GPT-2 checkpoint."""

    def content() -> Contents:
        with tempfile.TemporaryDirectory() as folder:
            gpt2(Path(folder))
            return [Path(folder, name).read_bytes() for name in names]

    return content


def beside_index(folder: Path) -> None:
    write_safetensors(folder / "a.safetensors", {"w": ARRAYS["w"]})
    write_safetensors(folder / "b.safetensors", {"b": ARRAYS["b"]})


def beside_vocabulary(folder: Path) -> None:
    for name, content in gpt2_files().items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")


def tokenizer(path: Path) -> None:
    found = read_tokenizer(path)
    found.decode(found.encode("a ab <s> é\n"))


def tokens(path: Path) -> None:
    found = read_tokenizer(path)
    found.decode(found.encode("aba"))


def tokenizer_folder(path: Path) -> None:
    tokenizer(path.parent)


def picture(kind: str) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    pixels = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


IMAGES = {"do_resize": True, "size": {"height": 8, "width": 8}, "resample": 2}
IMAGES |= {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
CROPS = {"size": {"shortest_edge": 9}, "crop_size": {"height": 8, "width": 8}}
SOUND = {"n_fft": 400, "hop_length": 160, "sampling_rate": 16000, "feature_size": 80}
SOUND |= {"chunk_length": 30, "padding_value": 0.0}


POOLING = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "pool", "type": "sentence_transformers.models.Pooling"},
    ],
    "sentence_bert_config.json": {"max_seq_length": 8, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "prompts": {"query": "q: "},
        "default_prompt_name": "query",
    },
    "pool/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
}


def pooling(path: Path) -> None:
    """Reads the pooling of a folder, whose files are the values of one JSON object."""
    try:
        parts = json.loads(path.read_bytes())
    except ValueError:
        return
    for name in POOLING:
        place = path.parent / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(parts.get(name) if isinstance(parts, dict) else parts))
    read_pooling(path.parent)


def beside_image(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES))


def with_picture(folder: Path) -> None:
    (folder / "a.png").write_bytes(picture("PNG"))


def sounds() -> Contents:
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, 8000, 32000, 4, 16)
    data = head + b"data" + struct.pack("<I", 64) + bytes(range(64))
    found = [b"RIFF" + struct.pack("<I", len(data)) + data]
    for kind, bits in ((1, 8), (1, 24), (3, 32), (0xFFFE, 16)):
        changed = bytearray(found[0])
        changed[20:22], changed[34:36] = struct.pack("<H", kind), struct.pack("<H", bits)
        found.append(bytes(changed))
    return found


def specs() -> Contents:
    names = ("gpt.arch", "blocks.arch", "vit.arch", "bert.arch", "t5.arch")
    return [(ROOT / "specs" / name).read_bytes() for name in names]


def graphs() -> Contents:
    return [show(analyse(name).graph).encode() for name in ("gpt.arch", "vit.arch")]


def template(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "replace")
    render(text, [{"role": "user", "content": "Hi."}], {"bos_token": "<s>"})


def stored(path: Path) -> None:
    """Damaged entries of a cache are missing."""
    Store(path.parent.name, 1 << 20).read("entry")
    if (content := path.read_bytes()) not in ENTRIES:
        store = program_store.STORE
        store.folder.mkdir(parents=True, exist_ok=True)
        (store.folder / "entry").write_bytes(content)
        assert program_store.read("entry") is None


ENTRIES: Contents = []


def entries() -> Contents:
    program_store.write("entry", program_store.Entry({"kernels": []}, [b"code", bytes(9)]))
    ENTRIES[:] = [(program_store.STORE.folder / "entry").read_bytes()]
    return ENTRIES


FORMATS = ("PNG", "JPEG", "WebP", "BMP", "GIF", "TIFF", "PPM")
SHARDS = {"w": "a.safetensors", "b": "b.safetensors"}


def _gpt2_and_library(folder: Path) -> None:
    """A model; and the specs are parsed, as in a process that has met an unknown config."""
    gpt2(folder)
    with suppress(ArchError):
        recognise("config.json", {"model_type": "unknown"})


# -- data of training --

RECORDS_SPEC = """\
model Records(vocab = 300) {
  input tokens: int[T <= 32] < vocab pad 0
  input weight: float
  output logits: float[3] = tokens -> embed(vocab, 2) -> mean(T) -> linear(3)
  output same: float = weight
  loss cross_entropy(logits, label: int < 3)
}
"""
IMAGES_SPEC = """\
model Images() {
  input pixels: float[1, 2, 3]
  output logits: float[3] = pixels -> reshape("c h w -> (c h w)") -> linear(3)
  loss cross_entropy(logits, label: int < 3)
}
"""


def training_data(spec: str, folder: bool = False) -> Callable[[Path], object]:
    graph = functools.cache(lambda: analyse(parse(spec, "data.arch")).graph)

    def read(path: Path) -> None:
        data = open_data(path.parent if folder else path, graph())
        data.train.batch(np.arange(len(data.train)))

    return read


def idx(array: Any) -> bytes:
    sizes = b"".join(size.to_bytes(4) for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def records() -> Contents:
    lines = [{"text": "abc" * n, "weight": n / 2, "label": n} for n in (1, 2)]
    return ["\n".join(map(json.dumps, lines)).encode()]


READERS: dict[str, Reader] = {
    "json-lines": Reader("a.jsonl", records, training_data(RECORDS_SPEC), "text", quick=False),
    "tsv": Reader(
        "a.tsv",
        lambda: [b"label\ttokens\tweight\n1\tab\t0.5\n0\tcd\t2\n"],
        training_data(RECORDS_SPEC),
        "text",
        quick=False,
    ),
    "idx": Reader(
        "train-images-idx3-ubyte",
        lambda: [idx(np.arange(12).reshape(2, 2, 3))],
        training_data(IMAGES_SPEC, folder=True),
        beside=lambda p: (p / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(2))),
    ),
    "idx-packed": Reader(
        "train-images-idx3-ubyte.gz",
        lambda: [gzip.compress(idx(np.arange(12).reshape(2, 2, 3)))],
        training_data(IMAGES_SPEC, folder=True),
        beside=lambda p: (p / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(2))),
    ),
    "safetensors": Reader(
        "a.safetensors", lambda: [made(lambda p: write_safetensors(p, ARRAYS))], checkpoint
    ),
    "pickle": Reader("a.pt", pickles, checkpoint, wrap=in_archive),
    "torch": Reader("a.pt", torch_files, checkpoint),
    "npz": Reader("a.npz", npz_files, checkpoint),
    "npy-in-npz": Reader(
        "a.npz", lambda: [npy(each) for each in ARRAYS.values()], checkpoint, wrap=in_npz
    ),
    "npy": Reader(
        "a.npy", lambda: [npy(e) for e in ARRAYS.values()], lambda p: _read_array(f"x={p}")
    ),
    "gguf": Reader("a.gguf", gguf_files, checkpoint),
    "ctranslate2": Reader("model.bin", lambda: [test_ctranslate2.small()], checkpoint),
    "index": Reader(
        "model.safetensors.index.json",
        lambda: as_json({"weight_map": SHARDS, "metadata": {}}),
        folder_of,
        "json",
        beside_index,
    ),
    "config": Reader(
        "config.json",
        files("config.json"),
        lambda p: describe(p.parent),
        "json",
        _gpt2_and_library,
        quick=False,
    ),
    "generation-config": Reader(
        "generation_config.json",
        lambda: as_json(
            {"temperature": 0.5, "do_sample": True, "top_k": 5, "eos_token_id": [1, 2]},
            {"bad_words_ids": [[1, 2]], "suppress_tokens": [3], "max_new_tokens": 4},
        ),
        lambda p: read_generation_config(p.parent, TEXT),
        "json",
    ),
    "tokenizer": Reader("tokenizer.json", files("tokenizer.json"), tokenizer, "json"),
    "tokenizer-config": Reader(
        "tokenizer_config.json", files("tokenizer_config.json"), tokenizer_folder, "json", gpt2
    ),
    "merges": Reader(
        "merges.txt",
        lambda: [str(gpt2_files()["merges.txt"]).encode()],
        tokenizer_folder,
        "text",
        beside_vocabulary,
    ),
    "wordpiece": Reader(
        "vocab.txt", lambda: [b"[UNK]\n[CLS]\n[SEP]\na\n##b\nab\n[PAD]\n"], tokenizer_folder
    ),
    # A valid file has 50,000 lines.
    "tiktoken": Reader(
        "a.tiktoken", lambda: [b"YQ== 0\nYg== 1\nYWI= 2\n"], tokens, "text", valid=False
    ),
    "gguf-vocabulary": Reader("a.gguf", gguf_vocabularies, tokenizer),
    "token-list": Reader("a.json", lambda: as_json(["<eos>", "a", "b", " "]), tokens, "json"),
    "token-lines": Reader("a.txt", lambda: [b"<eos>\na\nb\nab\n"], tokens, "text"),
    "token-pickle": Reader(
        "a.pkl", lambda: [test_torch_pickle.pickled({"a": 0, "b": 1})], tokens
    ),
    "template": Reader("a.jinja", lambda: [TEMPLATE.encode()], template, "text"),
    "spec": Reader("a.arch", specs, lambda p: analyse(str(p)), "text", quick=False),
    "graph": Reader("a.graph", graphs, lambda p: _read_graph(str(p)), "text", quick=False),
    "sound": Reader("a.wav", sounds, read_wav),
    "spectrogram": Reader(
        "preprocessor_config.json",
        lambda: as_json(SOUND),
        lambda p: read_spectrogram(p.parent, 80),
        "json",
    ),
    "pooling": Reader("all.json", lambda: as_json(POOLING), pooling, "json"),
    "image": Reader(
        "a.image",
        lambda: [picture(kind) for kind in FORMATS],
        lambda p: read_preprocessor(p.parent)(p),
        beside=beside_image,
    ),
    "preprocessor": Reader(
        "preprocessor_config.json",
        lambda: as_json(IMAGES, IMAGES | CROPS),
        lambda p: read_preprocessor(p.parent)(p.parent / "a.png"),
        "json",
        with_picture,
    ),
    "cache": Reader("entry", entries, stored),
}
