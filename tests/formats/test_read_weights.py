"""How `read_weights` detects formats, and its errors for other files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.formats import read_weights, write_npz, write_safetensors


def refused(path: Path) -> Diagnostic:
    with pytest.raises(ArchError) as raised:
        read_weights(path)
    (diagnostic,) = raised.value.diagnostics
    return diagnostic


def test_the_content_and_not_the_suffix_decides(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_safetensors(tmp_path / "a.bin", {"w": array})
    write_npz(tmp_path / "b.pt", {"w": array})
    for name in ("a.bin", "b.pt"):
        np.testing.assert_array_equal(read_weights(tmp_path / name)["w"].numpy(), array)


def test_a_missing_file_is_answered_with_the_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"any")
    diagnostic = refused(tmp_path / "modle.safetensors")
    assert diagnostic.code == "file"
    assert diagnostic.help == "did you mean `model.safetensors`?"


def test_a_missing_folder(tmp_path: Path) -> None:
    diagnostic = refused(tmp_path / "nowhere" / "model.pt")
    assert diagnostic.code == "file"
    assert diagnostic.help is None


def test_a_name_longer_than_a_file_system_allows(tmp_path: Path) -> None:
    assert refused(tmp_path / ("x" * 300)).code == "file"


def test_a_folder_is_answered_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"any")
    diagnostic = refused(tmp_path)
    assert diagnostic.code == "file"
    assert diagnostic.found == "a folder with `model.pt`"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    assert refused(tmp_path / "pipe.pt").code == "file"


def test_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "link.pt").symlink_to(tmp_path / "gone.pt")
    assert refused(tmp_path / "link.pt").code == "file"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\n<!DOCTYPE html><html><body>Not found</body></html>", "this is a web page"),
        (b"<HTML>", "this is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        pytest.param(
            b"GGUF\x03\x00\x00\x00",
            "cannot read the file as a GGUF file",
            marks=pytest.mark.reference("gguf"),
        ),
        (b'{"error": "not found"}', "unknown format of weights"),
        (b"PK\x03\x04", "cannot read the file as an archive of weights"),
        (b"P", "unknown format of weights"),
    ],
)
@pytest.mark.parametrize("name", ["model.pt", "model.npz", "model"])
def test_what_is_no_file_of_weights(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    diagnostic = refused(path)
    assert diagnostic.code == "checkpoint"
    assert diagnostic.message.startswith(f"{path}: ")
    assert words in diagnostic.message


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("hello")
    path = Path(shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path, "letter.txt"))
    diagnostic = refused(path)
    assert diagnostic.code == "checkpoint"
    assert diagnostic.found == "`letter.txt` is not an array"


def test_a_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    """tinygrad's DISK device would still read the first file while `old` exists."""
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": np.zeros(4, np.float32)})
    old = read_weights(path)["w"]
    write_safetensors(path, {"w": np.ones(4000, np.float32)})
    assert read_weights(path)["w"].numpy().sum() == 4000
    assert old.numpy().sum() == 0


def test_a_file_may_be_written_from_its_own_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"v": np.arange(5), "w": np.ones((2, 3), np.float16)})
    before = path.read_bytes()
    write_safetensors(path, read_weights(path))
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_a_file_is_opened_for_reading_only(tmp_path: Path) -> None:
    """A file in a read-only folder must load."""
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": np.ones(4, np.float32)})
    tensor = read_weights(path)["w"]
    opened = [
        int(line.split()[1], 8)
        for fd in os.listdir("/proc/self/fd")
        if os.path.realpath(f"/proc/self/fd/{fd}") == str(path)
        for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        if line.startswith("flags:")
    ]
    assert tensor.numpy().sum() == 4
    assert opened
    assert all(flags & (os.O_WRONLY | os.O_RDWR) == 0 for flags in opened)


def test_importing_the_folder_leaves_tinygrad_out() -> None:
    code = "import sys, archdsl.formats; sys.exit('tinygrad' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_reach_a_device_and_return(tmp_path: Path) -> None:
    """The one test of this folder that computes, and so needs tinygrad's compiler."""
    weights = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3)).to("CPU")
    computed = (weights.T * 2).cast(dtypes.bfloat16)
    write_safetensors(tmp_path / "a", {"w": computed, "scalar": computed[2, 1], "v": weights})
    read = {name: tensor.to("CPU") for name, tensor in read_weights(tmp_path / "a").items()}
    assert read["w"].dtype == dtypes.bfloat16
    assert read["w"].float().numpy().tolist() == [[0, 6], [2, 8], [4, 10]]
    assert read["scalar"].float().numpy().tolist() == 10
    assert (read["v"] + 1).numpy().tolist() == [[1, 2, 3], [4, 5, 6]]
