"""Runs the `rejoin` command as its users do, in a directory and with settings of its own."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import psutil

from tests.support.processes import _environment

REJOIN: Final = Path(sys.executable).with_name("rejoin")
WITHIN: Final = 60.0


def environment(directory: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """The machine's environment without what would change a test; no Redis is named."""
    own = _environment("", directory, settings)
    if "REJOIN_REDIS_URL" not in settings:
        del own["REJOIN_REDIS_URL"]
    # The user's own last conversation is neither read nor changed; readline writes plain text.
    return {**own, "XDG_STATE_HOME": str(directory / "state"), "TERM": "dumb", **settings}


def run(
    directory: Path, *arguments: str, stdin: bytes = b"", **settings: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, bounded."""
    return subprocess.run(
        [REJOIN, *arguments],
        input=stdin,
        capture_output=True,
        timeout=WITHIN,
        cwd=directory,
        env=environment(directory, settings),
        check=False,
    )


class Running:
    """A `rejoin` command that runs; on a terminal of its own where asked for.

    `keyboard`: what is typed there is its stdin.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        terminal: bool = False,
        keyboard: bool = False,
        **settings: str,
    ):
        self.log = directory / f"{arguments[0]}.log"
        self._terminal = -1
        self._shown = b""
        output: int | None = None
        if terminal:
            self._terminal, output = pty.openpty()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [REJOIN, *arguments],
                stdin=output if keyboard else subprocess.DEVNULL,
                stdout=log if output is None else output,
                stderr=log,
                cwd=directory,
                env=environment(directory, settings),
                start_new_session=True,
            )
        if output is not None:
            os.close(output)

    @property
    def said(self) -> str:
        """What it has said in its log so far."""
        return self.log.read_text(errors="replace")

    def shown(self) -> str:
        """What it has written to its terminal so far."""
        os.set_blocking(self._terminal, False)
        try:
            while part := os.read(self._terminal, 65536):
                self._shown += part
        except (BlockingIOError, OSError):
            pass  # nothing new, or the command has ended
        return self._shown.decode().replace("\r\n", "\n")

    def until(self, seen: Callable[[], bool], within: float = WITHIN) -> Self:
        """Wait until `seen()`; fail when the command ends before, or after the bound."""
        end = time.monotonic() + within
        while not seen():
            ended = self.process.poll() is not None
            if ended and not seen():
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.said}")
            if time.monotonic() > end:
                raise AssertionError(f"not seen in time:\n{self.said}")
            time.sleep(0.02)
        return self

    def until_said(self, pattern: str) -> re.Match[str]:
        """Wait for a pattern in its log."""
        self.until(lambda: re.search(pattern, self.said) is not None)
        found = re.search(pattern, self.said)
        assert found is not None
        return found

    def type(self, text: str) -> None:
        """Type on its terminal."""
        os.write(self._terminal, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, for this process alone."""
        self.process.send_signal(signal.SIGINT)

    def wait(self, within: float = WITHIN) -> int:
        """Wait for its end: the exit code."""
        return self.process.wait(within)

    def family(self) -> list[psutil.Process]:
        """Its children and theirs, as of now."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> None:
        """End it and whatever it left, at the latest."""
        left = [] if self.process.poll() is not None else self.family()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(WITHIN)
        for process in left:
            if process.is_running():
                process.kill()
        if self._terminal >= 0:
            os.close(self._terminal)


@contextmanager
def running(
    directory: Path,
    *arguments: str,
    terminal: bool = False,
    keyboard: bool = False,
    **settings: str,
) -> Iterator[Running]:
    """Run a command for the length of the block."""
    command = Running(directory, *arguments, terminal=terminal, keyboard=keyboard, **settings)
    try:
        yield command
    finally:
        command.end()


def gone(processes: list[psutil.Process], within: float = WITHIN) -> list[psutil.Process]:
    """Wait until they have all ended; return those that have not."""
    _, alive = psutil.wait_procs(processes, timeout=within)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
