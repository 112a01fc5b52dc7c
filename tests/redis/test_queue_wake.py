"""A job that is put off comes back when it is woken, whoever holds it at that moment."""

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, queue
from tests.redis.jobs import expire_lease, lease, queued, tokens
from tests.support.messages import place

LATER = 3_600_000  # ms


async def put_off(redis: Redis) -> str:
    message_id = await queued(redis)
    await lease(redis, "a")
    await queue.release(redis, message_id, "a", delay_ms=LATER)
    return message_id


async def test_a_job_put_off_is_due_when_it_is_woken(any_redis: Redis) -> None:
    message_id = await put_off(any_redis)
    assert await lease(any_redis, "b") == []
    for _ in range(2):
        assert await queue.wake(any_redis, message_id)
        assert await tokens(any_redis) > 0
    assert await lease(any_redis, "b") == [message_id]


async def test_a_job_that_is_due_keeps_its_place(any_redis: Redis) -> None:
    message_id = await queued(any_redis, due_in_ms=-60_000)
    await queue.wake(any_redis, message_id)
    due_in_ms = (await place(any_redis, message_id)).due_in_ms
    assert due_in_ms is not None
    assert due_in_ms <= -60_000


async def test_a_wake_makes_no_job(any_redis: Redis) -> None:
    assert not await queue.wake(any_redis, "no-such-message")
    assert await any_redis.keys("*") == []


async def test_a_running_job_that_was_woken_is_due_when_it_is_given_back(
    any_redis: Redis,
) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    for _ in range(2):
        assert not await queue.wake(any_redis, message_id)
    assert await lease(any_redis, "b") == []
    assert await queue.renew(any_redis, {message_id: "a"}, lease_seconds=5) == []
    assert await tokens(any_redis) == 0
    assert await queue.release(any_redis, message_id, "a", delay_ms=LATER)
    assert await tokens(any_redis) == 1
    assert await lease(any_redis, "b") == [message_id]


async def test_a_mark_counts_once(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await queue.wake(any_redis, message_id)
    await queue.release(any_redis, message_id, "a", delay_ms=LATER)
    await lease(any_redis, "b")
    await queue.release(any_redis, message_id, "b", delay_ms=LATER)
    assert await lease(any_redis, "c") == []


async def test_a_new_lease_clears_the_mark_of_the_one_before(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await queue.wake(any_redis, message_id)
    await expire_lease(any_redis, message_id)
    await lease(any_redis, "b")
    await queue.release(any_redis, message_id, "b", delay_ms=LATER)
    assert await lease(any_redis, "c") == []


async def test_a_release_by_somebody_else_leaves_the_mark(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await queue.wake(any_redis, message_id)
    assert not await queue.release(any_redis, message_id, "b", delay_ms=LATER)
    await queue.release(any_redis, message_id, "a", delay_ms=LATER)
    assert await lease(any_redis, "b") == [message_id]


async def test_a_job_whose_lease_is_over_is_not_put_off(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await expire_lease(any_redis, message_id)
    await queue.release(any_redis, message_id, "a", delay_ms=LATER)
    assert await lease(any_redis, "b") == [message_id]


async def test_a_lost_reply_to_a_release_changes_nothing_later(any_redis: Redis) -> None:
    message_id = await put_off(any_redis)
    await queue.wake(any_redis, message_id)
    assert not await queue.release(any_redis, message_id, "a", delay_ms=LATER)
    assert await lease(any_redis, "b") == [message_id]


@pytest.mark.parametrize("past", [True, False])
async def test_a_job_may_be_put_off_until_a_time_of_redis(any_redis: Redis, past: bool) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    seconds, _ = await any_redis.time()
    due_ms = (seconds + (-3600 if past else 3600)) * 1000
    await queue.release(any_redis, message_id, "a", due_ms=due_ms)
    if past:
        assert await lease(any_redis, "b") == [message_id]
    else:
        assert await any_redis.zscore(keys.QUEUE, message_id) == due_ms


async def test_a_completed_job_leaves_no_mark(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await queue.wake(any_redis, message_id)
    await queue.complete(any_redis, message_id, "a")
    assert await any_redis.exists(keys.QUEUE, keys.OWNERS) == 0
