"""A worker's sign of life, for whoever wants to know that one is there."""

from redis.asyncio import Redis

from rejoin.shared import keys
from rejoin.shared.connections import redis_or_away
from rejoin.shared.events import dumps


async def show_life(redis: Redis, worker_id: str, *, running: int, life_seconds: float) -> None:
    """Say that a worker lives and how many messages it runs; forgotten after `life_seconds`.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    text = dumps({"worker": worker_id, "running": running})
    with redis_or_away():
        await redis.set(keys.worker(worker_id), text, px=int(life_seconds * 1000))


async def end_life(redis: Redis, worker_id: str) -> None:
    """Take the sign back: the worker has stopped.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        await redis.delete(keys.worker(worker_id))
