"""Looks for keys without an expiry for as long as a run lasts: what is mended later is seen too."""

import asyncio
from typing import Final, cast

import redis as redis_py
from redis.exceptions import RedisError

from tests.chaos.leftovers import INDEXES
from tests.chaos.tally import Tally
from tests.support.redis_server import RedisServer

LOOKS: Final = "looks for keys without an expiry"
_SECONDS: Final = 0.5
_AT_ONCE: Final = 1000


class Lasting:
    """Everything in Redis expires, but for the named indexes."""

    def __init__(self, redis: RedisServer, tally: Tally) -> None:
        self._redis = redis
        self._tally = tally
        self._seen: set[str] = set()

    async def watch(self) -> None:
        """Look again and again; while Redis is away there is nothing to see."""
        while True:
            try:
                found = await asyncio.to_thread(self._look)
            except (RedisError, OSError):
                found = set()
            else:
                self._tally.counts[LOOKS] += 1
            for name in sorted(found - self._seen):
                self._tally.wrong(f"{name} had no expiry while the run lasted")
            self._seen |= found
            await asyncio.sleep(_SECONDS)

    def _look(self) -> set[str]:
        with self._redis.client() as client:
            return lasting(client)


def lasting(client: "redis_py.Redis") -> set[str]:
    """Return the names of the keys that never expire, without the indexes."""
    found, cursor = set(), 0
    while True:
        cursor, names = cast(tuple[int, list[bytes]], client.scan(cursor, count=_AT_ONCE))
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.pttl(name)
        lives = pipeline.execute()
        found |= {
            name.decode() for name, life_ms in zip(names, lives, strict=True) if life_ms == -1
        }
        if not cursor:
            return found - INDEXES
