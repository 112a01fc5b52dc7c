"""A cancel that was taken is kept, told to the workers, and refused once the message ended."""

from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, record
from rejoin.shared.errors import CancelAsked, MessageMissing
from rejoin.shared.events import FinishReason, Step
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


async def test_a_cancel_after_the_step_tells_nobody(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    async with any_redis.pubsub() as heard:
        await heard.subscribe(keys.CANCELS)
        await heard.get_message(timeout=5)
        for _ in range(2):
            assert await record.cancel(any_redis, message_id, after_step=True) is None
        await record.cancel(any_redis, message_id)
        assert await heard.get_message(timeout=5) is not None
        assert await heard.get_message(timeout=0.01) is None
    assert not owner.cancel_after_step


async def modes(redis: Redis, message_id: str, sequence: int) -> set[tuple[bool, bool]]:
    """What a claim and an append tell of a cancel, and so do their repeats."""
    told = set()
    for _ in range(2):
        claimed = await claim(redis, message_id, "a")
        sent = batch(message_id, claimed, sequence, [start(message_id)])
        appended = await log.append(redis, sent)
        told.add((claimed.cancel_asked, claimed.cancel_after_step))
        told.add((appended.cancel_asked, appended.cancel_after_step))
    return told


async def test_a_cancel_tells_its_mode_and_now_wins(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    assert await modes(any_redis, message_id, 0) == {(False, False)}
    await record.cancel(any_redis, message_id, after_step=True)
    assert await modes(any_redis, message_id, 1) == {(False, True)}
    assert await record.cancelled_of(any_redis, [message_id]) == []
    for sequence, after_step in ((2, False), (3, True)):
        await record.cancel(any_redis, message_id, after_step=after_step)
        assert await modes(any_redis, message_id, sequence) == {(True, False)}
        assert await record.cancelled_of(any_redis, [message_id]) == [message_id]


@pytest.mark.parametrize("after_step", [False, True])
async def test_a_cancelled_message_finishes_steps_but_ends_as_cancelled(
    any_redis: Redis, after_step: bool
) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    await record.cancel(any_redis, message_id, after_step=after_step)
    first = [start(message_id), Step(1, FinishReason.TOOL_CALLS)]
    await log.append(any_redis, batch(message_id, owner, 0, first, ending="step"))
    assert await asked(any_redis, message_id)
    for ending in ("done", "failed"):
        with pytest.raises(CancelAsked):
            await log.append(any_redis, batch(message_id, owner, 2, end(), ending=ending))
    last = batch(message_id, owner, 2, end(FinishReason.CANCELLED), ending="cancelled")
    await log.append(any_redis, last)
