"""Only its owner keeps a job, gives it back, or takes it off."""

from redis.asyncio import Redis

from rejoin.shared import keys, queue
from tests.redis.jobs import LEASE, expire_lease, lease, queued, tokens
from tests.support.messages import place, post


async def test_a_renewal_moves_the_scores_of_all_that_are_the_callers(any_redis: Redis) -> None:
    message_ids = [await queued(any_redis) for _ in range(3)]
    await lease(any_redis, "a", 2)
    await lease(any_redis, "b", 1)
    held = dict.fromkeys(message_ids, "a")
    assert await queue.renew(any_redis, held, lease_seconds=50) == [message_ids[2]]
    due = [(await place(any_redis, message_id)).due_in_ms or 0 for message_id in message_ids]
    assert all(49_000 < at <= 50_000 for at in due[:2])
    assert due[2] <= 5_000


async def test_an_expired_lease_that_nobody_took_is_renewed(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await expire_lease(any_redis, message_id)
    assert await queue.renew(any_redis, {message_id: "a"}, lease_seconds=LEASE) == []
    assert await lease(any_redis, "b") == []


async def test_an_old_lease_does_not_revive_over_a_newer_owner(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await expire_lease(any_redis, message_id)
    await lease(any_redis, "b")
    assert await queue.renew(any_redis, {message_id: "a"}, lease_seconds=500) == [message_id]
    found = await place(any_redis, message_id)
    assert found.owner == b"b"
    assert (found.due_in_ms or 0) <= 5_000


async def test_a_renewal_brings_no_completed_job_back(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await queue.complete(any_redis, message_id, "a")
    assert await queue.renew(any_redis, {message_id: "a"}, lease_seconds=5) == [message_id]
    assert await any_redis.zcard(keys.QUEUE) == 0


async def test_a_released_job_is_due_at_once_and_wakes_somebody(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    assert await tokens(any_redis) == 0
    assert await queue.release(any_redis, message_id, "a")
    assert await tokens(any_redis) == 1
    assert await lease(any_redis, "b", take_over=False) == [message_id]


async def test_a_job_released_for_later_wakes_nobody_and_is_not_due(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    assert await queue.release(any_redis, message_id, "a", delay_ms=60_000)
    found = await place(any_redis, message_id)
    assert found.owner is None
    assert 59_000 < (found.due_in_ms or 0) <= 60_000
    assert await tokens(any_redis) == 0
    assert await lease(any_redis, "b") == []


async def test_a_stranger_gives_no_job_back(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    before = await place(any_redis, message_id)
    for token in ("b", ""):
        assert not await queue.release(any_redis, message_id, token)
    after = await place(any_redis, message_id)
    assert after.owner == before.owner == b"a"
    assert (after.due_in_ms or 0) > 4_000


async def test_a_release_again_takes_the_job_from_nobody(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await queue.release(any_redis, message_id, "a")
    await lease(any_redis, "b")
    assert not await queue.release(any_redis, message_id, "a")
    found = await place(any_redis, message_id)
    assert found.owner == b"b"
    assert (found.due_in_ms or 0) > 4_000


async def test_a_release_brings_no_completed_job_back(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await any_redis.zrem(keys.QUEUE, message_id)
    await queue.release(any_redis, message_id, "a")
    assert await any_redis.zcard(keys.QUEUE) == 0


async def test_a_completed_job_leaves_only_the_mark_to_save_its_message(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await any_redis.set(keys.job_tries(message_id), 3)
    assert await queue.complete(any_redis, message_id, "a")
    assert await any_redis.keys("*") == [keys.UNSAVED.encode()]


async def test_completing_again_after_a_lost_reply_says_that_it_is_done(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    assert [await queue.complete(any_redis, message_id, "a") for _ in range(3)] == [True] * 3
    assert await queue.complete(any_redis, message_id)


async def test_a_stranger_completes_no_job(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    for token in ("b", ""):
        assert not await queue.complete(any_redis, message_id, token)
    await expire_lease(any_redis, message_id)
    await lease(any_redis, "b")
    assert not await queue.complete(any_redis, message_id, "a")
    assert (await place(any_redis, message_id)).owner == b"b"
    assert await any_redis.exists(keys.job(message_id))


async def test_an_old_owner_does_not_complete_a_job_that_waits_again(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await queue.release(any_redis, message_id, "a")
    assert not await queue.complete(any_redis, message_id, "a")
    assert await lease(any_redis, "b") == [message_id]


async def test_without_a_token_only_a_job_that_nobody_runs_is_completed(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    assert await queue.complete(any_redis, message_id)
    assert await any_redis.zcard(keys.QUEUE) == 0


async def test_a_job_whose_accept_is_under_way_is_due_again_in_a_second(any_redis: Redis) -> None:
    message_id = await post(any_redis)
    await lease(any_redis, "a")
    await queue.put_off(any_redis, message_id, "a")
    found = await place(any_redis, message_id)
    assert (found.owner, found.indexed) == (None, True)
    assert 0 < (found.due_in_ms or 0) <= 1_000


async def test_a_job_without_a_record_for_too_long_goes_for_good(any_redis: Redis) -> None:
    message_id = await post(any_redis)
    await any_redis.zincrby(keys.OPEN, -61_000, message_id)
    await lease(any_redis, "a")
    await queue.put_off(any_redis, message_id, "a")
    assert await place(any_redis, message_id) == (None, None, False)


async def test_a_job_without_an_index_entry_goes_for_good(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await queue.put_off(any_redis, message_id, "a")
    assert await place(any_redis, message_id) == (None, None, False)


async def test_a_stranger_puts_off_nothing(any_redis: Redis) -> None:
    message_id = await post(any_redis)
    await lease(any_redis, "a")
    await any_redis.zincrby(keys.OPEN, -61_000, message_id)
    await queue.put_off(any_redis, message_id, "b")
    found = await place(any_redis, message_id)
    assert (found.owner, found.indexed) == (b"a", True)
