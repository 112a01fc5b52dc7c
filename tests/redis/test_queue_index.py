"""The index of open messages, and when the queue is full."""

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, queue
from rejoin.shared.errors import OverLimit
from rejoin.shared.ids import new_message_id
from tests.redis.jobs import lease, queued
from tests.support.messages import accept


async def test_an_index_entry_keeps_its_first_time(any_redis: Redis) -> None:
    message_id = new_message_id()
    first = await queue.index(any_redis, message_id, most_due=1)
    await any_redis.zincrby(keys.OPEN, -5_000, message_id)
    assert await queue.index(any_redis, message_id, most_due=1) == first - 5_000
    await queue.drop_index(any_redis, message_id)
    await queue.drop_index(any_redis, message_id)
    assert await any_redis.zcard(keys.OPEN) == 0


async def test_a_full_queue_takes_no_more_but_knows_its_own(any_redis: Redis) -> None:
    known = await accept(any_redis)
    for _ in range(3):
        await queued(any_redis)
    with pytest.raises(OverLimit):
        await queue.index(any_redis, new_message_id(), most_due=3)
    assert await any_redis.zcard(keys.OPEN) == 1
    assert await queue.index(any_redis, known, most_due=3)
    assert await queue.index(any_redis, new_message_id(), most_due=4)


async def test_running_and_waiting_messages_fill_no_queue(any_redis: Redis) -> None:
    await queued(any_redis)
    await lease(any_redis, "a")
    await queued(any_redis, due_in_ms=60_000)
    assert await queue.index(any_redis, new_message_id(), most_due=1)


async def test_a_queue_for_nobody_refuses_all(any_redis: Redis) -> None:
    with pytest.raises(OverLimit):
        await queue.index(any_redis, new_message_id(), most_due=0)
