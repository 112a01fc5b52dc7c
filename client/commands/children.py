"""Child processes that end with this one, in a process group of their own each."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rejoin.shared import leash

LEASH: Final = Path(leash.__file__)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and how.

    `stdin` is given to it at its start; `output` is the file to which what it says is added
    (None: our own output); `keep_open` are our files that it holds too; `death_signal` ends it
    when we are killed.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    stdin: bytes = b""
    output: Path | None = None
    directory: Path | None = None
    keep_open: Sequence[int] = ()
    death_signal: signal.Signals = signal.SIGKILL


def module(name: str) -> list[str]:
    """The arguments that run a module of ours: never one of that name in the present folder."""
    return [sys.executable, "-P", "-m", name]


@dataclass(slots=True)
class Child:
    """One child: started, awaited, ended, and started again. Has one owner, who ends it."""

    command: Command
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)

    @property
    def running(self) -> bool:
        """Whether it was started and has not been seen to end."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, or start it again after its end.

        In a session of its own: a Ctrl-C in the terminal is for us, who then end it in order.
        """
        command = self.command
        with nullcontext() if command.output is None else command.output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LEASH), str(os.getpid())),
                *(str(int(command.death_signal)), *command.arguments),
                stdin=asyncio.subprocess.PIPE if command.stdin else asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=command.directory,
                env=dict(command.environment),
                pass_fds=command.keep_open,
                start_new_session=True,
            )
        if command.stdin:
            await self._feed(self._process, command.stdin)

    async def _feed(self, process: asyncio.subprocess.Process, content: bytes) -> None:
        assert process.stdin is not None  # noqa: S101  it was asked for above
        try:
            process.stdin.write(content)
            await process.stdin.drain()
        except ConnectionError:
            return  # it ended before it read; whoever waits for it sees how
        finally:
            process.stdin.close()

    async def wait(self) -> int:
        """Wait for its end: the exit code, negative for the signal that ended it."""
        assert self._process is not None, f"{self.command.name} was not started"  # noqa: S101
        return await self._process.wait()

    def kill(self) -> None:
        """End it at once, and what it started with it; harmless when it does not run."""
        self._signal(signal.SIGKILL)

    async def stop(self, seconds: float) -> bool:
        """Ask it to end; kill it after `seconds`. Return whether it ended by itself."""
        self._signal(signal.SIGTERM)
        if self._process is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # it has just ended; macOS says the second


def describe(code: int) -> str:
    """Say an exit code as people do."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
