"""Breaks the tails' silence, and looks first whether something was lost in it."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Protocol

from redis.asyncio import Redis

from rejoin.shared import log
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.ids import EventId

_TAILS_A_LOOK: Final = 500
_AGAIN_SECONDS: Final = 0.5
# Three beats make a keep-alive: a tail silent for two is due, and a look takes half a beat at most.
_BEATS: Final = 3
_DUE: Final = 2
_LEAST_LOOK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Beaten(Protocol):
    """Who must not be silent for long: a tail."""

    message_id: str
    live: bool  # whether it has all that was published, and may be written to at once
    beat: int  # the beat of the last write
    born: int

    @property
    def position(self) -> EventId | None:
        """The last event that was sent."""

    def doubt(self) -> None:
        """Something may have been lost: look at the log."""

    def comment(self) -> None:
        """Break the silence."""

    def part(self) -> None:
        """End it without an end event: the client comes back."""


class Beats:
    """The pulse of a process' tails. `run` and `repair` keep it; whoever starts them cancels them.

    `tails` are those that hear it, `now` counts the beats.
    """

    def __init__(
        self, redis: Redis, *, keepalive_seconds: float, max_stream_seconds: float
    ) -> None:
        self.now = 0
        self.tails: set[Beaten] = set()
        self._redis = redis
        self._lost = asyncio.Event()
        self._seconds = min(keepalive_seconds / _BEATS, max_stream_seconds / 2)
        self._most_beats = int(max_stream_seconds / self._seconds)

    async def run(self) -> None:
        """Beat until cancelled, on time however long a look takes."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            next_at = max(next_at + self._seconds, loop.time())
            await asyncio.sleep(next_at - loop.time())
            self.now += 1
            try:
                await self._beat()
            except Exception:  # noqa: BLE001  without this task no tail is checked any more
                _log.exception("a beat failed; the next one follows")

    async def repair(self) -> None:
        """After each `look_again`, compare the tails with their logs until Redis has told."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            try:
                for some in _portions(tuple(self.tails)):
                    await self._compare(some)
            except LogUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)
                self._lost.set()
            except Exception:  # noqa: BLE001  as above
                _log.exception("tails could not be compared with their logs")

    def look_again(self) -> None:
        """What was published may not have come: no tail relies on it."""
        for tail in tuple(self.tails):
            if not tail.live:
                tail.doubt()
        # Those that are live are asked after all at once; most have lost nothing.
        self._lost.set()

    async def _beat(self) -> None:
        due = []
        for tail in tuple(self.tails):
            if self.now - tail.born > self._most_beats:
                tail.part()
            elif self.now - tail.beat >= _DUE:
                due.append(tail)
        try:
            async with asyncio.timeout(max(_LEAST_LOOK_SECONDS, self._seconds / 2)):
                for some in _portions(due):
                    await self._compare(some)
                    self._comment(some)
        except (LogUnavailable, TimeoutError):
            self._comment(due)

    def _comment(self, tails: Iterable[Beaten]) -> None:
        for tail in tails:
            if self.now - tail.beat >= _DUE:
                tail.comment()

    async def _compare(self, tails: Iterable[Beaten]) -> None:
        """Send those back to the log that are not at its end: the last publish may be lost.

        Raises:
            LogUnavailable: Redis is away.
        """
        by_message: dict[str, list[tuple[Beaten, EventId | None]]] = {}
        for tail in tails:
            if tail.live:
                by_message.setdefault(tail.message_id, []).append((tail, tail.position))
        if not by_message:
            return
        ends = await log.newest_of(self._redis, list(by_message))
        for waiting, end in zip(by_message.values(), ends, strict=True):
            for tail, position in waiting:
                # One that moved meanwhile hears what is published, and sees its gaps by itself.
                if tail.live and tail.position == position and end != (True, position):
                    tail.doubt()


def _portions(tails: Sequence[Beaten]) -> Iterator[list[Beaten]]:
    left = iter(tails)
    while some := list(islice(left, _TAILS_A_LOOK)):
        yield some
