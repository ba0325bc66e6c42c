"""A file is replaced completely or not at all, also after an error."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from archdsl.diagnostics import ArchError
from archdsl.formats import read_weights, write_safetensors
from archdsl.formats.atomic import replacing


def test_the_new_content_takes_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
import numpy as np
from archdsl.formats import write_safetensors
{moment} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
write_safetensors(sys.argv[1], {{"w": np.ones(1000, np.float32)}})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("moment", ["os.fsync", "os.replace", "np.ascontiguousarray"])
def test_a_process_killed_while_it_writes(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": np.zeros(10, np.float32)})
    before = path.read_bytes()
    code = KILLED.format(moment=moment)
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert read_weights(path)["w"].numpy().sum() == 0


def test_permissions_stay_and_new_files_have_the_usual_ones(tmp_path: Path) -> None:
    old, new, usual = tmp_path / "old", tmp_path / "new", tmp_path / "usual"
    old.touch()
    old.chmod(0o640)
    usual.touch()
    for path in (old, new):
        with replacing(path) as temporary:
            temporary.write_text("text")
    assert old.stat().st_mode & 0o777 == 0o640
    assert new.stat().st_mode == usual.stat().st_mode


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a.txt"
    with pytest.raises(ArchError) as raised, replacing(path):
        pass
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "file"
    assert diagnostic.help == f"mkdir -p {tmp_path / 'runs'}"


@pytest.mark.parametrize("inner", ["", "file/a.txt", "x" * 300])
def test_what_cannot_be_written(tmp_path: Path, inner: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchError, match="cannot write"), replacing(tmp_path / inner):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_is_not_replaced() -> None:
    with pytest.raises(ArchError, match="not a regular file"), replacing("/dev/full"):
        pass
    assert not Path("/dev/full").is_file()


def test_a_full_disk_is_a_diagnostic(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(ArchError, match="cannot write: No space"),
        replacing(tmp_path / "a"),
    ):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_another_files_error_stays_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "a"):
        (tmp_path / "elsewhere").read_bytes()


def test_temporary_files_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from archdsl.formats.atomic import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("written", flush=True)
    sys.stdin.readline()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        (left,) = tmp_path.iterdir()
        os.utime(left, (0, 0))
        with replacing(tmp_path / "b") as temporary:
            temporary.touch()
        assert left.exists()  # its process is running
        writer.kill()
        writer.wait()
    with replacing(tmp_path / "b") as temporary:
        temporary.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
