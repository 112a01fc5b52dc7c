"""Stores an accepted message: its record and its request, unless they are there already."""

from typing import Final

from redis.asyncio import Redis

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away
from rejoin.shared.errors import Unavailable
from rejoin.shared.record import Record
from rejoin.shared.request import StoredRequest

# How long after its index entry a message may still be accepted: whoever finds an older entry
# without a record may drop it, and nothing is accepted behind its back.
WITHIN_MS: Final = 30_000


async def store(
    redis: Redis,
    record: Record,
    request: StoredRequest,
    *,
    indexed_at: int,
    life_seconds: int,
) -> None:
    """Store an accepted message; a repeat changes nothing.

    Raises:
        Unavailable: the index entry is too old by now: accept the message anew.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    call = storing(record, request, indexed_at=indexed_at, life_seconds=life_seconds)
    with redis_or_away():
        check(await scripts.run(redis, *call))


def storing(
    record: Record, request: StoredRequest, *, indexed_at: int, life_seconds: int
) -> scripts.Call:
    """The call of `store`, to be sent with others in one round trip."""
    message_id = record.message_id
    fields = {
        "owner": record.owner,
        "conversation_id": record.conversation_id,
        "model": record.model,
        "created_at": str(record.created_at),
    }
    arguments: list[str | int] = [
        indexed_at, WITHIN_MS, life_seconds * 1000, request.encode(),
    ]  # fmt: skip
    for name, value in fields.items():
        arguments += [name, value]
    names = [keys.record(message_id), keys.request(message_id)]
    return scripts.Call("log/accept", names, arguments)


def check(reply: object) -> None:
    """Read the reply to `storing`.

    Raises:
        Unavailable: the index entry is too old by now: accept the message anew.
    """
    if reply == b"late":
        raise Unavailable("the message was not stored in time; send it again")
