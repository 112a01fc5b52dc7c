"""A log that answers when a test says so: for the writer, without Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from redis.asyncio import Redis

from rejoin.shared import log
from rejoin.shared.errors import LogRefused, LogUnavailable
from rejoin.shared.record import Claim
from rejoin.worker.appender import Appender
from rejoin.worker.stopping import Stop
from rejoin.worker.writer import Writer

Reply = log.Appended | LogRefused | LogUnavailable | None


class HeldLog:
    """Keeps every round of batches; each waits for `answer`, or is answered at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, held: bool = True) -> None:
        self.rounds: list[list[log.Batch]] = []
        self.held = held
        self.bytes = 0
        self._replies: asyncio.Queue[Reply] = asyncio.Queue()
        self._news = asyncio.Event()
        monkeypatch.setattr("rejoin.worker.writer.log.append_all", self._append_all)

    async def _append_all(
        self, redis: Redis, batches: Sequence[log.Batch]
    ) -> list[log.Appended | LogRefused]:
        self.rounds.append(list(batches))
        self._news.set()
        reply = await self._replies.get() if self.held else None
        if isinstance(reply, LogUnavailable):
            raise reply
        self.bytes += sum(len(frame.data) for sent in batches for frame in sent.frames)
        return [reply or log.Appended(cancel_asked=False, log_bytes=self.bytes) for _ in batches]

    def answer(self, reply: Reply = None) -> None:
        """Let the round under way, or the next one, be answered; None: it was stored."""
        self._replies.put_nowait(reply)

    async def until_rounds(self, count: int) -> None:
        """Wait until so many rounds were sent; TimeoutError after 5 s."""
        async with asyncio.timeout(5):
            while len(self.rounds) < count:
                self._news.clear()
                await self._news.wait()

    def names(self) -> list[list[str]]:
        """The events' names, round by round, of a single writer."""
        return [[frame.name for sent in one for frame in sent.frames] for one in self.rounds]


class Stops(list[Stop]):
    """The reasons that a writer told, in order."""

    def tell(self, reason: Stop) -> None:
        """Take one."""
        self.append(reason)


@asynccontextmanager
async def running(appender: Appender) -> AsyncIterator[Appender]:
    """Run an appender for the block."""
    task = asyncio.create_task(appender.run())
    try:
        yield appender
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def new_writer(
    appender: Appender,
    stop: Callable[[Stop], None],
    *,
    most_log_bytes: int = 10**9,
    message_id: str = "m",
) -> Writer:
    """A writer of attempt 1."""
    return Writer(
        appender,
        message_id,
        Claim(1, "token", cancel_asked=False, lost_runs=0),
        600,
        most_log_bytes=most_log_bytes,
        stop=stop,
    )
