"""Runs a command that must not outlive the process that started it.

A script of its own, started by its path before the command: it needs nothing but the standard
library and is gone in a few milliseconds. `leash.py PARENT_PID SIGNAL [--watch] COMMAND...`

On Linux the kernel sends SIGNAL to the command when the parent dies, by whatever cause, and the
command takes this process's place. Elsewhere (or with --watch) this process stays: it looks twice
a second whether its parent still lives, and passes its end on.
"""

import ctypes
import os
import signal
import subprocess
import sys

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, linux/prctl.h
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 5


def main(arguments: list[str]) -> int:
    """Run the command to its end; on Linux, become it."""
    parent, number, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    if sys.platform == "linux" and command[0] != "--watch":
        if ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, number, 0, 0, 0) != 0:
            return _fail(f"prctl: {os.strerror(ctypes.get_errno())}")
        if os.getppid() != parent:
            return 1  # it died before it was asked for
        try:
            os.execv(command[0], command)  # noqa: S606  the command is our own, and no shell's
        except OSError as error:
            return _fail(f"{command[0]}: {error.strerror}")
    return _watch(parent, number, command[1:] if command[0] == "--watch" else command)


def _watch(parent: int, number: int, command: list[str]) -> int:
    # A handler, not SIG_IGN, which the command would inherit: the group's signals reach it too.
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: None)
    process = subprocess.Popen(command, close_fds=False)  # noqa: S603  the command is our own
    while True:
        try:
            code = process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                return _end(process, number)
        else:
            return code if code >= 0 else 128 - code


def _end(process: "subprocess.Popen[bytes]", number: int) -> int:
    process.send_signal(number)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    return 1


def _fail(sentence: str) -> int:
    sys.stderr.write(f"rejoin: cannot start {sentence}\n")
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
