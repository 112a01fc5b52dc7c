"""Looks which models failed and are left alone, for `rejoin doctor`."""

from collections.abc import AsyncIterator
from datetime import datetime
from math import ceil
from typing import Final

import httpx

from rejoin.client.commands.printing import printable
from rejoin.shared import cooling
from rejoin.shared.clock import now_ms
from rejoin.shared.connections import open_redis
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.redis_check import Finding, Grade

_ANSWER_SECONDS: Final = 5.0


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
        yield _left_alone(model, one.reason, one.until_ms)


async def ask(server_url: str) -> AsyncIterator[tuple[str, Finding]]:
    """Say it of each model that a running server lists; nothing where none answers.

    For a Redis that cannot be asked itself: that of `rejoin dev`, whose password nobody knows.
    """
    async with httpx.AsyncClient(trust_env=False, timeout=_ANSWER_SECONDS) as http:
        try:
            response = await http.get(f"{server_url}/api/models")
            listed = response.json()["models"] if response.is_success else []
            told = [(one["id"], one["cooling"]) for one in listed if one["cooling"]]
            found = [_left_alone(model, one["reason"], _ms(one["until"])) for model, one in told]
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return  # no server of Rejoin's, or none that is ready, which is told already
    for finding in found:
        yield finding


def _left_alone(model: str, reason: str, until_ms: int) -> tuple[str, Finding]:
    seconds = max(1, ceil((until_ms - now_ms()) / 1000))
    sentence = f"it failed ({reason}): messages with `fallbacks` leave it alone for {seconds} s"
    return f"model {printable(model)}", Finding(Grade.WARNING, sentence)


def _ms(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1000)
