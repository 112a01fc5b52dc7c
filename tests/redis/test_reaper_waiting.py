"""The reaper wakes messages that wait for nothing any more, and keeps the others alive."""

from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, queue, record, waiting
from rejoin.shared.asks import Answer, Kind
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
