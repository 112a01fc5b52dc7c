"""One client's place in one message's log: replay, live, gap, bound.

A tail costs one task, which waits in `receive()`. Live frames are written from the subscription's
own callback, by driving the server's `send` to its end there; where that would wait (a slow
reader) or a frame does not follow on, a task of the hub's reads the log until the tail is up with
it again.
"""

import asyncio
import logging
import random
import types
from collections.abc import Coroutine, Generator
from typing import Final

from rejoin.api.batches import Batch
from rejoin.api.hub import Hub
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.ids import EventId
from rejoin.shared.log import PAGE
from starlette.types import Message, Send

BOUND_BYTES: Final = 262_144  # that may wait for one client; beyond it the log is read again
_COMMENT: Final[Message] = {"type": "http.response.body", "body": b": \n\n", "more_body": True}
_END: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}

_log = logging.getLogger(__name__)


class Tail:
    """One client reading one message's events."""

    __slots__ = (
        "_attempt",
        "_closed",
        "_hub",
        "_next",
        "_overflowed",
        "_owner",
        "_queue",
        "_queued_bytes",
        "_send",
        "_task",
        "beat",
        "born",
        "live",
        "message_id",
    )

    def __init__(
        self, hub: Hub, send: Send, message_id: str, owner: str, after: EventId | None
    ) -> None:
        self.message_id = message_id
        self.live = False
        self.born = self.beat = hub.beats.now
        self._hub = hub
        self._send = send
        self._owner = owner
        self._attempt, self._next = (1, 0) if after is None else (after[0], after[1] + 1)
        self._queue: list[Batch] = []
        self._queued_bytes = 0
        self._overflowed = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin: join the hub and catch up with the log."""
        self._hub.join(self, self.message_id)
        self._hub.beats.tails.add(self)
        self._catch_up()

    def close(self) -> None:
        """The client is gone, or has all: leave nothing behind."""
        self._closed = True
        self.live = False
        self._hub.leave(self, self.message_id)
        self._hub.beats.tails.discard(self)
        if self._task is not None:
            self._task.cancel()

    @property
    def position(self) -> EventId | None:
        """The last event that was sent (None: none yet)."""
        return EventId(self._attempt, self._next - 1) if self._next else None

    def offer(self, batch: Batch) -> None:
        """Write what follows on; go to the log for what does not."""
        if self.live:
            if batch.first == self._next and batch.attempt == self._attempt:
                self._next = batch.last + 1
                self._write(batch.body)
                if batch.ended:
                    self.live = False
                    self._closed = True
            elif (batch.attempt, batch.last) >= (self._attempt, self._next):
                # A gap, or a new attempt, which may hide a lost end of the one before.
                self.doubt()
        elif not self._closed:
            self._queued_bytes += len(batch.frames)
            if self._queued_bytes > BOUND_BYTES:
                self._queue, self._overflowed = [], True
            elif not self._overflowed:
                self._queue.append(batch)

    def doubt(self) -> None:
        """Go back to the log."""
        if self.live:
            self.live = False
            self._catch_up()

    def comment(self) -> None:
        """Break the silence."""
        if self.live:
            self._write(_COMMENT)

    def part(self) -> None:
        """End the stream without an end event; the client comes back."""
        if self.live:
            self.live = False
            self._closed = True
            self._write(self._parting())

    def _write(self, message: Message) -> None:
        """Drive `send` to its end here and now; hand it to a task where it has to wait."""
        self.beat = self._hub.beats.now
        sending = self._send(message)
        try:
            awaited = sending.send(None)  # type: ignore[attr-defined]  # a coroutine, in every server
        except StopIteration:
            return
        except Exception:  # noqa: BLE001  whatever a server says of a client that is gone
            _log.debug("a client of %s is gone", self.message_id)
            self._closed, self.live = True, False
        else:
            self.live = False
            self._catch_up(_rest(sending, awaited))  # type: ignore[arg-type]

    def _catch_up(self, unsent: Coroutine[object, object, None] | None = None) -> None:
        self._queue, self._queued_bytes, self._overflowed = [], 0, False
        self._task = self._hub.spawn(self._follow(unsent))

    async def _follow(self, unsent: Coroutine[object, object, None] | None) -> None:
        try:
            if unsent is not None:
                await unsent
            while not self._closed and not self.live:
                if self._hub.draining:
                    await self._finish(self._parting())
                else:
                    await self._read_on()
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001  a defect of ours must end the stream, not silence it
            _log.exception("a tail of %s broke; its client comes back", self.message_id)
            await self._finish(_END)

    async def _read_on(self) -> None:
        """Send one page of the log; at the log's end, what came meanwhile, and go live."""
        position = self.position
        try:
            if not await self._hub.confirm(self.message_id):
                raise LogUnavailable("no subscription")
            page = await self._hub.look(self.message_id, position, PAGE)
            lost = position is not None and (page.newest is None or page.newest < position)
            reset = await self._hub.position_unknown(self.message_id) if lost else b""
        except LogUnavailable:
            await self._send_now(_COMMENT)
            await self._hub.pause()
            return
        if page.owner != self._owner:
            await self._finish(_END)
            return
        if lost:
            await self._send_now(_body(reset))
            self._attempt, self._next = 1, 0
            return
        if page.last is not None:
            self._attempt, self._next = page.last[0], page.last[1] + 1
            await self._send_frames(page.frames)
        if page.ended and self.position == page.newest:
            await self._finish(_END)
        elif len(page.frames) < PAGE:
            await self._send_queue()

    async def _send_queue(self) -> None:
        """Send what was published since the log was read; go live when nothing is left."""
        while not self._overflowed:
            queue, self._queue, self._queued_bytes = self._queue, [], 0
            parts = []
            for batch in queue:
                if batch.first == self._next and batch.attempt == self._attempt:
                    self._next = batch.last + 1
                    parts.append(batch.frames)
                    if batch.ended:
                        await self._send_now(_body(b"".join(parts)))
                        await self._finish(_END)
                        return
                elif (batch.attempt, batch.last) >= (self._attempt, self._next):
                    break
            else:
                if not parts:
                    self.live = True
                    return
                await self._send_now(_body(b"".join(parts)))
                continue
            if parts:
                await self._send_now(_body(b"".join(parts)))
            return
        self._overflowed = False
        self._queued_bytes = 0

    async def _send_frames(self, frames: list[bytes]) -> None:
        """Send a page, in pieces of the bound at the most."""
        start = size = 0
        for index, frame in enumerate(frames):
            size += len(frame)
            if size > BOUND_BYTES and index > start:
                await self._send_now(_body(b"".join(frames[start:index])))
                start, size = index, len(frame)
        await self._send_now(_body(b"".join(frames[start:])))

    async def _send_now(self, message: Message) -> None:
        self.beat = self._hub.beats.now
        await self._send(message)

    async def _finish(self, last: Message) -> None:
        self._closed = True
        await self._send(last)

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


@types.coroutine
def _rest(
    sending: Coroutine[object, object, None], awaited: object
) -> Generator[object, object, None]:
    """Await the rest of a coroutine that was driven up to `awaited`."""
    try:
        while True:
            try:
                answer = yield awaited
            except BaseException as error:  # noqa: BLE001  it is the coroutine's, cancellation too
                awaited = sending.throw(error)
            else:
                awaited = sending.send(answer)
    except StopIteration:
        return
