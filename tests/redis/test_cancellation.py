"""A task that waits for Redis ends when it is cancelled, at whatever moment that comes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from rejoin.shared import log, queue, record
from tests.support.messages import accept, batch, claim, ids, place, post

# From before the first byte is sent to past the last one that comes back.
MOMENTS = range(24)


async def forever(call: Callable[[], Awaitable[object]]) -> None:
    while True:
        await call()


async def cancelled_at(moment: int, call: Callable[[], Awaitable[object]]) -> None:
    """Cancel a task that calls Redis over and over after so many turns of the loop."""
    task = asyncio.create_task(forever(call))
    for _ in range(moment):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=2)
    if not done:
        task.cancel()
        await asyncio.wait([task])
        pytest.fail("a cancellation was swallowed")
    assert task.cancelled()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_blocking_pop_is_cancelled(redis: Redis, moment: int) -> None:
    for _ in range(2):  # on a new connection, and on one that was used
        await cancelled_at(moment, lambda: queue.wait_for_token(redis, 1.5))
    assert await queue.wait_for_token(redis, 0.01) is False


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_script_and_a_pipeline_are_cancelled_and_may_be_repeated(
    redis: Redis, moment: int
) -> None:
    message_id = await accept(redis)
    owner = await claim(redis, message_id, "a")
    sent = batch(message_id, owner, 0, ["a", "b"])
    await cancelled_at(moment, lambda: log.append(redis, sent))
    await cancelled_at(moment, lambda: record.cancel(redis, message_id))
    await log.append(redis, sent)
    assert await ids(redis, message_id) == ["1-0", "1-1"]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_after_a_cancellation_nobody_reads_anothers_reply(redis: Redis, moment: int) -> None:
    one, other = await post(redis), await accept(redis)
    await cancelled_at(moment, lambda: record.load(redis, one))
    found = await record.load(redis, other)
    assert found is not None
    assert found.message_id == other
    assert (await place(redis, one)).indexed


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_bound_ends_the_wait_and_not_the_task(redis: Redis, moment: int) -> None:
    async def ring(bound: asyncio.Timeout) -> None:
        for _ in range(moment):
            await asyncio.sleep(0)
        bound.reschedule(0)

    async def bounded() -> None:
        async with asyncio.timeout(None) as bound, asyncio.TaskGroup() as group:
            group.create_task(ring(bound))
            await forever(lambda: queue.wait_for_token(redis, 1.5))

    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await bounded()
        assert await queue.wait_for_token(redis, 0.01) is False
