"""A process that writes logs as a worker does: accept, claim, append with XADD and PUBLISH."""

import asyncio
import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterable

import uvloop
from redis.asyncio import Redis

from rejoin.shared import accepting, log, record
from rejoin.shared.clock import iso, now_ms
from rejoin.shared.connections import open_redis
from rejoin.shared.events import Done, Event, FinishReason, Start, Text, Usage
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId, new_message_id
from rejoin.shared.log import Batch
from rejoin.shared.record import Record, Status
from rejoin.shared.request import StoredRequest, StoredTurn
from tests.bench.child import reply
from tests.bench.pace import ROUND_SECONDS, Pace
from tests.bench.samples import stamp

_LIFE_SECONDS = 3600
_AT_ONCE = 200
_TEXT_CHARS = 79  # makes frames of 120 bytes
_REPLAY_BATCH = 250


class _Message:
    """A message that this process owns, and the next sequence of its log."""

    def __init__(self) -> None:
        self.id = new_message_id()
        self.token = secrets.token_hex(8)
        self.next = 0

    def batch(self, events: Iterable[Event], ending: str = "") -> Batch:
        """The next events as one append."""
        frames = []
        for event in events:
            event_id = EventId(1, self.next)
            frames.append(Frame(event_id, encode(event_id, event)))
            self.next += 1
        return Batch(self.id, self.token, frames, _LIFE_SECONDS, ending)


class Publisher:
    """The commands."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._messages: list[_Message] = []

    async def prepare(self, count: int) -> dict[str, object]:
        """Make messages that run, each with its `start`; those of before are forgotten."""
        self._messages = [_Message() for _ in range(count)]
        for at in range(0, count, _AT_ONCE):
            some = self._messages[at : at + _AT_ONCE]
            await asyncio.gather(*(self._claim(message) for message in some))
            await self._append([message.batch([_start(message)]) for message in some])
        return {"message_ids": [message.id for message in self._messages]}

    async def publish(
        self, per_message: float, seconds: float, mark_every: int
    ) -> dict[str, object]:
        """Publish at a steady rate, every `mark_every`-th event with its time in its text."""
        messages = self._messages
        pace = Pace(per_message * len(messages), seconds)
        while not pace.over:
            batches: dict[str, tuple[_Message, list[Event]]] = {}
            for number in pace.due():
                message = messages[number % len(messages)]
                marked = (number + number // len(messages)) % mark_every == 0
                batches.setdefault(message.id, (message, []))[1].append(_text(marked=marked))
            if batches:
                await self._append([message.batch(events) for message, events in batches.values()])
            await asyncio.sleep(ROUND_SECONDS)
        return {
            "published": pace.count,
            "seconds": pace.took_seconds,
            "most_late_ms": pace.most_late_seconds * 1000,
        }

    async def finished(self, events: int) -> dict[str, object]:
        """Make one message that has ended, with so many events in its log."""
        message = _Message()
        await self._claim(message)
        await self._append([message.batch([_start(message)])])
        while message.next < events - 2:
            count = min(_REPLAY_BATCH, events - 2 - message.next)
            await self._append([message.batch(_text(marked=False) for _ in range(count))])
        end: list[Event] = [Usage(), Done(FinishReason.STOP, (events - 3) * _TEXT_CHARS)]
        await self._append([message.batch(end, "done")])
        return {"message_id": message.id}

    async def _claim(self, message: _Message) -> None:
        asked = Record(
            message.id, "local", new_message_id(), "demo/echo", now_ms(), Status.QUEUED, 0,
            None, cancel_asked=False, started_at=None, finished_at=None,
        )  # fmt: skip
        request = StoredRequest("demo/echo", [StoredTurn("user", "bench")])
        await accepting.store(
            self._redis, asked, request, indexed_at=now_ms(), life_seconds=_LIFE_SECONDS
        )
        await record.claim(
            self._redis,
            message.id,
            token=message.token,
            worker_id="bench",
            life_seconds=_LIFE_SECONDS,
        )

    async def _append(self, batches: list[Batch]) -> None:
        for outcome in await log.append_all(self._redis, batches):
            if isinstance(outcome, Exception):
                raise outcome


def _start(message: _Message) -> Start:
    return Start(message.id, message.id, "demo/echo", 1, iso(now_ms()))


def _text(*, marked: bool) -> Text:
    return Text((stamp() if marked else "").ljust(_TEXT_CHARS, "."))


async def _main(url: str) -> None:
    redis = open_redis(url, timeout_seconds=30, connections=_AT_ONCE)
    publisher = Publisher(redis)
    handlers: dict[str, Callable[..., Awaitable[dict[str, object]]]] = {
        "prepare": publisher.prepare,
        "publish": publisher.publish,
        "finished": publisher.finished,
    }
    try:
        # One command at a time, and nothing else runs meanwhile: a blocking read is no harm.
        while line := sys.stdin.readline():
            command, arguments = json.loads(line)
            reply(await handlers[command](**arguments))
    finally:
        await redis.aclose()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
