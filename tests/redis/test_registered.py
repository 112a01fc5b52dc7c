"""The names of tools and agents: told by workers, known to the API for a day."""

import asyncio

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, registered
from rejoin.shared.clock import now_ms
from rejoin.shared.connections import open_redis
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.registered import LIFE_MS, Registered, known, publish
from rejoin.worker.publishing import Publishing
from tests.support.in_process import kit_for
from tests.support.messages import until
from tests.unit.worker.made_tool import MadeTool


async def test_nobody_knows_before_a_worker_has_told(redis: Redis) -> None:
    assert await known(redis) is None


async def test_a_worker_without_tools_says_that_there_are_none(redis: Redis) -> None:
    await publish(redis)
    assert await known(redis) == Registered(frozenset(), frozenset())


async def test_the_names_of_all_workers_are_known(redis: Redis) -> None:
    await publish(redis, tools=["search", "pay"])
    await publish(redis, tools=["pay", "book"], agents=["pay", "planner"])
    assert await known(redis) == Registered(
        frozenset({"search", "pay", "book"}), frozenset({"pay", "planner"})
    )


async def test_what_no_worker_has_had_for_a_day_is_forgotten(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = now_ms()
    monkeypatch.setattr(registered, "now_ms", lambda: now)
    await publish(redis, tools=["old", "kept"])
    monkeypatch.setattr(registered, "now_ms", lambda: now + LIFE_MS - 1)
    await publish(redis, tools=["kept"])
    assert await known(redis) == Registered(frozenset({"old", "kept"}), frozenset())
    monkeypatch.setattr(registered, "now_ms", lambda: now + LIFE_MS)
    await publish(redis)
    assert await known(redis) == Registered(frozenset({"kept"}), frozenset())


async def test_it_expires_with_the_last_worker(redis: Redis) -> None:
    await publish(redis, tools=["search"])
    assert LIFE_MS - 60_000 < await redis.pttl(keys.REGISTERED) <= LIFE_MS


async def test_a_clock_that_goes_after_takes_no_name_back(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = now_ms()
    await publish(redis, tools=["search"])
    monkeypatch.setattr(registered, "now_ms", lambda: now - LIFE_MS)
    await publish(redis, tools=["search"])
    monkeypatch.setattr(registered, "now_ms", lambda: now + 10)
    await publish(redis)
    assert await known(redis) == Registered(frozenset({"search"}), frozenset())


async def test_a_redis_that_is_away_is_told_apart(unused_tcp_port: int) -> None:
    redis = open_redis(f"redis://127.0.0.1:{unused_tcp_port}/0", retries=0)
    try:
        with pytest.raises(LogUnavailable):
            await publish(redis)
        with pytest.raises(LogUnavailable):
            await known(redis)
    finally:
        await redis.aclose()


async def test_a_worker_tells_at_once_and_again_after_redis_lost_it(redis: Redis) -> None:
    async def nothing(_: object) -> None:
        return None

    kit = kit_for(redis)
    kit.tools.add(MadeTool(nothing, name="search"))
    publishing = asyncio.create_task(Publishing(kit, every_seconds=0.05).run())
    try:
        for _ in range(2):
            await _told(redis, "search")
            await redis.delete(keys.REGISTERED)
    finally:
        publishing.cancel()
        await asyncio.wait([publishing])


async def test_a_tool_that_comes_later_is_told_of_at_once(redis: Redis) -> None:
    async def nothing(_: object) -> None:
        return None

    kit = kit_for(redis)
    publishing = asyncio.create_task(Publishing(kit, every_seconds=3600).run())
    try:
        await until(lambda: _anything(redis))
        kit.tools.add(MadeTool(nothing, name="late"))
        await _told(redis, "late")
    finally:
        publishing.cancel()
        await asyncio.wait([publishing])


async def _anything(redis: Redis) -> bool:
    return await known(redis) is not None


async def _told(redis: Redis, name: str) -> None:
    async with asyncio.timeout(10):
        while True:
            found = await known(redis)
            if found is not None and name in found.tools:
                return
            await asyncio.sleep(0.01)
