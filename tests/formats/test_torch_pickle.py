"""Handmade PyTorch files: no name in them is ever called.

The files of PyTorch itself are read in test_against_torch.
"""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.formats import read_checkpoint, read_weights


class Named:
    """A name in a pickle, which is never imported."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.module, self.name, self.arguments = module, name, arguments


def pickled(value: object, protocol: int = 2) -> bytes:
    """The pickle of plain values and calls of `Named`, as torch.save would write it."""
    out = io.BytesIO()
    if protocol:
        out.write(b"\x80" + bytes([protocol]))
    _write(out, value)
    out.write(b".")
    return out.getvalue()


def _write(out: io.BytesIO, value: object) -> None:
    match value:
        case Named():
            out.write(f"c{value.module}\n{value.name}\n".encode())
            if value.arguments:
                _write(out, value.arguments)
                out.write(b"R")
        case dict():
            out.write(b"}(")
            for key, item in value.items():
                _write(out, key)
                _write(out, item)
            out.write(b"u")
        case tuple() if value and value[0] == "storage":
            out.write(b"(")
            for item in value:
                _write(out, item)
            out.write(b"tQ")
        case tuple():
            out.write(b"(")
            for item in value:
                _write(out, item)
            out.write(b"t")
        case list():
            out.write(b"](")
            for item in value:
                _write(out, item)
            out.write(b"e")
        case bool() | None:
            out.write({True: b"\x88", False: b"\x89", None: b"N"}[value])
        case str():
            text = value.encode()
            out.write(b"X" + struct.pack("<I", len(text)) + text)
        case int():
            out.write(f"L{value}L\n".encode())
        case _:
            raise TypeError(value)


def tensor(
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: object = 0,
    key: str = "0",
    of: str = "FloatStorage",
) -> Named:
    storage = ("storage", Named("torch", of), key, "cpu", 1)
    hooks: dict[str, object] = {}
    return Named(
        "torch._utils", "_rebuild_tensor_v2", storage, offset, shape, stride, False, hooks
    )


def archive(
    path: Path,
    pickle_: bytes,
    storages: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
    others: Mapping[str, bytes] | None = None,
) -> Path:
    entries = {"data.pkl": pickle_, **(others or {})}
    entries |= {f"data/{key}": data for key, data in (storages or {}).items()}
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(f"archive/{name}", data)
    return path


def refused(path: Path) -> Diagnostic:
    with pytest.raises(ArchError) as raised:
        read_weights(path)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "checkpoint"
    return diagnostic


FLOATS = np.arange(12, dtype=np.float32)
STORAGES = {"0": FLOATS.tobytes()}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("offset", [0, 2])
@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((2, 3), (3, 1)),
        ((2, 3), (1, 2)),  # transposed
        ((3, 2), (4, 1)),  # columns of a wider matrix
        ((2, 3), (0, 1)),  # expanded
        ((2, 1, 2), (2, 99, 1)),  # an axis of one element has any stride
        ((2, 2, 2), (1, 4, 2)),
        ((0, 3), (3, 1)),
        ((), ()),
    ],
)
def test_every_stride_comes_out_right(
    tmp_path: Path,
    compression: int,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
) -> None:
    program = pickled({"w": tensor(shape, stride, offset)})
    path = archive(tmp_path / "a.pt", program, STORAGES, compression)
    expected = np.array(
        [FLOATS[offset + int(np.dot(index, stride))] for index in np.ndindex(*shape)],
        np.float32,
    )
    found = read_weights(path)["w"]
    assert found.shape == shape
    assert found.numpy().ravel().tolist() == expected.tolist()


def test_tensors_may_share_a_storage(tmp_path: Path) -> None:
    tied = {"a": tensor((3,), (1,)), "b": tensor((3,), (1,)), "c": tensor((3,), (1,), 2)}
    read = read_weights(archive(tmp_path / "a.pt", pickled(tied), STORAGES))
    assert [read[name].numpy().tolist() for name in "abc"] == [[0, 1, 2], [0, 1, 2], [2, 3, 4]]


def traps(sentinel: Path) -> Iterator[tuple[str, bytes]]:
    """Pickles that make the sentinel file when Python's own unpickler reads them."""
    code = f"open({str(sentinel)!r}, 'w').close()"
    shell = Named("posix", "system", f"touch '{sentinel}'")
    run = Named("numpy.testing._private.utils", "runstring", code, {})
    yield "posix.system", pickled(shell)
    yield "builtins.exec", pickled(Named("builtins", "exec", code))
    yield "builtins.eval", pickled({"w": Named("builtins", "eval", code)})
    yield "numpy.testing._private.utils.runstring", pickled(run)
    yield "builtins.eval", pickled(Named("builtins", "eval", code), protocol=0)
    # The same through the other instructions that name or call something.
    text = b"X" + struct.pack("<I", len(code)) + code.encode()
    short = b"".join(b"\x8c" + bytes([len(word)]) + word for word in (b"builtins", b"eval"))
    yield "builtins.eval", b"\x80\x04" + short + b"\x93" + text + b"\x85R."
    yield "INST", b"(" + text + b"ibuiltins\neval\n."
    yield "builtins.eval", b"(cbuiltins\neval\n" + text + b"o."
    yield "builtins.type", b"\x80\x02cbuiltins\ntype\ncbuiltins\neval\n0" + pickled(shell)[2:]


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("layout", ["archive", "stream", "storage list"])
def test_nothing_a_file_names_is_run(tmp_path: Path, number: int, layout: str) -> None:
    sentinel, path = tmp_path / "sprung", tmp_path / "a.pt"
    name, program = list(traps(sentinel))[number]
    pickle.loads(program)
    assert sentinel.exists()  # the trap is one
    sentinel.unlink()

    if layout == "archive":
        archive(path, program)
    elif layout == "stream" and program.startswith(b"\x80"):
        path.write_bytes(program)
    else:
        path.write_bytes(STREAM_HEAD + pickled({}) + program)
    diagnostic = refused(path)
    assert not sentinel.exists()
    assert f"`{name}`" in diagnostic.message
    assert "code in a checkpoint is never run" in str(diagnostic.expected)


def test_a_global_that_is_only_named_is_refused_too(tmp_path: Path) -> None:
    assert (
        "`os.system`"
        in refused(archive(tmp_path / "a", pickled(Named("os", "system")))).message
    )
    program = pickled({"w": Named("torch._utils._rebuild_tensor_v2", "__globals__")})
    assert "__globals__" in refused(archive(tmp_path / "a", program)).message


def test_an_instruction_that_no_state_dict_has(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", b"\x80\x02\x82\x01.")
    assert "the instruction `EXT1`" in refused(path).message


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"", "pickle exhausted before seeing STOP"),
        (b".", "pop from empty list"),
        (b"\x80\x02}.0", None),
        (b"N(", "pickle exhausted"),
        (b"t.", "pop from empty list"),
        (b"h\x07.", "KeyError(7)"),
        (b"r\xff\xff\xff\xff.", "IndexError"),  # a memo that Python's own would allocate
        (b"B\xff\xff\xff\xff.", "expected 4294967295 bytes"),
        (b"}(NNu.", "a key of type NoneType"),
        (b"}((NtNu.", "a key of type tuple"),
        (b"}(Nu.", "argument 2 is shorter"),
        (b"NNNs.", "a NoneType instead of a dict"),
        (b"NNa.", "a NoneType instead of a list"),
        (b"NNR.", "a NoneType instead of a tuple"),
        (b"N)R.", "a NoneType instead of a PythonName"),
        (b"NNb.", "a NoneType instead of a dict"),
        (b"N\x94Q.", "a NoneType instead of a tuple"),
        (b"NN\x93.", "a NoneType instead of a str"),
        (b"ctorch\nFloatStorage\n)R.", "KeyError('torch.FloatStorage')"),
        (pickled(Named("torch._utils", "_rebuild_tensor_v2", 1)), "missing 3 required"),
        (pickled(Named("torch._utils", "_rebuild_parameter", 1, True, 1)), "instead of a View"),
        (pickled({"w": tensor((2,), (1,), -1)}), "is not a non-negative integer"),
        (pickled({"w": tensor((2,), (-1,), 3)}), "is not a non-negative integer"),
        (pickled({"w": tensor((2,), (1,), "0")}), "is not a non-negative integer"),
        (pickled({"w": tensor((2,), (1, 1))}), "argument 2 is longer"),
        (pickled({"w": tensor((-2,), (1,))}), "not a valid shape"),
        (pickled({"w": tensor((13,), (1,))}), "uses element 12 of a storage of 12 elements"),
        (pickled({"w": tensor((2, 3), (6, 3))}), "uses element 12 of a storage of 12 elements"),
        (pickled({"w": tensor((1 << 40,), (1 << 40,))}), "of a storage of 12"),
        (pickled({"w": tensor((2,), (1,), key="1")}), "no entry `archive/data/1`"),
        (pickled({"w": tensor((2,), (1,), of="BoolStorage"), "v": tensor((2,), (1,))}), "two"),
    ],
)
def test_a_pickle_that_makes_no_sense(
    tmp_path: Path, program: bytes, words: str | None
) -> None:
    path = archive(tmp_path / "a.pt", program, STORAGES)
    if words is None:  # what follows the end of a pickle is not read
        assert read_weights(path) == {}
    else:
        assert words in str(refused(path).found)


def test_a_name_that_is_no_weight(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", pickled({"w": tensor((1,), (1,), of="QInt8Storage")}))
    assert "`torch.QInt8Storage`" in refused(path).message


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"byteorder": b"big"}, "big-endian byte order is not supported"),
        ({"constants.pkl": b""}, "a program written by torch.jit.save"),
        ({"data/0": b"12345"}, "must be a divisor"),
    ],
)
def test_archives_that_are_not_read(
    tmp_path: Path, others: dict[str, bytes], words: str
) -> None:
    storages = {} if "data/0" in others else STORAGES
    path = archive(
        tmp_path / "a.pt", pickled({"w": tensor((1,), (1,))}), storages, others=others
    )
    assert words in str(refused(path).found)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", pickled({}))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data.pkl", pickled({"w": 1}))
    assert refused(path).found == "two entries of the archive have the same name"


WEIGHTS = {"w": tensor((2,), (1,)), "v": tensor((3,), (1,), 1)}


def test_weights_under_a_key_are_read_and_it_is_said(tmp_path: Path) -> None:
    saved = {
        "epoch": 3,
        "state_dict": WEIGHTS,
        "optimizer": {"state": {0: {"m": WEIGHTS["w"]}}},
    }
    path = archive(tmp_path / "a.pt", pickled(saved), STORAGES)
    with pytest.warns(UserWarning, match="reading the weights under `state_dict`") as caught:
        read = read_weights(path)
    assert list(read) == ["w", "v"]
    assert str(caught[0].message) == (
        f"{path}: reading the weights under `state_dict`; "
        "the file also has `epoch: int` and `optimizer: dict`"
    )


NUMBER = tensor((), (), 2)


@pytest.mark.filterwarnings("ignore:.*reading the weights under")
def test_the_settings_beside_the_weights(tmp_path: Path) -> None:
    args = {"depth": 2, "bias": False, "betas": (9, None), "name": "a"}
    saved = {"model": WEIGHTS, "args": args, "step": 3, "loss": NUMBER, "ema": {"w": [NUMBER]}}
    path = archive(tmp_path / "a.pt", pickled(saved), STORAGES)
    opened = read_checkpoint(path)
    assert list(opened.tensors) == ["w", "v"]
    assert opened.config == {"args": args, "step": 3}


@pytest.mark.filterwarnings("ignore:.*reading the weights under")
@pytest.mark.parametrize("more", [{}, {"step": 3}, {"args": {}}, {"args": {1: 2}}])
def test_a_file_without_settings(more: dict[str, object], tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", pickled({"model": WEIGHTS, **more}), STORAGES)
    assert read_checkpoint(path).config is None


def test_names_without_the_wrapper_of_torch_compile(tmp_path: Path) -> None:
    names = {"_orig_mod.w": WEIGHTS["w"], "_orig_mod.h._orig_mod.v": WEIGHTS["v"]}
    path = archive(tmp_path / "a.pt", pickled(names), STORAGES)
    assert list(read_checkpoint(path).tensors) == ["w", "h.v"]


@pytest.mark.parametrize(
    ("saved", "found"),
    [
        ({"model": WEIGHTS, "ema": WEIGHTS}, "`model: dict of 2 tensors` and `ema: dict of 2"),
        ({"w": WEIGHTS["w"], "more": WEIGHTS}, "`w: tensor` and `more: dict of 2 tensors`"),
        ({"w": WEIGHTS["w"], "epoch": 3}, "`w: tensor` and `epoch: int`"),
        ({"a": {"b": WEIGHTS}}, "`a: dict`"),
        ({"a": {}}, "`a: dict of 0 tensors`"),
        ([WEIGHTS["w"]], "a list"),
        (WEIGHTS["w"], "a tensor"),
        ({3: WEIGHTS["w"]}, "`3: tensor`"),
    ],
)
def test_a_file_that_leaves_open_which_weights_are_meant(
    tmp_path: Path, saved: object, found: str
) -> None:
    path = archive(tmp_path / "a.pt", pickled(saved), STORAGES)
    diagnostic = refused(path)
    assert "unclear which tensors of the file are the weights" in diagnostic.message
    assert str(diagnostic.found).startswith(found)


STREAM_HEAD = (
    pickled(0x1950A86A20F9469CFC6C)
    + pickled(1001)
    + pickled({"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
)


def stream(path: Path, keys: Sequence[object] = ("0",), head: bytes = STREAM_HEAD) -> Path:
    """A file as PyTorch wrote it before version 1.6."""
    storage = struct.pack("<Q", len(FLOATS)) + FLOATS.tobytes()
    storages = pickled(list(keys)) + storage
    path.write_bytes(head + pickled({"w": tensor((3, 2), (1, 4), 1)}) + storages)
    return path


def test_the_stream_of_early_pytorch(tmp_path: Path) -> None:
    read = read_weights(stream(tmp_path / "a.bin"))
    assert read["w"].numpy().tolist() == [[1, 5], [2, 6], [3, 7]]


def test_a_stream_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(pickled({"a": 1}))
    assert refused(path).found == "a pickle that was not written by torch.save"
    big = STREAM_HEAD.replace(b"little_endian\x88", b"little_endian\x89")
    assert refused(stream(path, head=big)).found == "big-endian byte order is not supported"


@pytest.mark.parametrize("keys", [["1"], [[]], []])
def test_a_stream_with_other_storages_than_its_tensors(
    tmp_path: Path, keys: Sequence[object]
) -> None:
    refused(stream(tmp_path / "a.pt", keys))


def whole(path: Path, layout: str) -> bytes:
    if layout == "stream":
        stream(path)
    else:
        kind = zipfile.ZIP_STORED if layout == "stored" else zipfile.ZIP_DEFLATED
        archive(path, pickled(WEIGHTS), STORAGES, kind)
    return path.read_bytes()


@pytest.mark.parametrize("layout", ["stream", "stored", "deflated"])
def test_every_file_that_is_cut_short_is_refused(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "a.pt"
    content = whole(path, layout)
    read_weights(path)
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        refused(path)


@pytest.mark.few(1)
@pytest.mark.filterwarnings("ignore")  # pickletools warns of some damaged text
@pytest.mark.parametrize("layout", ["stream", "stored", "deflated"])
def test_no_damage_is_met_with_another_error(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "a.pt"
    content = whole(path, layout)
    random_ = random.Random(0)
    refusals = 0
    for _ in range(1000):
        damaged = bytearray(content)
        damaged[random_.randrange(len(content))] = random_.randrange(256)
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except ArchError:
            refusals += 1
    assert refusals > 300
