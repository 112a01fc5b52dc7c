"""The reaper wakes messages that wait for nothing any more, and keeps the others alive."""

from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, queue, record, waiting, waking
from rejoin.shared.asks import Answer, Kind
from rejoin.shared.ending import Ender, end_message
from rejoin.worker.reaper import Reaper
from tests.redis.jobs import lease, queued
from tests.support.in_process import kit_for
from tests.support.messages import claim, enqueue, place
from tests.support.waits import say, wait_for

DAY = 86_400_000  # ms
YES = Answer(Kind.APPROVE, True)


async def look(redis: Redis) -> int:
    return await Reaper(kit_for(redis)).look()


async def parked(redis: Redis, *call_ids: str, job: str = "job") -> str:
    """A message that waits for answers a day long, its worker gone."""
    message_id = await wait_for(redis, *call_ids)
    await enqueue(redis, message_id)
    assert await lease(redis, job) == [message_id]
    await waiting.park(redis, message_id, token="a", call_ids=call_ids)
    await queue.release(redis, message_id, job, delay_ms=DAY)
    return message_id


async def is_due(redis: Redis, message_id: str) -> bool:
    due_in_ms = (await place(redis, message_id)).due_in_ms
    return due_in_ms is not None and due_in_ms <= 0


@pytest.mark.parametrize("after_step", [None, False, True], ids=["answer", "cancel", "after_step"])
async def test_a_message_that_nobody_woke_is_woken(
    any_redis: Redis, after_step: bool | None
) -> None:
    message_id = await parked(any_redis, "x", "y")
    await say(any_redis, message_id, "x", YES)
    assert await look(any_redis) == 0
    assert not await is_due(any_redis, message_id)
    if after_step is None:
        await say(any_redis, message_id, "y", YES)
    else:
        await record.cancel(any_redis, message_id, after_step=after_step)
    await any_redis.delete(keys.WAKE)
    assert await look(any_redis) == 1
    assert await is_due(any_redis, message_id)
    assert await cast(Awaitable[int], any_redis.llen(keys.WAKE)) == 1
    assert await look(any_redis) == 0


async def test_the_next_look_wakes_for_somebody_who_set_out_to_and_died(any_redis: Redis) -> None:
    reaper = Reaper(kit_for(any_redis))
    await reaper.look()  # at all of them, as a new reaper does
    message_id, other = await parked(any_redis, "x"), await parked(any_redis, "x", job="other")
    for noted in (message_id, other):
        await waking.note(any_redis, noted)
    await say(any_redis, message_id, "x", YES)
    assert await reaper.look() == 0  # a note of this moment: it may be under way
    await any_redis.zadd(keys.WAKING, {message_id: 1, other: 1})
    assert await reaper.look() == 1
    assert await is_due(any_redis, message_id)
    assert not await is_due(any_redis, other)
    assert await any_redis.zcard(keys.WAKING) == 0


async def test_a_cancel_of_what_runs_is_not_told_as_a_wake(
    any_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    message_id = await wait_for(any_redis)
    await enqueue(any_redis, message_id)
    assert await lease(any_redis, "job") == [message_id]
    await record.cancel(any_redis, message_id)
    await any_redis.zadd(keys.WAKING, {message_id: 1})
    await look(any_redis)
    assert "woken" not in caplog.text
    await queue.release(any_redis, message_id, "job", delay_ms=DAY)
    assert await is_due(any_redis, message_id)


async def test_a_message_that_was_cancelled_and_has_ended_is_no_cause_for_a_warning(
    any_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    message_id = await parked(any_redis, "x")
    await waking.note(any_redis, message_id)
    await record.cancel(any_redis, message_id)
    await end_message(Ender(any_redis, "api", 60), message_id)
    await any_redis.zadd(keys.WAKING, {message_id: 1})
    await look(any_redis)
    assert await any_redis.zcard(keys.WAKING) == 0
    assert caplog.messages == []


async def test_messages_that_wait_are_not_looked_at_each_time(redis: Redis) -> None:
    reaper = Reaper(kit_for(redis))
    for n in range(20):
        await parked(redis, "x", job=f"job-{n}")
    await reaper.look()
    await redis.config_resetstat()
    await reaper.look()
    stats = await redis.info("commandstats")
    calls = sum(stat["calls"] for stat in stats.values())
    assert calls < 10, sorted(stats)


async def test_a_message_that_waits_and_lost_its_job_is_queued(any_redis: Redis) -> None:
    message_id = await parked(any_redis, "x")
    await any_redis.delete(keys.QUEUE, keys.job(message_id))
    assert await look(any_redis) == 1
    assert await lease(any_redis, "next") == [message_id]


async def test_what_runs_with_answers_is_left_alone(any_redis: Redis) -> None:
    message_id = await parked(any_redis, "x")
    await say(any_redis, message_id, "x", YES)
    await queue.wake(any_redis, message_id)
    await lease(any_redis, "next")
    await claim(any_redis, message_id, "b")
    assert await look(any_redis) == 0
    assert (await place(any_redis, message_id)).owner == b"next"


async def test_what_is_put_off_for_another_reason_is_left_alone(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis)
    await enqueue(any_redis, message_id)
    await any_redis.zincrby(keys.QUEUE, DAY, message_id)
    assert await look(any_redis) == 0


async def test_what_waits_is_kept_alive(any_redis: Redis) -> None:
    message_id = await parked(any_redis, "x")
    names = [keys.record(message_id), keys.request(message_id), keys.answers(message_id)]
    names.append(keys.job(message_id))
    found = await record.load(any_redis, message_id)
    assert found is not None
    names += [keys.turns(found.conversation_id), keys.conversation(found.conversation_id)]
    for name in names:
        await any_redis.expire(name, 5)
    reaper = Reaper(kit_for(any_redis))
    await reaper.look()
    assert all([await any_redis.ttl(name) > 1000 for name in names])
    for name in names:
        await any_redis.expire(name, 5)
    for _ in range(100):
        await reaper.look()
    assert all([await any_redis.ttl(name) > 1000 for name in names])


async def test_many_are_looked_at_in_pages_though_some_are_woken(redis: Redis) -> None:
    """Every other has no record: a worker is to see to it. The rest wait for something else."""
    gone, rest = [], []
    for n in range(1_200):
        if n % 2:
            gone.append(await queued(redis, due_in_ms=DAY + n))
            continue
        message_id = await wait_for(redis)
        await enqueue(redis, message_id)
        await redis.zincrby(keys.QUEUE, DAY + n, message_id)
        rest.append(message_id)
    assert await look(redis) == len(gone)
    assert set(await queue.long_put_off(redis, 5, 0, 2_000)) == set(rest)


async def test_another_redis_has_all_that_wait_looked_at(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaper = Reaper(kit_for(redis))
    await reaper.look()
    message_id = await parked(redis, "x")
    await say(redis, message_id, "x", YES)
    assert await reaper.look() == 0  # nobody noted anything: its note was lost with its wake

    async def another(_: Redis) -> str:
        return "another"

    monkeypatch.setattr(waking, "server_of", another)
    assert await reaper.look() == 1
    assert await is_due(redis, message_id)
