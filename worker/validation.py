"""Asks the validator process what of a text does not fit a schema: one a worker, begun at need."""

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from typing import Final

from rejoin.shared.errors import RejoinError
from rejoin.shared.json_schema import Schema

SECONDS: Final = 2.0  # for one text; those that wait for their turn wait so much longer

_LONGEST_LINE: Final = 2**20
_SLACK_SECONDS: Final = 15.0  # for a process to begin, on a machine that is busy


class Unfit(RejoinError):
    """A text could not be validated: its schema takes too long, or cannot be applied at all."""


class Validation:
    """The way to the validator process. Whoever made it closes it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._process: Process | None = None

    async def faults(self, schema: Schema, text: str) -> list[str]:
        """Say where `text` is no JSON or does not fit `schema`; [] where it fits.

        Raises:
            Unfit: that cannot be said.
            OSError: the process cannot be begun, or somebody ended it.
        """
        asked = json.dumps({"schema": schema, "text": text, "seconds": self._seconds})
        async with self._turn:
            process = await self._begun()
            line = b""
            try:
                line = await _ask(process, asked.encode() + b"\n", self._seconds + _SLACK_SECONDS)
            finally:
                if not line:  # an answer that comes late would be taken for the next one's
                    await self.aclose()
            if process.returncode == -signal.SIGALRM:
                raise Unfit(f"it took longer than {self._seconds:g} seconds")
            if not line:
                raise OSError(f"the validator process ended with {process.returncode}")
        answer = json.loads(line)
        if "unfit" in answer:
            raise Unfit(str(answer["unfit"]))
        return [str(fault) for fault in answer["faults"]]

    async def aclose(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _begun(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "rejoin.worker.validator"),
                stdin=PIPE,
                stdout=PIPE,
                limit=_LONGEST_LINE,
            )
        return self._process


async def _ask(process: Process, line: bytes, seconds: float) -> bytes:
    """Send a line and return the one that answers it; b"" where none comes: it ends, or hangs."""
    assert process.stdin is not None  # noqa: S101  both were asked for above
    assert process.stdout is not None  # noqa: S101
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                process.stdin.write(line)
                await process.stdin.drain()
                if (answer := await process.stdout.readline()).endswith(b"\n"):
                    return answer
            # A kill would look for its end too, and asyncio would never hear how it ended.
            await process.wait()
    return b""
