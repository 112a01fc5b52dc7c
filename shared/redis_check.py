"""Looks whether a Redis is fit for Rejoin: reachable, new enough, keeping what it is given."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from rejoin.shared.connections import open_redis

OLDEST: Final = (6, 2)
RECOMMENDED: Final = (7, 0)

_REPLY_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 5.0  # while it is away, which others say

_log = logging.getLogger(__name__)


class Grade(StrEnum):
    """How bad a finding is: `BROKEN` keeps Rejoin from working, `WARNING` may hurt one day."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing seen, and how to mend it where it is not well."""

    grade: Grade
    sentence: str


async def answers(url: str, *, timeout_seconds: float = 0.5) -> bool:
    """Whether the Redis at `url` answers a PING, at once and without a retry."""
    redis = open_redis(url, timeout_seconds=timeout_seconds, connections=1, retries=0)
    try:
        await cast(Awaitable[object], redis.ping())
    except (RedisError, OSError):
        return False
    else:
        return True
    finally:
        await redis.aclose()


async def look(url: str) -> list[Finding]:
    """Return what there is to say about the Redis at `url`, within some seconds.

    One BROKEN finding where it cannot be reached; no finding names a password.
    """
    try:
        facts = await _facts_of(url)
    except (RedisError, OSError) as error:
        reason = str(error) or type(error).__name__
        mend = "start it, or mend REJOIN_REDIS_URL"
        return [Finding(Grade.BROKEN, f"does not answer: {reason.rstrip('.')}; {mend}")]
    return judge(facts)


@asynccontextmanager
async def warned_of(url: str) -> AsyncIterator[None]:
    """Log once what is not well with the Redis at `url`, when it answers; the block waits for none.

    So that a start says it too: an eviction of running messages, a Redis that keeps nothing.
    """
    warning = asyncio.create_task(_warn(url))
    try:
        yield
    finally:
        warning.cancel()
        await asyncio.gather(warning, return_exceptions=True)


async def _warn(url: str) -> None:
    while True:
        try:
            facts = await _facts_of(url)
        except (RedisError, OSError, ValueError):
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        for finding in judge(facts):
            if finding.grade is not Grade.OK:
                _log.warning("Redis: %s", finding.sentence)
        return


def judge(facts: Mapping[str, str]) -> list[Finding]:
    """Return the findings on a Redis that answers, from its INFO and CONFIG fields."""
    return [
        _version(facts.get("redis_version")),
        *_kind_of_server(facts),
        *_memory(facts),
        *_persistence(facts),
    ]


async def _facts_of(url: str) -> dict[str, str]:
    redis = open_redis(url, timeout_seconds=_REPLY_SECONDS, connections=1, retries=0)
    try:
        await cast(Awaitable[object], redis.ping())
        return await _facts(redis)
    finally:
        await redis.aclose()


async def _facts(redis: Redis) -> dict[str, str]:
    """INFO and some of CONFIG; without what a managed server or a fake one refuses to tell."""
    facts: dict[str, str] = {}
    try:
        facts |= {str(name): str(value) for name, value in (await redis.info()).items()}
    except ResponseError:
        return facts
    for name in ("maxmemory-policy", "save", "appendfsync"):
        try:
            found = cast(Mapping[object, object], await redis.config_get(name))
        except ResponseError:
            continue
        facts |= {_text(key): _text(value) for key, value in found.items()}
    return facts


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _version(told: str | None) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", told or "")
    if found is None:
        return Finding(Grade.WARNING, "answers, but does not tell its version (6.2 is needed)")
    version = (int(found[1]), int(found[2]))
    if version < OLDEST:
        return Finding(Grade.BROKEN, f"version {told} is too old: 6.2 is needed, 7 recommended")
    if version < RECOMMENDED:
        return Finding(Grade.OK, f"version {told}; 7 or later is recommended")
    return Finding(Grade.OK, f"version {told}")


def _kind_of_server(facts: Mapping[str, str]) -> list[Finding]:
    found = []
    if facts.get("role") in ("slave", "replica"):
        found.append(Finding(Grade.BROKEN, "is a read-only replica: name the primary"))
    if facts.get("redis_mode") == "cluster":
        found.append(Finding(Grade.BROKEN, "is part of a Cluster, which a later version speaks"))
    return found


def _memory(facts: Mapping[str, str]) -> list[Finding]:
    policy = facts.get("maxmemory-policy") or facts.get("maxmemory_policy")
    if policy is None or policy == "noeviction":
        return []
    # volatile-* too: every key of a message has an expiry, so all of them may be chosen.
    return [
        Finding(
            Grade.WARNING,
            f"maxmemory-policy {policy} may throw away a message that runs: set noeviction",
        )
    ]


def _persistence(facts: Mapping[str, str]) -> list[Finding]:
    found = []
    if facts.get("aof_enabled") == "0":
        snapshots = facts.get("save") != ""
        lost = "what came after its newest snapshot" if snapshots else "everything with its process"
        sentence = f"its append-only file is off, so it loses {lost}: set appendonly yes"
        found.append(Finding(Grade.WARNING, sentence))
    elif facts.get("appendfsync") == "no":
        sentence = "appendfsync no loses what the system had not written out: set everysec"
        found.append(Finding(Grade.WARNING, sentence))
    for name, what in (("aof_last_write_status", "log"), ("rdb_last_bgsave_status", "snapshot")):
        if facts.get(name) == "err":
            sentence = f"could not write its {what}: look at its own log, and at the free disk"
            found.append(Finding(Grade.BROKEN, sentence))
    return found
