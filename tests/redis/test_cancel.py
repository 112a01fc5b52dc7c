"""A cancel that was taken is kept, told to the workers, and refused once the message ended."""

from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, record
from rejoin.shared.errors import CancelAsked, MessageMissing
from rejoin.shared.record import Status
from tests.support.messages import accept, batch, claim, end, start


async def asked(redis: Redis, message_id: str) -> bool:
    found = await record.load(redis, message_id)
    assert found is not None
    return found.cancel_asked


async def test_a_cancel_is_kept(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    assert not await asked(any_redis, message_id)
    assert await record.cancel(any_redis, message_id) is None
    assert await asked(any_redis, message_id)
    await claim(any_redis, message_id, "a")
    assert await asked(any_redis, message_id)


async def test_each_cancel_tells_the_workers_again(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    async with any_redis.pubsub() as heard:
        await heard.subscribe(keys.CANCELS)
        await heard.get_message(timeout=5)
        for _ in range(2):
            assert await record.cancel(any_redis, message_id) is None
            told = await heard.get_message(timeout=5)
            assert told is not None
            assert told["data"] == message_id.encode()


@pytest.mark.parametrize("ending", ["done", "failed", "cancelled"])
async def test_an_ended_message_tells_how_it_ended(any_redis: Redis, ending: str) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    last = batch(message_id, owner, 0, [start(message_id), *end()], ending=ending)
    await log.append(any_redis, last)
    assert await record.cancel(any_redis, message_id) is Status(ending)
    assert not await asked(any_redis, message_id)


async def test_a_missing_message_is_not_made_by_a_cancel(any_redis: Redis) -> None:
    with pytest.raises(MessageMissing):
        await record.cancel(any_redis, "no-such-message")
    assert await any_redis.exists(keys.record("no-such-message")) == 0


async def test_after_a_cancel_no_later_claim_ends_otherwise(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    old = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, old, 0, [start(message_id)]))
    await record.cancel(any_redis, message_id)
    new = await claim(any_redis, message_id, "b")
    with pytest.raises(CancelAsked):
        await log.append(any_redis, batch(message_id, new, 0, end(), ending="done"))
    last = batch(message_id, new, 0, end(), ending="cancelled")
    await log.append(any_redis, last)
    assert await record.cancel(any_redis, message_id) is Status.CANCELLED


async def test_a_cancel_leaves_the_keys_lives_alone(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    await cast(Awaitable[bool], any_redis.expire(keys.record(message_id), 50))
    await record.cancel(any_redis, message_id)
    assert 0 < await any_redis.ttl(keys.record(message_id)) <= 50
