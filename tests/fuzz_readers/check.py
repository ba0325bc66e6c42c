"""What must hold for each file: the answer of a reader is a value or a diagnostic, soon."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType, TracebackType

from archdsl.diagnostics import ArchError
from tests.fuzz_readers.readers import Reader

SECONDS = 2  # of processor time
HANGS = 20  # seconds
BYTES = 1 << 30


class Bench:
    """A folder in which a reader reads file after file."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self._folder = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        reader.beside(Path(self._folder))
        self.seeds = reader.seeds()
        self.count = 0  # of files
        self._write(self.seeds[0])  # valid; the first use of a reader takes longer
        with nullcontext() if reader.valid else suppress(ArchError):
            reader.read(self._path)

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        shutil.rmtree(self._folder)

    @property
    def _path(self) -> Path:
        return Path(self._folder, self.reader.name)

    def _write(self, content: bytes) -> None:
        self._path.write_bytes(self.reader.wrap(content))

    def complaint(self, content: bytes) -> str | None:
        """What is wrong with how the content is answered, or None."""
        self.count += 1
        self._write(content)
        _forget_peak()
        before, start = _peak(), time.process_time()
        try:
            _answer(self.reader, self._path)
        except Exception:
            return traceback.format_exc()
        except BaseException as error:  # a panic of a package is none of the others
            if isinstance(error, KeyboardInterrupt):
                raise
            return traceback.format_exc()
        seconds, size = time.process_time() - start, _peak() - before
        if seconds > SECONDS:
            return f"took {seconds:.1f} s"
        return f"took {size >> 20} MiB" if size > BYTES else None


class _Hangs(BaseException):
    """Not an error that a reader may catch."""


def _answer(reader: Reader, path: Path) -> None:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(path)
    except ArchError as error:
        for each in error.diagnostics:
            each.render()
            each.as_dict()
        if isinstance(error.__cause__, MemoryError):
            raise MemoryError("beyond the memory of the fuzzer") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def way(error: str) -> str:
    """The kind of an error and the last place of ours: what makes two failures the same."""
    frames = re.findall(r'archdsl/(\w+/\w+\.py)", line (\d+)', error)
    kind = error.strip().splitlines()[-1].partition(":")[0]
    return f"{re.sub('[0-9.]+', 'n', kind)} {frames[-1:]}"


def limit_memory() -> None:
    """At most 3 GiB for this process."""
    resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most memory since the last `_forget_peak`, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0
