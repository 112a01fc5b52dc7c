"""Messages that have a place in a conversation and were never accepted: the rest goes on without.

An API that dies, or loses Redis, between a message's place and its record leaves one behind.
"""

from collections.abc import Awaitable
from typing import cast

from redis.asyncio import Redis

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away


async def drop(redis: Redis, conversation_id: str, message_id: str, *, life_seconds: int) -> str:
    """Take such a message out; return whose turn it is then, or an empty string.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    names = [keys.turns(conversation_id), keys.conversation(conversation_id)]
    arguments: list[scripts.Argument] = [message_id, life_seconds * 1000]
    with redis_or_away():
        reply = await scripts.run(redis, "conversation/drop", names, arguments)
    return cast(bytes, reply).decode()


async def standing(redis: Redis, conversation_id: str, parent_id: str | None) -> str | None:
    """Return a message's parent, or where that was dropped the nearest before it that was not.

    Raises:
        LogUnavailable: Redis is away.
    """
    met = set[str]()
    while parent_id and parent_id not in met:
        met.add(parent_id)
        with redis_or_away():
            field = redis.hget(keys.conversation(conversation_id), f"gone {parent_id}")
            before = await cast(Awaitable[bytes | None], field)
        if before is None:
            return parent_id
        parent_id = before.decode()
    return None
