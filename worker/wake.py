"""Waits until a job may be due: a wake token, or the poll's interval."""

import asyncio
from typing import Final

from redis.asyncio import Redis

from rejoin.shared import queue
from rejoin.shared.errors import LogUnavailable

POLL_SECONDS: Final = 0.5  # the fallback: a lost token, a lease that ended, a score come due


class Wake:
    """The blocking pop, on a connection of its own whose time-out is longer than the pop."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def wait(self) -> bool:
        """Return after a token or the interval; False where Redis is away."""
        try:
            await queue.wait_for_token(self._redis, POLL_SECONDS)
        except LogUnavailable:
            await asyncio.sleep(POLL_SECONDS)
            return False
        return True
