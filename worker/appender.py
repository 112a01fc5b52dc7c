"""Sends what all attempts of a worker have written, in one round trip; the rest goes with the next.

So a lone first token never waits, and under load batches grow by themselves, without a timer.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Final, Protocol

from redis.asyncio import Redis

from rejoin.shared import call_notes, log
from rejoin.shared.call_notes import CallNote
from rejoin.shared.errors import LogRefused, LogUnavailable

_LOGS_A_ROUND: Final = 256
_LONGEST_PAUSE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Sender(Protocol):
    """One attempt's writer, as its appender sees it."""

    def take(self) -> log.Batch:
        """Hand over what waits."""

    def settle(self, outcome: log.Appended | LogRefused) -> None:
        """Hear what became of it."""

    async def reopen(self) -> None:
        """Open the log again, and put again what it lost."""


class Appender:
    """Sends the writers' batches. `run` does it; whoever starts it cancels it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[Sender] = []
        self._wake = asyncio.Event()
        self._calls: list[CallNote] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, writer: Sender) -> None:
        """Take a writer that has something to send, with the next round."""
        self._waiting.append(writer)
        self._wake.set()

    def reopen(self, writer: Sender) -> None:
        """Open a writer's log again, beside the rounds."""
        self._beside(writer.reopen())

    def note_call(self, call: CallNote) -> None:
        """Note a model call as it is made, beside the rounds: nobody waits for it."""
        self._calls.append(call)
        if len(self._calls) == 1:
            self._beside(self._note_calls())

    def _beside(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _note_calls(self) -> None:
        calls, self._calls = self._calls, []
        try:
            await call_notes.note(self._redis, calls)
        except Exception as error:  # noqa: BLE001  a bill may be too low, which stops no answer
            _log.warning("%s; %d model calls are not noted", error, len(calls))

    async def run(self) -> None:
        """Send rounds for ever; a round that Redis did not take is sent again, the very same."""
        try:
            await self._run()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            writers = self._waiting[:_LOGS_A_ROUND]
            self._waiting = self._waiting[_LOGS_A_ROUND:]
            if not self._waiting:
                self._wake.clear()
            batches = [writer.take() for writer in writers]
            for writer, outcome in zip(writers, await self._append(batches), strict=True):
                writer.settle(outcome)

    async def _append(self, batches: list[log.Batch]) -> list[log.Appended | LogRefused]:
        pause = 0.05
        while True:
            try:
                return await log.append_all(self._redis, batches)
            except LogUnavailable as error:
                _log.warning("%s; %d logs wait to be written", error, len(batches))
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
