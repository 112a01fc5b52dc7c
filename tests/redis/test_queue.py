"""Jobs come due, are taken by one worker, and wake one."""

import asyncio

import pytest
from redis.asyncio import Redis

from rejoin.shared import jobs, keys, queue
from rejoin.shared.connections import open_redis
from rejoin.shared.ids import new_message_id
from tests.redis.jobs import expire_lease, lease, queued, tokens
from tests.support.messages import enqueue, place


async def test_a_job_is_json_and_names_the_message_and_its_conversation_alone(
    any_redis: Redis,
) -> None:
    message_id = await queued(any_redis)
    stored = await any_redis.get(keys.job(message_id))
    job = jobs.decode(stored)
    assert set(job) == {"t", "f", "a", "k", "et", "conversation_id"}
    assert (job["f"], job["a"], job["k"]) == ("run_message", [message_id], {})
    assert 0 < await any_redis.ttl(keys.job(message_id)) <= 600


@pytest.mark.parametrize("stored", [b"", b"\x80\x04.", b"[1]", b"null", b'"x"', b"{"])
def test_a_job_that_is_no_json_object_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        jobs.decode(stored)


def test_an_exception_in_a_result_is_encoded_as_its_text() -> None:
    assert b"boom" in jobs.encode({"r": ValueError("boom")})


async def test_a_job_is_queued_once_and_wakes_once(any_redis: Redis) -> None:
    message_id = new_message_id()
    assert await enqueue(any_redis, message_id)
    assert not await enqueue(any_redis, message_id)
    assert await any_redis.zcard(keys.QUEUE) == 1
    assert await tokens(any_redis) == 1


async def test_a_running_job_is_not_queued_again(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    assert await lease(any_redis, "a") == [message_id]
    before = await place(any_redis, message_id)
    assert not await enqueue(any_redis, message_id)
    after = await place(any_redis, message_id)
    assert after.owner == b"a"
    assert after.due_in_ms is not None
    assert before.due_in_ms is not None
    assert after.due_in_ms <= before.due_in_ms


async def test_a_lease_moves_the_score_so_that_nobody_else_sees_the_job(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    assert await lease(any_redis, "a") == [message_id]
    found = await place(any_redis, message_id)
    assert found.owner == b"a"
    assert found.due_in_ms is not None
    assert 4_000 < found.due_in_ms <= 5_000
    assert await lease(any_redis, "b") == []
    assert (await place(any_redis, message_id)).owner == b"a"


async def test_the_longest_due_go_first_and_no_more_than_asked_for(any_redis: Redis) -> None:
    order = [await queued(any_redis, due_in_ms=due) for due in (-10, -4_000, -300, -20_000)]
    assert await lease(any_redis, "a", 3) == [order[3], order[1], order[2]]
    assert await lease(any_redis, "b", 3) == [order[0]]


async def test_a_job_due_later_is_left(any_redis: Redis) -> None:
    message_id = await queued(any_redis, due_in_ms=60_000)
    assert await lease(any_redis, "a") == []
    assert (await place(any_redis, message_id)).owner is None


async def test_an_expired_lease_is_taken_over_only_where_it_may_be(any_redis: Redis) -> None:
    message_id = await queued(any_redis)
    await lease(any_redis, "a")
    await expire_lease(any_redis, message_id)
    assert await lease(any_redis, "b", take_over=False) == []
    assert (await place(any_redis, message_id)).owner == b"a"
    assert await lease(any_redis, "b") == [message_id]
    assert (await place(any_redis, message_id)).owner == b"b"


async def test_without_takeover_new_jobs_are_found_behind_expired_ones(any_redis: Redis) -> None:
    old = [await queued(any_redis) for _ in range(20)]
    await lease(any_redis, "a")
    for message_id in old:
        await expire_lease(any_redis, message_id)
    new = [await queued(any_redis) for _ in range(3)]
    assert await lease(any_redis, "b", 2, take_over=False) == new[:2]
    assert await lease(any_redis, "b", 2, take_over=False) == new[2:]


async def test_two_workers_polling_at_once_share_nothing(redis: Redis) -> None:
    message_ids = [await queued(redis) for _ in range(60)]
    taken = await asyncio.gather(*(lease(redis, f"t{n}", 7) for n in range(12)))
    flat = [message_id for one in taken for message_id in one]
    assert sorted(flat) == sorted(message_ids)


async def test_wake_tokens_are_bounded(any_redis: Redis) -> None:
    for _ in range(1010):
        await enqueue(any_redis, new_message_id())
    assert await tokens(any_redis) == 1000


async def test_tokens_go_when_nothing_due_is_left_and_stay_while_something_is(
    any_redis: Redis,
) -> None:
    for _ in range(5):
        await queued(any_redis)
    await lease(any_redis, "a", 3)
    assert await tokens(any_redis) > 0
    await lease(any_redis, "b", 3)
    assert await tokens(any_redis) == 0


async def test_tokens_go_when_exactly_all_that_was_due_is_taken(any_redis: Redis) -> None:
    for _ in range(3):
        await queued(any_redis)
    assert len(await lease(any_redis, "a", 3)) == 3
    assert await tokens(any_redis) == 0


async def test_a_token_is_waited_for_with_a_bound(redis: Redis) -> None:
    assert not await queue.wait_for_token(redis, 0.05)
    waiting = asyncio.create_task(queue.wait_for_token(redis, 1.5))
    await queued(redis)
    assert await waiting
    assert await tokens(redis) == 0


async def test_one_token_wakes_one_waiter(clean_redis_url: str, redis: Redis) -> None:
    other = open_redis(clean_redis_url)
    waiting = [asyncio.create_task(queue.wait_for_token(client, 0.5)) for client in (redis, other)]
    await queued(redis)
    assert sorted(await asyncio.gather(*waiting)) == [False, True]
    await other.aclose()
