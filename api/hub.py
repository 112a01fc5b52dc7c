"""The one subscription of an API process: passes what is published on to the tails."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, Protocol, Self

from redis.asyncio import Redis
from rejoin.shared import keys, log, record
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.ids import EventId
from rejoin.shared.live import Live
from rejoin.shared.opening import position_unknown

CONFIRM_SECONDS: Final = 2.0
_LOGS_A_LOOK: Final = 500
_READS_AT_ONCE: Final = 32  # pages in memory at a time, however many tails have to catch up
_WATCH_SECONDS: Final = 5.0  # a lost publish costs a watch no more than this

_log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What one append published: events `first` to `last` of an attempt, `frames` their bytes.

    `body` is the ASGI message that carries them, made once for all tails.
    """

    attempt: int
    first: int
    last: int
    ended: bool
    frames: bytes
    body: dict[str, object]


class Follower(Protocol):
    """Who follows a message. Called from the socket's callback: must not wait."""

    def offer(self, batch: Batch) -> None:
        """Take what was published, in order, perhaps with holes."""

    def doubt(self) -> None:
        """Something may have been lost: look at the log."""


class Beaten(Follower, Protocol):
    """A follower that must not be silent for long: a tail."""

    message_id: str
    live: bool  # whether it has all that was published, and may be written to at once
    beat: int  # the hub's beat at the last write
    born: int

    @property
    def position(self) -> EventId | None:
        """The last event that was sent."""

    def comment(self) -> None:
        """Break the silence."""

    def part(self) -> None:
        """End it without an end event: the client comes back."""


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
        self.beat = 0
        self._redis = redis
        self._live = Live(url, self)
        self._channels: dict[bytes, _Channel] = {}
        self._dirty: list[_Channel] = []
        self._tails: set[Beaten] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._back = asyncio.Event()
        # Three beats make a keep-alive: a tail silent for two is due, so none waits for four.
        self._beat_seconds = keepalive_seconds / 3
        self._beats_a_stream = max(1, int(max_stream_seconds / self._beat_seconds))

    async def __aenter__(self) -> Self:
        self.spawn(self._live.run())
        self.spawn(self._beats())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start a task that the hub owns: it is cancelled and awaited when the hub closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

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

    def keep_alive(self, tail: Beaten) -> None:
        """Count a tail among those that hear comments in their silence."""
        self._tails.add(tail)

    def let_go(self, tail: Beaten) -> None:
        """Count it no more."""
        self._tails.discard(tail)

    async def confirm(self, message_id: str) -> None:
        """Wait until the subscription to a message's channel stands.

        Raises:
            LogUnavailable: it does not in time.
        """
        await self._live.subscribe(keys.live(message_id), timeout_seconds=CONFIRM_SECONDS)

    async def look(self, message_id: str, after: EventId | None) -> log.Page:
        """Read a page of the log; only so many at once.

        Raises:
            LogUnavailable: Redis is away.
        """
        async with self._reads:
            return await log.look(self._redis, message_id, after)

    async def position_unknown(self, message_id: str) -> bytes:
        """The frame for a client whose position is none of this log's.

        Raises:
            LogUnavailable: Redis is away.
        """
        return position_unknown(await record.load(self._redis, message_id))

    async def pause(self) -> None:
        """Wait before another try while Redis is away; ends early when it is back, or on drain."""
        self._back.clear()
        try:
            async with asyncio.timeout(random.uniform(0.5, 1)):  # noqa: S311  spreads, hides nothing
                await self._back.wait()
        except TimeoutError:
            return

    @asynccontextmanager
    async def watch(self, message_id: str) -> AsyncIterator["Watch"]:
        """Be told when something new is published for a message, from now on."""
        watch = Watch(self)
        self.join(watch, message_id)
        try:
            try:
                await self.confirm(message_id)
            except LogUnavailable:
                _log.debug("watching %s unconfirmed: Redis is away", message_id)
            yield watch
        finally:
            self.leave(watch, message_id)

    def drain(self) -> None:
        """End every tail, so that its client comes back elsewhere. May be repeated."""
        self.draining = True
        self._back.set()
        for tail in tuple(self._tails):
            tail.part()
        for channel in self._channels.values():
            for follower in tuple(channel.followers):
                follower.doubt()

    def receive(self, channel: bytes, payload: bytes) -> None:
        """Take one published message; `drained` passes it on."""
        found = self._channels.get(channel)
        if found is not None:
            if not found.pending:
                self._dirty.append(found)
            found.pending.append(payload)

    def drained(self) -> None:
        """Pass on what has arrived, with one write a tail, however many messages it was."""
        dirty, self._dirty = self._dirty, []
        for channel in dirty:
            pending, channel.pending = channel.pending, []
            for batch in _joined(pending):
                for follower in tuple(channel.followers):
                    follower.offer(batch)

    def restored(self) -> None:
        """The subscription was lost and is back: something may have been missed."""
        self._back.set()
        self.spawn(self._check(tuple(self._tails), comment=False))
        for channel in self._channels.values():
            for follower in channel.followers:
                if follower not in self._tails:
                    follower.doubt()

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(self._beat_seconds)
            self.beat += 1
            due = []
            for tail in tuple(self._tails):
                if self.beat - tail.born > self._beats_a_stream:
                    tail.part()
                elif tail.live and self.beat - tail.beat >= 2:
                    due.append(tail)
            await self._check(due, comment=True)

    async def _check(self, tails: Iterable[Beaten], *, comment: bool) -> None:
        """Compare silent tails with their logs' ends: the last publish may be the lost one."""
        by_message: dict[str, list[Beaten]] = {}
        for tail in tails:
            by_message.setdefault(tail.message_id, []).append(tail)
        message_ids = list(by_message)
        for at in range(0, len(message_ids), _LOGS_A_LOOK):
            some = message_ids[at : at + _LOGS_A_LOOK]
            try:
                ends = await log.newest_of(self._redis, some)
            except LogUnavailable:
                ends = None
            for index, message_id in enumerate(some):
                for tail in by_message[message_id]:
                    if not tail.live:
                        continue
                    if ends is not None and ends[index] != (True, tail.position):
                        tail.doubt()
                    elif comment:
                        tail.comment()


class Watch:
    """Tells a request that waits for news of a message."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._news = asyncio.Event()

    def offer(self, batch: Batch) -> None:
        """Something was published."""
        self._news.set()

    def doubt(self) -> None:
        """Something may have been lost."""
        self._news.set()

    async def changed(self, timeout_seconds: float) -> None:
        """Return when there may be news, or after the time; sometimes for nothing."""
        if not self._hub.draining:
            try:
                async with asyncio.timeout(min(timeout_seconds, _WATCH_SECONDS)):
                    await self._news.wait()
            except TimeoutError:
                return
        self._news.clear()


def _joined(payloads: list[bytes]) -> Iterable[Batch]:
    """Parse what was published and join what follows on.

    Each payload is `<attempt> <first> <last> <ended>`, a new line, and the frames.
    """
    batches: list[Batch] = []
    attempt = first = last = -1
    ended = False
    parts: list[bytes] = []
    for payload in payloads:
        head, frames = payload.split(b"\n", 1)
        numbers = head.split()
        if parts and (int(numbers[0]) != attempt or int(numbers[1]) != last + 1):
            batches.append(_batch(attempt, first, last, ended, b"".join(parts)))
            parts = []
        if not parts:
            attempt, first = int(numbers[0]), int(numbers[1])
        last, ended = int(numbers[2]), numbers[3] == b"1"
        parts.append(frames)
    batches.append(_batch(attempt, first, last, ended, b"".join(parts)))
    return batches


def _batch(attempt: int, first: int, last: int, ended: bool, frames: bytes) -> Batch:
    body = {"type": "http.response.body", "body": frames, "more_body": not ended}
    return Batch(attempt, first, last, ended, frames, body)
