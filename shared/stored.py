"""A whole message as Redis has it: its record, its request and its log, in one round trip."""

from typing import NamedTuple, cast

from redis.asyncio import Redis

from rejoin.shared import keys, log, record
from rejoin.shared.connections import redis_or_away
from rejoin.shared.errors import MessageMissing, RequestUnreadable
from rejoin.shared.frames import Frame
from rejoin.shared.record import Record
from rejoin.shared.request import StoredRequest


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
        return record.read_request(self.request_text)

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
        pipeline = redis.pipeline(transaction=False)
        pipeline.hgetall(keys.record(message_id))
        pipeline.get(keys.request(message_id))
        pipeline.xrange(keys.log(message_id), count=log.PAGE)
        fields, request, entries = cast(
            tuple[dict[bytes, bytes], bytes | None, list[log.Entry]], await pipeline.execute()
        )
    found = record.parse(message_id, fields)
    if found is None:
        raise MessageMissing(message_id)
    frames = [log.frame_of(entry) for entry in entries]
    if len(frames) == log.PAGE:
        frames += await log.read_all(redis, message_id, frames[-1].id)
    return Stored(found, frames, request)
