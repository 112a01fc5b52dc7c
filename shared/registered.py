"""The tools and agents that workers have, by name; the API refuses a name that none has."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis

from rejoin.shared import keys
from rejoin.shared.clock import now_ms
from rejoin.shared.connections import redis_or_away

# A name stays known while all workers are away, for a deploy or a night.
LIFE_MS: Final = 86_400_000

_WORKER: Final = "worker"  # says that a worker was there, and so that the names are all there are


@dataclass(frozen=True, slots=True)
class Registered:
    """The names that workers had within the last day."""

    tools: frozenset[str]
    agents: frozenset[str]


async def publish(redis: Redis, *, tools: Iterable[str] = (), agents: Iterable[str] = ()) -> None:
    """Say that a worker has these, and forget what none has had for a day.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    now = now_ms()
    members = [_WORKER, *(f"tool {name}" for name in tools), *(f"agent {name}" for name in agents)]
    with redis_or_away():
        async with redis.pipeline(transaction=True) as pipeline:
            pipeline.zadd(keys.REGISTERED, dict.fromkeys(members, now), gt=True)
            pipeline.zremrangebyscore(keys.REGISTERED, "-inf", now - LIFE_MS)
            pipeline.pexpire(keys.REGISTERED, LIFE_MS)
            await pipeline.execute()


async def known(redis: Redis) -> Registered | None:
    """Return the names, or None where no worker has said any: then nobody knows.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        members = cast(list[bytes], await redis.zrange(keys.REGISTERED, 0, -1))
    if not members:
        return None
    told = [member.decode().partition(" ") for member in members]
    return Registered(
        frozenset(name for kind, _, name in told if kind == "tool"),
        frozenset(name for kind, _, name in told if kind == "agent"),
    )
