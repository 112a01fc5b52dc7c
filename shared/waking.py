"""Notes of messages that wait and are about to be woken, for whoever is to wake them may die.

By these notes nobody need look at all that wait, again and again.
"""

from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away


async def note(redis: Redis, message_id: str) -> None:
    """Note that a message is about to be answered or cancelled; `queue.wake` takes it back.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        await scripts.run(redis, "queue/will_wake", [keys.WAKING], [message_id])


async def noted(redis: Redis, older_than_seconds: float) -> tuple[list[str], int]:
    """Return the messages noted so long ago and not woken since, and up to what time in ms.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        seconds, _ = cast(tuple[int, int], await redis.time())
        till_ms = int((seconds - older_than_seconds) * 1000)
        found = await redis.zrangebyscore(keys.WAKING, "-inf", till_ms)
    return [message_id.decode() for message_id in cast(Sequence[bytes], found)], till_ms


async def forget(redis: Redis, till_ms: int) -> None:
    """Drop the notes up to that time, which were seen to.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        await redis.zremrangebyscore(keys.WAKING, "-inf", till_ms)


async def server_of(redis: Redis) -> str:
    """Return the run_id of the Redis that answers: another one may have lost its newest writes.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        try:
            found = cast(dict[str, object], await redis.info("server"))
        except ResponseError:  # a Redis in memory, for tests, that has no INFO
            return "unknown"
    return str(found.get("run_id", "unknown"))
