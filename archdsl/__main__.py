"""The process: `archdsl` and `python -m archdsl`, which a signal ends as it ends any program.

What was under way is cleaned up, and then the process ends by that very signal, so that a
shell sees what ended it. No moment of its life answers with a traceback: so little is imported
here, and all else inside `script`.
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
    """What SIGTERM and SIGHUP raise; a Ctrl-C raises Python's own `KeyboardInterrupt`."""


def script() -> int:
    """Runs the command of `sys.argv` and returns its exit status, unless a signal ends it."""
    ended_by: list[signal.Signals] = []
    atexit.register(_end, ended_by)  # the first that is registered is the last to be called
    sys.unraisablehook = _again
    for each in _ENDING:
        if signal.getsignal(each) is signal.SIG_DFL:  # nohup's is ignored
            signal.signal(each, _raise)
    # tinygrad's pool of compilers takes longer to start than it saves in the kernels of a
    # model, whose layers share theirs; and a Ctrl-C while it starts is answered by each of it.
    os.environ.setdefault("PARALLEL", "0")
    # Where the shell has closed one; it is ours as long as we live.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        # What is imported is no garbage, and is never looked through for any.
        gc.disable()
        from archdsl.cli import arguments, perform

        args = arguments(sys.argv[1:])
        gc.freeze()
        gc.enable()
        return perform(args)
    except KeyboardInterrupt:
        ended_by.append(signal.SIGINT)
    except Ended as ended:
        ended_by.append(ended.args[0])
    except BrokenPipeError:
        ended_by.append(signal.SIGPIPE)  # whoever read our output has gone
    finally:
        for each in _ENDING:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)  # from here on there is nothing to clean up
        gc.freeze()  # as Python ends it would look through everything for garbage, twice
    return 128 + ended_by[0]


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Ended(signal.Signals(number))


def _again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in a `__del__`, of which tinygrad calls many: a signal that
    came there comes again a moment later."""
    match lost.exc_value:
        case KeyboardInterrupt():
            number = signal.SIGINT
        case Ended(args=(number,)):
            pass
        case _:
            sys.__unraisablehook__(lost)
            return
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()


def _end(ended_by: list[signal.Signals]) -> None:
    for number in ended_by:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(script())
