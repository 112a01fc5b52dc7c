"""Looks which models failed and are left alone, for `rejoin doctor`."""

from collections.abc import AsyncIterator
from math import ceil

from rejoin.client.commands.printing import printable
from rejoin.shared import cooling
from rejoin.shared.clock import now_ms
from rejoin.shared.connections import open_redis
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.redis_check import Finding, Grade


async def look(redis_url: str) -> AsyncIterator[tuple[str, Finding]]:
    """Say of each such model for how long still, and why; nothing while Redis is away."""
    redis = open_redis(redis_url, connections=1, retries=0)
    try:
        found = await cooling.left_alone(redis)
    except LogUnavailable:
        return  # which is told already
    finally:
        await redis.aclose()
    for model, one in sorted(found.items()):
        seconds = max(1, ceil((one.until_ms - now_ms()) / 1000))
        sentence = (
            f"it failed ({one.reason}): messages with `fallbacks` leave it alone for {seconds} s"
        )
        yield f"model {printable(model)}", Finding(Grade.WARNING, sentence)
