"""Runs `archdsl`, and sends it a signal at an audit event.

    python tests/cli/interrupting.py SIGNAL EVENT TEXT COMMAND ...

EVENT is one of Python's audit events, such as `import`, `open` and `subprocess.Popen`. The
signal comes at the first one whose arguments have TEXT in them.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> int:
    name, event, text, *sys.argv[1:] = sys.argv[1:]
    waiting = [signal.Signals[name]]

    def hook(happened: str, given: object) -> None:
        if happened == event and waiting and text in str(given):
            os.kill(os.getpid(), waiting.pop())

    sys.addaudithook(hook)
    from archdsl.__main__ import script

    return script()


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    sys.exit(main())
