"""A whole message as Redis has it: its record, its request and its log, in one round trip."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from rejoin.shared import keys, log, record, scripts
from rejoin.shared.connections import redis_or_away
from rejoin.shared.errors import MessageMissing, RequestUnreadable
from rejoin.shared.fold import Message, fold
from rejoin.shared.frames import Frame
from rejoin.shared.record import Record
from rejoin.shared.request import StoredRequest, read_request
from rejoin.shared.scripts import Call

_LONG: Final = log.PAGE  # events that are folded beside the loop: a log has up to some 100,000


class Stored(NamedTuple):
    """One message; its request as it is stored, for an ender can do without one it cannot read."""

    record: Record
    frames: list[Frame]
    request_text: bytes | None

    @property
    def request(self) -> StoredRequest:
        """The accepted request.

        Raises:
            RequestUnreadable: it is gone, or another version wrote it in another form.
        """
        return read_request(self.request_text)

    @property
    def readable_request(self) -> StoredRequest | None:
        """The accepted request, None where nobody can read it."""
        try:
            return self.request
        except RequestUnreadable:
            return None


async def load(redis: Redis, message_id: str) -> Stored:
    """Return the message.

    Raises:
        MessageMissing: there is no record (any more).
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        replies = await _send(redis, message_id)
    return await _stored(redis, message_id, replies)


async def load_between(
    redis: Redis, message_id: str, before: Call, after: Call
) -> tuple[object, Stored, object]:
    """Run a script, then read the message, then run another one, all in one round trip.

    Returns the scripts' replies around the message. Both bear being repeated.

    Raises:
        MessageMissing: there is no record (any more).
        LogUnavailable: Redis is away.
    """
    calls = (before, after)
    with redis_or_away():
        await scripts.load_first(redis, calls)
        replies = await _send(redis, message_id, before, after)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            for call in calls:
                await scripts.load(redis, call.name)
            replies = await _send(redis, message_id, before, after)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
    return replies[0], await _stored(redis, message_id, replies[1:-1]), replies[-1]


async def load_with_request(redis: Redis, message_id: str) -> tuple[Record, StoredRequest] | None:
    """Return the record and the accepted request, or None where there is no record (any more).

    Raises:
        RequestUnreadable: the request is gone, or another version wrote it in another form.
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        pipeline.hgetall(keys.record(message_id))
        pipeline.get(keys.request(message_id))
        fields, text = cast(tuple[dict[bytes, bytes], bytes | None], await pipeline.execute())
    found = record.parse(message_id, fields)
    return None if found is None else (found, read_request(text))


async def fold_beside(frames: Sequence[Frame]) -> Message:
    """Fold a log; a long one in a thread, so that the loop goes on meanwhile."""
    return await asyncio.to_thread(fold, frames) if len(frames) > _LONG else fold(frames)


async def _send(
    redis: Redis, message_id: str, before: Call | None = None, after: Call | None = None
) -> list[object]:
    pipeline = redis.pipeline(transaction=False)
    if before is not None:
        scripts.add(pipeline, before)
    pipeline.hgetall(keys.record(message_id))
    pipeline.get(keys.request(message_id))
    pipeline.xrange(keys.log(message_id), count=log.PAGE)
    if after is not None:
        scripts.add(pipeline, after)
    return cast(list[object], await pipeline.execute(raise_on_error=after is None))


async def _stored(redis: Redis, message_id: str, replies: list[object]) -> Stored:
    fields, request, entries = cast(
        tuple[dict[bytes, bytes], bytes | None, list[log.Entry]], tuple(replies[:3])
    )
    found = record.parse(message_id, fields)
    if found is None:
        raise MessageMissing(message_id)
    frames = [log.frame_of(entry) for entry in entries]
    if len(frames) == log.PAGE:
        frames += await log.read_all(redis, message_id, frames[-1].id)
    return Stored(found, frames, request)
