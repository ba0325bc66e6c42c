"""A fuzzer of the readers: damaged files must be answered by diagnostics, soon.

    python -m tests.fuzz_readers --seconds 3600
    python -m tests.fuzz_readers gguf tokenizer --seconds 600 --failures failures

Each reader gets an equal part of the time, in a process of its own. With the package atheris,
its coverage guides the changes; without it, they are random. A file that ends in an exception,
takes over 2 s or over 1 GiB is a failure: it is kept in the folder `--failures`, and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fuzz_readers.mutations import mutate

if TYPE_CHECKING:  # after atheris is set up
    from tests.fuzz_readers.readers import Reader


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz_readers")
    parser.add_argument("readers", nargs="*", help="their names (default: all)")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--failures", type=Path, default=Path(tempfile.gettempdir(), "failures")
    )
    args = parser.parse_args()
    args.failures.mkdir(parents=True, exist_ok=True)
    atheris = None
    if importlib.util.find_spec("atheris"):
        atheris = importlib.import_module("atheris")
        with atheris.instrument_imports(include=["archdsl"]):
            importlib.import_module("tests.fuzz_readers.readers")
    readers = importlib.import_module("tests.fuzz_readers.readers").READERS
    names = args.readers or [*readers]
    failed = False
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for name in names:
            # libFuzzer ends its process, and the limit of memory is for one.
            child = os.fork()
            if not child:
                seconds = args.seconds / len(names)
                found = fuzz(name, readers[name], atheris, seconds, args.seed, args.failures)
                os._exit(found > 0)
            failed |= os.waitpid(child, 0)[1] != 0
    return int(failed)


def fuzz(
    name: str, reader: Reader, atheris: Any, seconds: float, seed: int, failures: Path
) -> int:
    """Fuzzes one reader; returns the number of ways in which it fails."""
    from tests.fuzz_readers.check import Bench, limit_memory, way

    limit_memory()
    with Bench(reader) as bench, tempfile.TemporaryDirectory() as corpus:
        ways: set[str] = set()
        start = time.monotonic()

        def test(content: bytes) -> None:
            found = bench.complaint(content)
            if found is None or (key := way(found)) in ways:
                return
            place = failures / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
            place.write_bytes(content)
            place.with_suffix(".txt").write_text(found)
            ways.add(key)
            sys.stdout.write(f"== {place}\n{found}\n")
            sys.stdout.flush()

        def changed(content: bytes, most: int, seed: int) -> bytes:
            rng = random.Random(seed)
            if rng.random() < 0.3:
                return bytes(atheris.Mutate(content, most))
            return mutate(rng, content, bench.seeds, reader.kind)[:most]

        def guided(content: bytes) -> None:
            test(content)
            if time.monotonic() > start + seconds:
                end()
                shutil.rmtree(corpus)
                bench.close()
                os._exit(len(ways) > 0)  # libFuzzer does not return

        def end() -> None:
            spent = time.monotonic() - start
            said = f"{bench.count} files in {spent:.0f} s, {len(ways)} ways of failing"
            sys.stdout.write(f"{name}: {said}\n")
            sys.stdout.flush()

        for number, content in enumerate(bench.seeds):
            Path(corpus, str(number)).write_bytes(content)
        if atheris is not None:
            longest = 2 * max(map(len, bench.seeds)) + 256
            options = (f"-seed={seed}", f"-max_len={longest}", "-timeout=60", "-verbosity=0")
            command = [sys.argv[0], corpus, *options, "-rss_limit_mb=4096"]
            atheris.Setup(command, guided, custom_mutator=changed)
            atheris.Fuzz()
        rng = random.Random(seed)
        while time.monotonic() < start + seconds:
            test(mutate(rng, rng.choice(bench.seeds), bench.seeds, reader.kind))
        end()
    return len(ways)


if __name__ == "__main__":
    sys.exit(main())
