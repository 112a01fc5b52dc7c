"""What breaks beside a quota: a killed holder, cancels, an emptied Redis, a provider that hangs."""

import asyncio
import time
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, queue, record
from rejoin.shared.ending import Ender, end_message
from rejoin.shared.fold import fold
from rejoin.shared.record import Status
from rejoin.shared.settings_file import Quota, SettingsFile
from rejoin.worker.providers.registry import FACTORIES
from tests.support.in_process import until_ended, until_events, worker_on
from tests.support.limited_provider import ANSWERED, LimitedProvider
from tests.support.limited_workers import all_ended, workers_of
from tests.support.logs import names
from tests.support.messages import LIFE, accept, post, until, until_true
from tests.support.scripted_provider import SILENCE, ScriptedProvider, answer
from tests.support.tools import PlainTool, call, calling

TEXT: Final = "".join(ANSWERED)
MODEL: Final = "openai/m"
AT_ONCE: Final = Quota(requests_at_once=1)


async def names_of(redis, message_id):
    return names(await log.read_all(redis, message_id))


async def status_of(redis: Redis, message_id: str) -> Status | None:
    found = await record.load(redis, message_id)
    return None if found is None else found.status


async def test_many_behind_one_slot_all_end_in_order_though_its_holder_is_killed(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=10_000, window_seconds=60, takes_seconds=3600) as server,
        workers_of(
            clean_redis_url, server, monkeypatch, 2, quota=AT_ONCE, lease_seconds=1, max_jobs=5
        ) as workers,
    ):
        first = await post(redis, model=MODEL)
        asked = await server.request()
        ids = [await post(redis, model=MODEL) for _ in range(49)]

        async def all_stand_in_line() -> bool:
            found = [await status_of(redis, message_id) for message_id in ids]
            return found.count(Status.WAITING) >= 45

        await until(all_stand_in_line, within=20, every=0.1)
        server.takes_seconds = 0.01
        holder = workers[int(asked.headers["openai-organization"][1:])]
        await holder.die()
        await until(lambda: all_ended(redis), within=30, every=0.1)
        retries = []
        for message_id in [first, *ids]:
            message = fold(await log.read_all(redis, message_id))
            assert message.text == TEXT
            retries.append((await names_of(redis, message_id)).count("retry"))
    order = [one.message_id for one in server.taken[1:]]
    print(retries)
    print([([first, *ids]).index(one) for one in order])
    assert server.most_at_once == 1


@pytest.mark.parametrize("patience", ["slot", "parked"])
async def test_a_cancel_ends_one_that_waits_within_a_second(
    patience: str, redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=10_000, window_seconds=60, takes_seconds=3600) as server,
        workers_of(clean_redis_url, server, monkeypatch, 1, quota=AT_ONCE) as (worker,),
    ):
        await post(redis, model=MODEL)
        await server.request()
        message_id = await post(redis, model=MODEL)
        if patience == "slot":
            known = worker.kit.admission.known_of(MODEL)
            assert known is not None
            await until_true(lambda: message_id in known.waiting)
        else:
            await until_events(redis, message_id, 2)
        began = time.monotonic()
        await record.cancel(redis, message_id)
        await queue.wake(redis, message_id)
        await end_message(Ender(redis, "api", LIFE), message_id) if patience == "parked" else None
        await until_ended(redis, message_id)
        took = time.monotonic() - began
        assert took < 1
        scope = known_scope(worker)
        assert await redis.zcard(keys.quota(*scope)[6]) == 0


def known_scope(worker: Any) -> tuple[str, str]:
    known = worker.kit.admission.known_of(MODEL)
    return known.scope.key, known.scope.name


async def test_waiting_does_not_count_for_the_messages_time(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=1, window_seconds=1.5, sliding=True) as server,
        workers_of(
            clean_redis_url,
            server,
            monkeypatch,
            1,
            quota=Quota(requests_per_minute=1),
            timeout_total=1,
        ),
    ):
        ids = [await post(redis, model=MODEL) for _ in range(3)]
        for message_id in ids:
            assert fold(await until_ended(redis, message_id)).text == TEXT


async def test_a_later_step_waits_for_its_turn_and_runs_no_tool_again(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = PlainTool()
    provider = ScriptedProvider(calling(call("c1", at=1), words="hm"), answer("so"))
    monkeypatch.setitem(FACTORIES, "openai", lambda: provider)
    file = SettingsFile(quota={"openai": Quota(requests_per_minute=1)})
    async with worker_on(clean_redis_url, None, tools=[tool], file=file, quota_seconds=3):
        message_id = await post(redis, model=MODEL, tools=[tool.name])
        frames = await until_ended(redis, message_id)
    assert names(frames) == [
        "start", "text", "tool_call", "tool_start", "tool_result", "step", "retry",
        "reset", "text", "step", "usage", "done",
    ]  # fmt: skip
    assert len(provider.calls) == 2


async def test_the_next_of_a_conversation_begins_when_the_parked_one_has_ended(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=1, window_seconds=3, sliding=True) as server,
        workers_of(clean_redis_url, server, monkeypatch, 1, quota=Quota(requests_per_minute=1)),
    ):
        first = await post(redis, model=MODEL)
        await until_ended(redis, first)
        found = await record.load(redis, first)
        assert found is not None
        parked = await post(redis, model=MODEL)
        at = await record.load(redis, parked)
        assert at is not None
        following = await accept(
            redis, model="demo/echo?rate=0", conversation_id=at.conversation_id
        )
        await until_events(redis, parked, 2)
        assert await status_of(redis, following) is Status.QUEUED
        assert fold(await until_ended(redis, parked)).text == TEXT
        await until_ended(redis, following)
    ended = await record.load(redis, parked)
    began = await record.load(redis, following)
    assert ended is not None and began is not None
    assert began.started_at >= ended.finished_at


async def test_a_redis_that_was_emptied_keeps_to_the_quota_again(
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
        ids = [await post(redis, model=MODEL) for _ in range(5)]
        for message_id in ids:
            assert fold(await until_ended(redis, message_id, within=20)).text == TEXT


async def test_a_first_call_that_hangs_holds_the_others_up_once(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider([SILENCE], *[answer("so")] * 20)
    monkeypatch.setitem(FACTORIES, "openai", lambda: provider)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    async with worker_on(clean_redis_url, None, drain_seconds=0):
        await post(redis, model=MODEL)
        await until_true(lambda: len(provider.calls) == 1)
        for n in range(4):
            began = time.monotonic()
            await until_ended(redis, await post(redis, model=MODEL))
            took = time.monotonic() - began
            print(n, took)
            assert took < (1.5 if n == 0 else 0.5)
