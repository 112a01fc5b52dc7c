"""The one subscription of an API process: passes what is published on to the tails."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Final, Protocol, Self

from redis.asyncio import Redis

from rejoin.api.batches import Batch, joined
from rejoin.api.beats import Beats
from rejoin.api.watch import Watch
from rejoin.shared import keys, log, record
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.ids import EventId
from rejoin.shared.live import Live
from rejoin.shared.opening import position_unknown

CONFIRM_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 5.0  # the wait for a turn included
_GRACE_SECONDS: Final = 1.0  # of a drain, for tails that wait for Redis
_READS_AT_ONCE: Final = 32  # pages in memory at a time, however many tails have to catch up

_log = logging.getLogger(__name__)


class Follower(Protocol):
    """Who follows a message. Called from the socket's callback: must not wait."""

    def offer(self, batch: Batch) -> None:
        """Take what was published, in order, perhaps with holes."""

    def doubt(self) -> None:
        """Something may have been lost: look at the log."""


class _Channel:
    __slots__ = ("followers", "message_id", "pending")

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.followers: set[Follower] = set()
        self.pending: list[bytes] = []


class Hub:
    """Who listens to what. Owns the subscription, the beat and the tails' catching up."""

    def __init__(
        self,
        redis: Redis,
        url: str,
        *,
        keepalive_seconds: float,
        retry_milliseconds: int,
        max_stream_seconds: float,
    ) -> None:
        self.retry_milliseconds = retry_milliseconds
        self.draining = False
        self.beats = Beats(
            redis, keepalive_seconds=keepalive_seconds, max_stream_seconds=max_stream_seconds
        )
        self._redis = redis
        self._live = Live(url, self)
        self._channels: dict[bytes, _Channel] = {}
        self._dirty: list[_Channel] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._back = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.spawn(self._live.run())
        self.spawn(self.beats.run())
        self.spawn(self.beats.repair())
        return self

    async def __aexit__(self, *_: object) -> None:
        # Whoever is still here (a server that does not wait for its streams) is told to leave.
        self.drain()
        self._part_all()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start a task that the hub owns: it is cancelled and awaited when the hub closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the hub broke", exc_info=error)

    def join(self, follower: Follower, message_id: str) -> None:
        """Pass on to `follower` what is published for the message, from the confirmation on."""
        name = keys.live(message_id).encode()
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(message_id)
        channel.followers.add(follower)

    def leave(self, follower: Follower, message_id: str) -> None:
        """Forget a follower; the last one lets the subscription go."""
        name = keys.live(message_id).encode()
        channel = self._channels.get(name)
        if channel is None:
            return
        channel.followers.discard(follower)
        if not channel.followers:
            del self._channels[name]
            self._live.unsubscribe(keys.live(message_id))

    async def confirm(self, message_id: str) -> bool:
        """Wait until the subscription to a message's channel stands; False: it does not in time."""
        try:
            await self._live.subscribe(keys.live(message_id), timeout_seconds=CONFIRM_SECONDS)
        except LogUnavailable:
            return False
        return True

    async def look(self, message_id: str, after: EventId | None, limit: int) -> log.Page:
        """Read a page of the log; only so many at once.

        Raises:
            LogUnavailable: Redis is away, or too busy.
        """
        try:
            async with asyncio.timeout(LOOK_SECONDS), self._reads:
                return await log.look(self._redis, message_id, after, limit)
        except TimeoutError as error:
            raise LogUnavailable("Redis did not answer in time") from error

    async def position_unknown(self, message_id: str) -> bytes:
        """The frame for a client whose position is none of this log's.

        Raises:
            LogUnavailable: Redis is away.
        """
        return position_unknown(await record.load(self._redis, message_id))

    async def pause(self) -> None:
        """Wait before another try while Redis is away; ends early when it is back, or on drain."""
        self._back.clear()
        if self.draining:
            return
        try:
            async with asyncio.timeout(random.uniform(0.5, 1)):  # noqa: S311  spreads, hides nothing
                await self._back.wait()
        except TimeoutError:
            return

    @asynccontextmanager
    async def watch(self, message_id: str) -> AsyncIterator[Watch]:
        """Be told when something new is published for a message, from now on."""
        watch = Watch(lambda: self.draining)
        self.join(watch, message_id)
        try:
            if not await self.confirm(message_id):
                _log.debug("watching %s unconfirmed: Redis is away", message_id)
            yield watch
        finally:
            self.leave(watch, message_id)

    def drain(self) -> None:
        """End every tail, so that its client comes back elsewhere. May be repeated."""
        self.draining = True
        self._back.set()
        self._wake_watches()
        self._part_all()
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._part_all)

    def receive(self, channel: bytes, payload: bytes) -> None:
        """Take one published message; `drained` passes it on."""
        found = self._channels.get(channel)
        if found is not None:
            if not found.pending:
                self._dirty.append(found)
            found.pending.append(payload)

    def drained(self) -> None:
        """Pass on what has arrived, joined, however many messages it was."""
        dirty, self._dirty = self._dirty, []
        for channel in dirty:
            pending, channel.pending = channel.pending, []
            try:
                for batch in joined(pending):
                    for follower in tuple(channel.followers):
                        follower.offer(batch)
            except Exception:  # noqa: BLE001  it must not deafen the other channels
                _log.exception("what was published for %s was not passed on", channel.message_id)
                for follower in tuple(channel.followers):
                    follower.doubt()

    def restored(self) -> None:
        """The subscription was lost and is back: something may have been missed."""
        self._back.set()
        self.beats.look_again()
        self._wake_watches()

    def _part_all(self) -> None:
        for tail in tuple(self.beats.tails):
            tail.part()

    def _wake_watches(self) -> None:
        for channel in self._channels.values():
            for follower in channel.followers:
                if isinstance(follower, Watch):
                    follower.doubt()
