"""Watches messages that wait for people while all breaks: no worker keeps a lease on one."""

import asyncio
from typing import Final, cast

import redis as redis_py

from rejoin.shared import keys
from tests.chaos.cluster import LEASE_SECONDS
from tests.chaos.tally import Tally
from tests.support.redis_server import RedisServer

_LOOK_SECONDS: Final = 0.5
_MOST_SECONDS: Final = 2 * LEASE_SECONDS  # a reply that was lost, and another try

Seen = tuple[bytes, bytes]  # since when it waits, by which lease it is held


class Waits:
    """Looks at Redis now and then, whenever it is there."""

    def __init__(self, redis: RedisServer, tally: Tally) -> None:
        self._redis = redis
        self._tally = tally
        self._held: dict[bytes, tuple[Seen, float]] = {}
        self._told: set[bytes] = set()
        self._waited: set[tuple[bytes, bytes]] = set()

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.to_thread(self._look)

    def _look(self) -> None:
        try:
            with self._redis.client() as client:
                found = look(client)
        except (redis_py.RedisError, OSError):
            return
        self.take(found)

    def take(self, found: "dict[bytes, tuple[bytes, bytes | None, float]]") -> None:
        """Note what was found: of each message that waits since when, its lease and its end.

        A worker that stopped between the wait and its lease's end is no fault. One that renews the
        lease again and again keeps it.
        """
        held: dict[bytes, tuple[Seen, float]] = {}
        for message_id, (since, token, until) in found.items():
            self._waited.add((message_id, since))
            if token is None:
                continue
            seen, first = (since, token), until
            if message_id in self._held and self._held[message_id][0] == seen:
                first = self._held[message_id][1]
                if (until - first) / 1000 > _MOST_SECONDS and message_id not in self._told:
                    self._told.add(message_id)
                    self._tally.wrong(f"{message_id.decode()} waits, and is leased all the time")
            held[message_id] = (seen, first)
        self._held = held
        self._tally.counts["waits seen"] = len(self._waited)


def look(
    client: "redis_py.Redis",
) -> "dict[bytes, tuple[bytes, bytes | None, float]]":
    """The messages that wait: since when, the token of the lease on each, and the lease's end."""
    ids = cast(list[bytes], client.zrange(keys.OPEN, 0, -1))
    pipeline = client.pipeline(transaction=True)
    for message_id in ids:
        pipeline.hmget(keys.record(message_id.decode()), ["parked_at", "ended"])
        pipeline.hget(keys.OWNERS, message_id.decode())
        pipeline.zscore(keys.QUEUE, message_id.decode())
    replies = pipeline.execute() if ids else []
    found = {}
    rows = zip(ids, replies[::3], replies[1::3], replies[2::3], strict=True)
    for message_id, (parked_at, ended), token, until in rows:
        if parked_at is not None and ended is None:
            found[message_id] = (parked_at, token, float(until or 0))
    return found
