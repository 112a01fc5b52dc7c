"""Jobs in the queue without a message behind them, and looks at them."""

from collections.abc import Awaitable
from typing import Final, cast

from redis.asyncio import Redis

from rejoin.shared import keys, queue
from rejoin.shared.ids import new_message_id
from tests.support.messages import enqueue

LEASE: Final = 5.0  # seconds


async def lease(
    redis: Redis,
    token: str,
    most: int = 100,
    *,
    seconds: float = LEASE,
    take_over: bool = True,
) -> list[str]:
    taken = await queue.lease(
        redis, token=token, lease_seconds=seconds, most=most, take_over=take_over
    )
    return list(taken)


async def queued(redis: Redis, *, due_in_ms: int = 0) -> str:
    """Queue a job of a message that has no record, with a score of one's own."""
    message_id = new_message_id()
    await enqueue(redis, message_id)
    await redis.zincrby(keys.QUEUE, due_in_ms, message_id)
    return message_id


async def tokens(redis: Redis) -> int:
    return await cast(Awaitable[int], redis.llen(keys.WAKE))


async def expire_lease(redis: Redis, message_id: str) -> None:
    await redis.zincrby(keys.QUEUE, -60_000, message_id)
