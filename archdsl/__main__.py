"""The process of `archdsl` and `python -m archdsl`, and its handling of signals.

On a signal, the command cleans up, and the process ends by the same signal, so that a shell
sees the cause. No signal prints a traceback, so most imports are inside `script`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """Raised by SIGTERM and SIGHUP; Ctrl-C raises Python's `KeyboardInterrupt`."""


def script() -> int:
    """Runs the command of `sys.argv`; returns its exit status unless a signal ends it."""
    ended_by: list[signal.Signals] = []
    atexit.register(_end_by_signal, ended_by)  # registered first, called last
    sys.unraisablehook = _resend_signal
    for each in _ENDING:
        if signal.getsignal(each) is signal.SIG_DFL:  # not the ignored SIGHUP of nohup
            signal.signal(each, _raise)
    # tinygrad's pool of compiler processes takes longer to start than it saves, because layers
    # share kernels; and on Ctrl-C during its start each process prints a traceback.
    os.environ.setdefault("PARALLEL", "0")
    # The shell may have closed them. They stay open until the process ends.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        # Imported modules are never garbage, so the collector need not scan them.
        gc.disable()
        from archdsl.cli import parse_arguments, run_command

        args = parse_arguments(sys.argv[1:])
        gc.freeze()
        gc.enable()
        return run_command(args)
    except KeyboardInterrupt:
        ended_by.append(signal.SIGINT)
    except Ended as ended:
        ended_by.append(ended.args[0])
    except BrokenPipeError:
        ended_by.append(signal.SIGPIPE)  # the reader of the output has closed it
    finally:
        for each in _ENDING:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)  # nothing to clean up any more
        gc.freeze()  # else Python collects garbage twice at exit
    return 128 + ended_by[0]


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Ended(signal.Signals(number))


def _resend_signal(lost: sys.UnraisableHookArgs) -> None:
    """Sends a signal again if it was raised in a `__del__`, where Python drops exceptions."""
    match lost.exc_value:
        case KeyboardInterrupt():
            number = signal.SIGINT
        case Ended(args=(number,)):
            pass
        case _:
            sys.__unraisablehook__(lost)
            return
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()


def _end_by_signal(ended_by: list[signal.Signals]) -> None:
    for number in ended_by:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(script())
