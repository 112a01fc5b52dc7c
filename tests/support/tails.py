"""A hub without Redis, a log in memory and a socket that blocks: what a tail stands on."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, cast
from unittest.mock import patch

from redis.asyncio import Redis

from rejoin.api import beats
from rejoin.api.hub import Hub
from rejoin.api.tail import Tail
from rejoin.shared import keys, log
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.events import Done, Event, FinishReason, Text
from rejoin.shared.frames import Frame, encode, is_end
from rejoin.shared.ids import EventId

MESSAGE_ID: Final = "01980000-0000-7000-8000-000000000000"
OWNER: Final = "me"
FIRST: Final = {"type": "http.response.body", "body": b"retry: 1\n: open\n\n", "more_body": True}
RESET: Final = b'event: reset\ndata: {"after":null,"reason":"position_unknown"}\n\n'
TURNS: Final = 500  # of the loop: far more than anything here takes

_BLOCK: Final = re.compile(rb"(.*?\n\n)", re.DOTALL)


def text(attempt: int, sequence: int, size: int = 1) -> Frame:
    """An event of `size` characters."""
    return _frame(attempt, sequence, Text("x" * size))


def done(attempt: int, sequence: int) -> Frame:
    """The end of a log."""
    return _frame(attempt, sequence, Done(FinishReason.STOP, 0))


def _frame(attempt: int, sequence: int, event: Event) -> Frame:
    event_id = EventId(attempt, sequence)
    return Frame(event_id, encode(event_id, event))


def payload(batch: Sequence[Frame]) -> bytes:
    """What the append of a batch publishes (shared/lua/log/append.lua)."""
    head = b"%d %d %d %d\n" % (*batch[0].id, batch[-1].id[1], is_end(batch[-1].data))
    return head + b"".join(frame.data for frame in batch)


def joined(frames: Sequence[Frame]) -> bytes:
    """Their bytes."""
    return b"".join(frame.data for frame in frames)


class MemoryHub(Hub):
    """The hub over a log in memory; what Redis would do is set by hand.

    `before` and `after` are the turns of the loop that a look takes until it reads and until its
    reader hears of it. `away`: Redis does not answer; `deaf`: it confirms no subscription.
    """

    def __init__(self, *, owner: str | None = OWNER) -> None:
        super().__init__(
            cast("Redis", None),
            "redis://127.0.0.1:1/0",
            keepalive_seconds=15,
            retry_milliseconds=1000,
            max_stream_seconds=3600,
        )
        self.frames: list[Frame] = []
        self.owner = owner
        self.before = self.after = 0
        self.away = self.deaf = False
        self.hold: asyncio.Event | None = None  # a look waits for it, as for a Redis that stalls
        self.most: int | None = None  # events that a look brings in time
        self.between: Callable[[], None] = lambda: None  # happens within a look
        self.looks = 0
        self._gathers = False
        self.limits: list[int] = []
        self.pages: list[list[bytes]] = []

    def append(self, *batch: Frame) -> None:
        """Store, and publish nothing."""
        self.frames += batch

    def publish(self, *batch: Frame) -> None:
        """Let the subscription bring a batch; a deaf one brings nothing."""
        if not self.deaf:
            self.receive(keys.live(MESSAGE_ID).encode(), payload(batch))
            if not self._gathers:
                self.drained()

    def gather(self, gathers: bool) -> None:
        """Let what is published lie in the socket, so that it comes at once later."""
        self._gathers = gathers
        if not gathers:
            self.drained()

    def write(self, *batch: Frame) -> None:
        """Store and publish, as an append does."""
        self.append(*batch)
        self.publish(*batch)

    def lose_connection(self) -> None:
        """The subscription was lost and is back."""
        self.restored()

    async def confirm(self, message_id: str) -> bool:
        await asyncio.sleep(0)
        return not self.deaf

    async def look(self, message_id: str, after: EventId | None, limit: int) -> log.Page:
        self.looks += 1
        self.limits.append(limit)
        for _ in range(self.before):
            await asyncio.sleep(0)
        if self.hold is not None:
            await self.hold.wait()
        if self.away or (self.most is not None and limit > self.most):
            raise LogUnavailable("away")
        newest = self.frames[-1] if self.frames else None
        self.between()
        self.between = lambda: None
        later = [frame for frame in self.frames if after is None or frame.id > after][:limit]
        page = log.Page(
            self.owner,
            newest.id if newest else None,
            newest is not None and is_end(newest.data),
            [frame.data for frame in later],
            later[-1].id if later else None,
        )
        self.pages.append(page.frames)
        for _ in range(self.after):
            await asyncio.sleep(0)
        return page

    async def position_unknown(self, message_id: str) -> bytes:
        return RESET

    async def pause(self) -> None:
        await asyncio.sleep(0)

    async def newest_of(self, _: object, message_ids: list[str]) -> list[object]:
        await asyncio.sleep(0)
        if self.away:
            raise LogUnavailable("away")
        newest = self.frames[-1].id if self.frames else None
        return [(self.owner is not None, newest) for _ in message_ids]

    async def check(self) -> None:
        """Compare the tails with the log, as before a keep-alive comment."""
        await self.beats._compare(list(self.beats.tails))

    async def check_unless_away(self) -> None:
        """The same; Redis may be away."""
        with suppress(LogUnavailable):
            await self.check()

    def spawned(self) -> int:
        """How many tasks it owns."""
        return len(self._tasks)

    def channels(self) -> int:
        """How many messages somebody follows."""
        return len(self._channels)


@asynccontextmanager
async def memory_hub() -> AsyncIterator[MemoryHub]:
    """A hub that repairs after a reconnect; whatever its tails began has ended with the block."""
    hub = MemoryHub()
    with patch.object(log, "newest_of", hub.newest_of), patch.object(beats, "_AGAIN_SECONDS", 0):
        hub.spawn(hub.beats.repair())
        try:
            yield hub
            await turns(5)
            assert (hub.spawned(), hub.channels(), len(hub.beats.tails)) == (1, 0, 0)
        finally:
            await hub.__aexit__()
    assert hub.spawned() == 0


class Socket:
    """One client's side of the server's `send`: what it got, and whether it takes more."""

    def __init__(self, *, needs_task: bool = False) -> None:
        self.messages: list[MutableMapping[str, Any]] = []
        self.fails = False
        self.late = False  # something was sent after the end of the response
        self.waiting = 0
        self._needs_task = needs_task
        self._writable = asyncio.Event()
        self._writable.set()

    def block(self) -> None:
        """Take nothing more, as a client that does not read."""
        self._writable.clear()

    def unblock(self) -> None:
        """Take more."""
        self._writable.set()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Take a message, as uvicorn does: wait while blocked, then write at once."""
        if self._needs_task and asyncio.current_task() is None:
            raise RuntimeError("needs a task")
        if self.fails:
            raise OSError("the client is gone")
        if not self._writable.is_set():
            self.waiting += 1
            await self._writable.wait()
            self.waiting -= 1
        if self.ended:
            self.late = True
            raise RuntimeError("sent after the end of the response")
        self.messages.append(message)

    @property
    def ended(self) -> bool:
        """Whether the response is complete."""
        return bool(self.messages) and not self.messages[-1].get("more_body", False)

    @property
    def body(self) -> bytes:
        """All bytes."""
        return b"".join(message["body"] for message in self.messages)

    @property
    def events(self) -> bytes:
        """The bytes without comments and `retry:`; fails where frames are torn."""
        assert not self.late, "sent after the end of the response"
        blocks = _BLOCK.findall(self.body)
        assert b"".join(blocks) == self.body, "a torn frame"
        return b"".join(block for block in blocks if block.startswith(b"event:"))

    @property
    def comments(self) -> int:
        """How many comments came, the first bytes' own not counted."""
        return sum(message["body"] == b": \n\n" for message in self.messages)


@contextmanager
def opened(
    hub: Hub,
    socket: Socket,
    after: EventId | None = None,
    *,
    message_id: str = MESSAGE_ID,
    owner: str = OWNER,
) -> Iterator[Tail]:
    """A tail of a message, closed with the block."""
    tail = Tail(hub, socket.send, message_id, owner, after)
    tail.open(dict(FIRST))
    try:
        yield tail
    finally:
        tail.close()


async def turns(count: int = TURNS) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)
