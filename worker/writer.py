"""Writes events to logs: gathers what comes while an append is in flight, without a timer.

One appender a worker process sends what all its attempts have written in one round trip; what
comes meanwhile goes with the next. So a lone first token never waits, and under load batches
grow by themselves.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from redis.asyncio import Redis

from rejoin.shared import log
from rejoin.shared.ending import ending_of
from rejoin.shared.errors import CancelAsked, LogRefused, LogUnavailable
from rejoin.shared.events import Event
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId
from rejoin.shared.record import Claim
from rejoin.worker.stopping import Stop

MOST_WAITING_BYTES: Final = 1_048_576  # of one attempt; beyond it the provider is not read on

_LOGS_A_ROUND: Final = 256
_LONGEST_PAUSE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Appender:
    """Sends the writers' batches. `run` does it; whoever starts it cancels it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[Writer] = []
        self._wake = asyncio.Event()

    def add(self, writer: "Writer") -> None:
        """Take a writer that has something to send, with the next round."""
        self._waiting.append(writer)
        self._wake.set()

    async def run(self) -> None:
        """Send rounds for ever; a round that Redis did not take is sent again, the very same."""
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


class Writer:
    """One attempt's way to its log: numbers and encodes events, and hears what the log says.

    `stop` is told when a cancel was asked for, when the log is full, or when it refuses.
    `after_step`: a cancel was asked for that lets the present step end.
    """

    def __init__(
        self,
        appender: Appender,
        message_id: str,
        claim: Claim,
        life_seconds: int,
        *,
        most_log_bytes: int,
        stop: Callable[[Stop], None],
    ) -> None:
        self.refused: LogRefused | None = None
        self.after_step = claim.cancel_after_step
        self.last: log.Batch | None = None  # the one that ends the log
        self._appender = appender
        self._message_id = message_id
        self._claim = claim
        self._life_seconds = life_seconds
        self._most_log_bytes = most_log_bytes
        self._stop = stop
        self._next = 0
        self._pending: list[Frame] = []
        self._pending_bytes = 0
        self._in_flight_bytes = 0
        self._log_bytes = 0  # as the last append told
        self._ending = ""
        self._stepped = False
        self._taken = 0  # how many events were sent, and of those how many are stored
        self._stored = 0
        self._in_flight = False
        self._settled: asyncio.Future[None] | None = None

    @property
    def behind(self) -> bool:
        """Whether so much waits that the provider must not be read on."""
        return self._pending_bytes > MOST_WAITING_BYTES

    @property
    def full(self) -> bool:
        """Whether the log reaches its bound with what was put, sent or not."""
        written = self._log_bytes + self._in_flight_bytes
        return written + self._pending_bytes >= self._most_log_bytes

    def put(self, event: Event, private: bytes = b"") -> None:
        """Give the next event its id and send it, with what else waits."""
        if self.refused is not None:
            return
        event_id = EventId(self._claim.attempt, self._next)
        frame = Frame(event_id, encode(event_id, event), private)
        self._next += 1
        self._pending_bytes += len(frame.data)
        self._pending.append(frame)
        if not self._in_flight:
            self._in_flight = True
            self._appender.add(self)

    def put_step(self, step: Event, private: bytes = b"") -> None:
        """Put a `step` that is not the last one: what was lost before it is forgotten."""
        self._stepped = True
        self.put(step, private)

    async def stored(self) -> None:
        """Wait until all that was put before is in the log, whatever is put meanwhile.

        Raises:
            LogRefused: it never will be.
        """
        until = self._next
        while self._in_flight and self._stored < until:
            await self._settling()
        if self.refused is not None:
            raise self.refused

    async def flush(self) -> None:
        """Wait until all that was put is in the log.

        Raises:
            LogRefused: it never will be.
        """
        while self._in_flight:
            await self._settling()
        if self.refused is not None:
            raise self.refused

    async def _settling(self) -> None:
        if self._settled is None:
            self._settled = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._settled)

    async def finish(self, *entries: tuple[Event, bytes]) -> None:
        """Append the message's last events, in one piece and alone: all of them or none.

        Raises:
            CancelAsked: a cancel came first; nothing was written, end as cancelled.
            LogRefused: the log takes no more of this attempt.
        """
        await self.flush()
        first = self._next
        self._ending = ending_of(entries[-1][0])
        for event, private in entries:
            self.put(event, private)
        try:
            await self.flush()
        except CancelAsked:
            self.refused, self._next, self._ending = None, first, ""
            raise

    def take(self) -> log.Batch:
        """Hand over what waits (the appender calls it)."""
        frames, self._pending = self._pending, []
        self._in_flight_bytes, self._pending_bytes = self._pending_bytes, 0
        self._taken = self._next
        ending = self._ending or ("step" if self._stepped else "")
        self._stepped = False
        # Also with the end: what a log lives after it begins when it is saved.
        sent = log.Batch(self._message_id, self._claim.token, frames, self._life_seconds, ending)
        if self._ending:
            self.last = sent
        return sent

    def settle(self, outcome: log.Appended | LogRefused) -> None:
        """Hear what became of it (the appender calls it)."""
        self._in_flight = False
        if isinstance(outcome, LogRefused):
            self.refused = outcome
            self._pending, self._pending_bytes = [], 0
            if not isinstance(outcome, CancelAsked):
                self._stop(Stop.LOG_REFUSED)
        else:
            self._stored = self._taken
            self.after_step = self.after_step or outcome.cancel_after_step
            if outcome.cancel_asked:
                self._stop(Stop.CANCELLED)
            self._log_bytes, self._in_flight_bytes = outcome.log_bytes, 0
            if outcome.log_bytes >= self._most_log_bytes:
                self._stop(Stop.LOG_FULL)
            if self._pending:
                self._in_flight = True
                self._appender.add(self)
        if self._settled is not None:
            self._settled.set_result(None)
            self._settled = None
