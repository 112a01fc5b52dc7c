"""Marks conversations as deleted in Redis, so that nothing is placed in them any more.

The mark lies in the conversation's hash, where lua/conversation/place.lua heeds it.
"""

from collections.abc import Awaitable, Sequence
from typing import NamedTuple, cast

from redis.asyncio import Redis

from rejoin.shared import keys
from rejoin.shared.connections import redis_or_away

_MARK = "deleted"


class Known(NamedTuple):
    """What Redis knows of a conversation: its owner (None: nothing), and whether it is deleted."""

    owner: str | None
    deleted: bool


async def look(redis: Redis, conversation_id: str) -> Known:
    """Return whose a conversation is, and whether it was deleted.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        fields = redis.hmget(keys.conversation(conversation_id), ["owner", _MARK])
        owner, mark = await cast(Awaitable[list[bytes | None]], fields)
    return Known(None if owner is None else owner.decode(), mark is not None)


async def among(redis: Redis, conversation_ids: Sequence[str]) -> set[str]:
    """Return those of the conversations that were deleted, in one round trip.

    Raises:
        LogUnavailable: Redis is away.
    """
    if not conversation_ids:
        return set()
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        for conversation_id in conversation_ids:
            pipeline.hexists(keys.conversation(conversation_id), _MARK)
        marks = await pipeline.execute()
    return {one for one, mark in zip(conversation_ids, marks, strict=True) if mark}


async def mark(redis: Redis, conversation_id: str, owner: str, *, life_seconds: int) -> list[str]:
    """Mark a conversation as deleted for so long; return the messages that have a turn in it.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    name = keys.conversation(conversation_id)
    with redis_or_away():
        # One transaction: whoever was placed before the mark is among those that are returned.
        pipeline = redis.pipeline(transaction=True)
        pipeline.hset(name, mapping={"owner": owner, _MARK: "1"})
        pipeline.expire(name, life_seconds)
        pipeline.expire(keys.turns(conversation_id), life_seconds)
        pipeline.zrange(keys.turns(conversation_id), 0, -1)
        *_, placed = await pipeline.execute()
    return [message_id.decode() for message_id in cast(list[bytes], placed)]


async def owner_of(redis: Redis, conversation_id: str) -> str | None:
    """Return whose the conversation is; None where Redis does not know it (any more).

    One that was deleted is not known.

    Raises:
        LogUnavailable: Redis is away.
    """
    known = await look(redis, conversation_id)
    return None if known.deleted else known.owner
