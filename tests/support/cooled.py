"""Lets the time pass for which a model that failed is left alone."""

from collections.abc import Awaitable
from typing import cast

from redis.asyncio import Redis

from rejoin.shared import keys


async def time_over(redis: Redis, model: str) -> None:
    """Let a model's time be over: it is on trial next."""
    found = await cast(Awaitable[bytes | None], redis.hget(keys.COOLING, model))
    if found is None:
        raise AssertionError(f"{model} is not left alone")
    _, wait, _, of, reason = found.decode().split(" ")
    seconds, _ = cast(tuple[int, int], await redis.time())
    value = f"{seconds * 1000 - 1} {wait} 0 {of} {reason}"
    await cast(Awaitable[int], redis.hset(keys.COOLING, model, value))
