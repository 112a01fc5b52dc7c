"""One client's place in one message's log: replay, live, gap, bound.

A tail costs one task, which waits in `receive()`. Live frames are written from the subscription's
own callback, by driving the server's `send` to its end there; where that would wait (a slow
reader) or a frame does not follow on, a task of the hub's goes on until the tail is up with the
log again.
"""

import asyncio
import contextlib
import logging
import random
from typing import Final

from starlette.types import Message, Send

from rejoin.api.batches import Batch
from rejoin.api.hub import Hub
from rejoin.api.outlet import Gone, Outlet
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.frames import id_of, is_end
from rejoin.shared.ids import EventId
from rejoin.shared.log import PAGE, Page

BOUND_BYTES: Final = 262_144  # that may wait for one client; beyond it the log is read again
_FIRST_EVENTS: Final = 32  # asked for before it is known how large they are
_PIECE_BYTES: Final = 65_536  # a write of the replay: what the server buffers beyond its own bound
_COMMENT: Final[Message] = {"type": "http.response.body", "body": b": \n\n", "more_body": True}
_END: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}

_log = logging.getLogger(__name__)


class Tail(Outlet):
    """One client reading one message's events.

    It is live, or its task runs. The task reads the log while the tail is stale: while what was
    published since its position may be missing from its queue.
    """

    __slots__ = (
        "_attempt",
        "_closed",
        "_hub",
        "_leaving",
        "_next",
        "_owner",
        "_queue",
        "_queued_bytes",
        "_stale",
        "_task",
        "beat",
        "born",
        "live",
        "message_id",
    )

    def __init__(
        self, hub: Hub, send: Send, message_id: str, owner: str, after: EventId | None
    ) -> None:
        super().__init__(send)
        self.message_id = message_id
        self.live = False
        self.born = self.beat = hub.beats.now
        self._hub = hub
        self._owner = owner
        self._attempt, self._next = (1, 0) if after is None else (after[0], after[1] + 1)
        self._queue: list[Batch] = []
        self._queued_bytes = 0
        self._stale = True
        self._leaving = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def open(self, first: Message) -> None:
        """Begin: join the hub, send the first bytes, catch up with the log."""
        self._hub.join(self, self.message_id)
        self._hub.beats.tails.add(self)
        # From a callback, as live frames will be.
        asyncio.get_running_loop().call_soon(self._begin, first)

    def close(self) -> None:
        """The client is gone, or has all: leave nothing behind."""
        self._closed = True
        self._hub.leave(self, self.message_id)
        self._hub.beats.tails.discard(self)
        self._stop()

    @property
    def position(self) -> EventId | None:
        """The last event that was sent (None: none yet)."""
        return EventId(self._attempt, self._next - 1) if self._next else None

    def offer(self, batch: Batch) -> None:
        """Write what follows on; go to the log for what does not."""
        if self.live:
            if (
                batch.first == self._next
                and batch.attempt == self._attempt
                and len(batch.frames) <= BOUND_BYTES
            ):
                self._next = batch.last + 1
                self._write(batch.body)
                if batch.ended:
                    self.live = False
                    self._closed = True
            elif (batch.attempt, batch.last) >= (self._attempt, self._next):
                # A gap, or a new attempt, which may hide a lost end of the one before.
                self.doubt()
        elif not (self._stale or self._closed):
            self._queued_bytes += len(batch.frames)
            if self._queued_bytes > BOUND_BYTES:
                self._queue, self._stale = [], True
            else:
                self._queue.append(batch)

    def doubt(self) -> None:
        """Go back to the log."""
        self._stale = True
        if self.live:
            self.live = False
            self._catch_up()

    def comment(self) -> None:
        """Break the silence, unless it is the socket that waits."""
        if self.idle and not self._closed:
            self._write(_COMMENT)

    def part(self) -> None:
        """End the stream without an end event: the client comes back.

        Where the tail waits for Redis it may finish that, until it is told again; where its
        socket is full it ends as soon as that takes something.
        """
        told, self._leaving = self._leaving, True
        if (self.live or told) and self.idle and not self._closed:
            self._closed = True
            self._stop()
            self._write(self._parting())

    def _begin(self, first: Message) -> None:
        if not self._closed:
            self.start_first(first)
            self._catch_up()

    def _write(self, message: Message) -> None:
        """Send from a callback; leave to the task what has to wait."""
        self.beat = self._hub.beats.now
        try:
            waits = self.start(message)
        except Exception:  # noqa: BLE001  whatever a server says of a client that is gone
            _log.debug("a client of %s takes no more", self.message_id, exc_info=True)
            self._closed = self._tasked = True
            self._stop()
            waits = self.start(_END)
        if waits and self._task is None:
            self.live = False
            self._catch_up()

    def _stop(self) -> None:
        self.live = False
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _catch_up(self) -> None:
        self._task = self._hub.spawn(self._follow())

    async def _follow(self) -> None:
        limit = _FIRST_EVENTS
        try:
            await self.flush()
            while not self._closed and not self.live:
                if self._leaving or self._hub.draining:
                    await self._finish(self._parting())
                elif self._stale:
                    limit = await self._read_on(limit)
                    await self.flush()
                else:
                    await self._send_queue()
        except Exception as error:  # noqa: BLE001  a defect of ours must end it, not silence it
            if isinstance(error, Gone):
                _log.debug("a client of %s takes no more", self.message_id, exc_info=True)
            else:
                _log.exception("a tail of %s broke; its client comes back", self.message_id)
            with contextlib.suppress(Gone):
                await self._finish(_END)
        self._task = None

    async def _read_on(self, limit: int) -> int:
        """Send one page of the log, of `limit` events at the most; return the next page's limit."""
        position = self.position
        followed = await self._hub.confirm(self.message_id)
        # From here on what is published is kept, and nothing else: the page may lack it.
        self._stale, self._queue, self._queued_bytes = False, [], 0
        try:
            page = await self._hub.look(self.message_id, position, limit)
            lost = position is not None and (page.newest is None or page.newest < position)
            reset = await self._hub.position_unknown(self.message_id) if lost else b""
        except LogUnavailable:
            self._stale = True
            await self.send(_COMMENT)
            await self._hub.pause()
            return max(1, limit // 4)  # a page may also be too large to be had in time
        if page.owner != self._owner:
            await self._finish(_END)
        elif lost:
            await self.send(_body(reset))
            self._attempt, self._next, self._stale = 1, 0, True
        else:
            return await self._send_page(page, limit, followed=followed)
        return limit

    async def _send_page(self, page: Page, limit: int, *, followed: bool) -> int:
        frames, size = page.frames, 0
        whole = len(frames) < limit
        for index, frame in enumerate(frames):
            size += len(frame)
            if size > BOUND_BYTES and index:
                # No more than the bound waits for a slow client; the log keeps the rest.
                del frames[index:]
                whole = False
                break
        if frames:
            self._attempt, sequence = EventId.parse(id_of(frames[-1]))
            self._next = sequence + 1
            limit = min(PAGE, 1 + BOUND_BYTES * len(frames) // size)
            if not await self._send_frames(frames):
                return limit
        if (page.ended and self.position == page.newest) or (frames and is_end(frames[-1])):
            await self._finish(_END)
        elif not whole:
            self._stale = True
        elif not followed:
            # Redis answers, but will not be listened to: ask it again and again.
            self._stale = True
            await self._hub.pause()
        return limit

    async def _send_frames(self, frames: list[bytes]) -> bool:
        """Send frames in pieces; False: the stream is to end before the last one."""
        start = size = 0
        for index, frame in enumerate(frames):
            size += len(frame)
            if size > _PIECE_BYTES and index > start:
                await self.send(_body(b"".join(frames[start:index])))
                if self._leaving:
                    return False
                start, size = index, len(frame)
        await self.send(_body(b"".join(frames[start:])))
        return True

    async def _send_queue(self) -> None:
        """Send what was published since the log was read; go live when there is nothing."""
        queue, self._queue, self._queued_bytes = self._queue, [], 0
        self.live = not queue
        parts, ended = [], False
        for batch in queue:
            if batch.first == self._next and batch.attempt == self._attempt:
                self._next = batch.last + 1
                parts.append(batch.frames)
                ended = batch.ended
            elif (batch.attempt, batch.last) >= (self._attempt, self._next):
                self._stale = True
                break
        if parts:
            await self.send(_body(b"".join(parts)))
        if ended:
            await self._finish(_END)

    async def send(self, message: Message) -> None:
        """Send from the task."""
        await super().send(message)
        self.beat = self._hub.beats.now

    async def _finish(self, last: Message) -> None:
        self._closed = True
        await self.send(last)

    def _parting(self) -> Message:
        """A `retry:` spread over some seconds, so that a deploy brings not all back at once."""
        wait = self._hub.retry_milliseconds + random.randint(0, 2000)  # noqa: S311
        return {
            "type": "http.response.body",
            "body": b"retry: %d\n\n" % wait,
            "more_body": False,
        }


def _body(frames: bytes) -> Message:
    return {"type": "http.response.body", "body": frames, "more_body": True}
