"""What breaks in beside a quota: a killed holder, a cancel, an emptied Redis, a deadline."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, queue, record
from rejoin.shared.fold import fold
from rejoin.shared.record import Status
from rejoin.shared.settings_file import Quota, SettingsFile
from rejoin.worker.agents import Run, Said, agent
from rejoin.worker.providers.registry import FACTORIES
from tests.support.in_process import until_ended, worker_on
from tests.support.limited_provider import ANSWERED, LimitedProvider
from tests.support.limited_workers import all_ended, workers_of
from tests.support.logs import names
from tests.support.messages import post, until, until_true
from tests.support.scripted_provider import ScriptedProvider, answer, texts
from tests.support.tools import PlainTool, call, calling

TEXT: Final = "".join(ANSWERED)
MODEL: Final = "openai/m"
AT_ONCE: Final = Quota(requests_at_once=1)
A_MINUTE: Final = Quota(requests_per_minute=1)
MANY: Final = 30


async def all_wait(redis: Redis, ids: list[str]) -> bool:
    found = [await record.load(redis, message_id) for message_id in ids]
    return all(one is not None and one.status is Status.WAITING for one in found)


async def test_many_behind_one_slot_end_in_their_order_though_its_holder_is_killed(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=10_000, window_seconds=60, takes_seconds=3600) as server,
        workers_of(
            clean_redis_url, server, monkeypatch, 2, quota=AT_ONCE, lease_seconds=1, max_jobs=10
        ) as workers,
    ):
        held = await post(redis, model=MODEL)
        asked = await server.request()
        ids = [await post(redis, model=MODEL) for _ in range(MANY)]
        await until(lambda: all_wait(redis, ids), within=20, every=0.05)
        server.takes_seconds = 0.05
        await workers[int(asked.headers["openai-organization"][1:])].die()
        await until(lambda: all_ended(redis), within=30, every=0.1)
    for message_id in [held, *ids]:
        frames = await log.read_all(redis, message_id)
        assert fold(frames).text == TEXT
        assert names(frames).count("retry") <= 4
    order = [one.message_id for one in server.taken[1:]]
    assert [message_id for message_id in order if message_id != held] == ids
    assert order.index(held) < MANY  # not behind all that had not begun
    assert server.most_at_once == 1


async def test_a_cancel_ends_at_once_what_waits_within_its_slot(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=10_000, window_seconds=60, takes_seconds=3600) as server,
        workers_of(clean_redis_url, server, monkeypatch, 1, quota=AT_ONCE) as (worker,),
    ):
        await post(redis, model=MODEL)
        await server.request()
        message_id = await post(redis, model=MODEL)
        known = worker.kit.admission.known_of(MODEL)
        assert known is not None
        await until_true(lambda: message_id in known.waiting)
        await record.cancel(redis, message_id)
        await queue.wake(redis, message_id)
        frames = await until_ended(redis, message_id, within=1)
        line = keys.quota(known.scope.key, known.scope.name)[6]
        assert await redis.zcard(line) == 0
    assert names(frames) == ["start", "usage", "done"]


async def test_waiting_uses_up_none_of_a_messages_time(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=1, window_seconds=1.5, sliding=True) as server,
        workers_of(clean_redis_url, server, monkeypatch, 1, quota=A_MINUTE, timeout_total=1),
    ):
        for message_id in [await post(redis, model=MODEL) for _ in range(2)]:
            assert fold(await until_ended(redis, message_id)).text == TEXT


async def test_a_later_step_waits_for_its_turn_and_runs_no_tool_again(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = PlainTool()
    provider = ScriptedProvider(calling(call("c1", at=1), words="hm"), answer("so"))
    monkeypatch.setitem(FACTORIES, "openai", lambda: provider)
    file = SettingsFile(quota={"openai": A_MINUTE})
    async with worker_on(clean_redis_url, tools=[tool], file=file, quota_seconds=3):
        frames = await until_ended(redis, await post(redis, model=MODEL, tools=[tool.name]))
    assert names(frames) == [
        "start", "text", "tool_call", "tool_start", "tool_result", "step", "retry",
        "reset", "text", "step", "usage", "done",
    ]  # fmt: skip
    assert len(provider.calls) == 2


async def test_what_comes_after_redis_was_emptied_is_admitted(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=10_000, window_seconds=60, takes_seconds=1) as server,
        workers_of(clean_redis_url, server, monkeypatch, 2, quota=AT_ONCE, lease_seconds=1),
    ):
        for _ in range(5):
            await post(redis, model=MODEL)
        await server.request()
        await redis.flushall()
        server.takes_seconds = 0
        for message_id in [await post(redis, model=MODEL) for _ in range(5)]:
            assert fold(await until_ended(redis, message_id)).text == TEXT


async def test_an_agents_later_call_comes_before_messages_that_have_not_begun(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @agent(name="twice")
    async def twice(run: Run) -> AsyncGenerator[Said, None]:
        for _ in range(2):
            async with run.model(MODEL) as said:
                async for piece in said:
                    yield piece

    provider = ScriptedProvider([*texts("a"), gate := asyncio.Event(), *answer("b")], answer("c"))
    monkeypatch.setitem(FACTORIES, "openai", lambda: provider)
    file = SettingsFile(quota={"openai": AT_ONCE})
    async with worker_on(clean_redis_url, agents=[twice], file=file):
        first = await post(redis, model="agent/twice")
        await until_true(lambda: len(provider.calls) == 1)
        ids = [await post(redis, "of others", model=MODEL) for _ in range(3)]
        await until(lambda: all_wait(redis, ids))
        gate.set()
        for message_id in [first, *ids]:
            await until_ended(redis, message_id)
    assert ["of others" in str(one.turns) for one in provider.calls] == [False] * 2 + [True] * 3
