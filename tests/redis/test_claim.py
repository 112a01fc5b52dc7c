"""A claim makes one owner: attempts only grow, a repeat is the same claim, an end is final."""

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, record
from rejoin.shared.clock import now_ms
from rejoin.shared.errors import LogEnded, MessageMissing
from rejoin.shared.record import Status
from tests.support.messages import accept, batch, claim, end, ids, start


async def put(redis: Redis, message_id: str, **fields: str) -> None:
    """Write fields of a record by hand."""
    mapping = cast(dict[str | bytes, bytes | float | int | str], fields)
    await cast(Awaitable[int], redis.hset(keys.record(message_id), mapping=mapping))


async def test_the_first_claim_is_attempt_one(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert (found.status, found.attempt, found.worker, found.started_at) == (
        Status.QUEUED,
        0,
        None,
        None,
    )
    won = await claim(any_redis, message_id, "a")
    assert won[:4] == (1, "a", False, 0)
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert (found.status, found.attempt, found.worker) == (Status.STREAMING, 1, "w-a")
    assert found.started_at is not None
    assert abs(found.started_at - now_ms()) < 60_000


async def test_the_same_token_is_the_same_claim(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    won = [await claim(any_redis, message_id, "a") for _ in range(3)]
    assert won == [won[0]] * 3
    assert (await claim(any_redis, message_id, "b")).attempt == 2


async def test_a_repeat_after_a_write_is_the_same_claim_still(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    won = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, won, 0, [start(message_id)]))
    again = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, again, 1, ["one"]))
    assert await ids(any_redis, message_id) == ["1-0", "1-1"]


async def test_attempts_grow_beyond_what_the_caller_has_seen(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    attempts = [
        (await claim(any_redis, message_id, f"t{n}", seen=seen)).attempt
        for n, seen in enumerate((0, 0, 7, 3, 0))
    ]
    assert attempts == [1, 2, 8, 9, 10]


async def test_claims_at_one_instant_get_different_attempts(redis: Redis) -> None:
    message_id = await accept(redis)
    won = await asyncio.gather(*(claim(redis, message_id, f"t{n}") for n in range(20)))
    assert sorted(one.attempt for one in won) == list(range(1, 21))


async def test_an_ended_message_is_claimed_by_nobody(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    won = await claim(any_redis, message_id, "a")
    last = batch(message_id, won, 0, [start(message_id), *end()], ending="done")
    await log.append(any_redis, last)
    for token in ("a", "b"):
        with pytest.raises(LogEnded):
            await claim(any_redis, message_id, token)
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert (found.attempt, found.worker, found.status) == (1, "w-a", Status.DONE)


async def test_a_message_without_a_record_is_not_made_by_a_claim(any_redis: Redis) -> None:
    with pytest.raises(MessageMissing):
        await claim(any_redis, "no-such-message", "a")
    assert await any_redis.exists(keys.record("no-such-message")) == 0


async def test_a_claim_tells_of_a_cancel(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    await record.cancel(any_redis, message_id)
    assert (await claim(any_redis, message_id, "a")).cancel_asked
    assert (await claim(any_redis, message_id, "a")).cancel_asked


async def test_runs_lost_with_their_worker_are_counted(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    lost = [(await claim(any_redis, message_id, f"t{n}")).lost_runs for n in range(4)]
    assert lost == [0, 1, 2, 3]
    assert (await claim(any_redis, message_id, "t3")).lost_runs == 3  # a repeat counts once


async def test_a_run_that_was_handed_over_is_not_lost(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    for token in ("a", "b", "c"):
        assert (await claim(any_redis, message_id, token)).lost_runs == 0
        assert await record.hand_over(any_redis, message_id, token)
        assert await record.hand_over(any_redis, message_id, token)
    await claim(any_redis, message_id, "d")
    assert (await claim(any_redis, message_id, "e")).lost_runs == 1


async def test_only_the_owner_hands_over(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    await claim(any_redis, message_id, "a")
    await claim(any_redis, message_id, "b")
    assert not await record.hand_over(any_redis, message_id, "a")
    assert (await claim(any_redis, message_id, "c")).lost_runs == 2
    assert not await record.hand_over(any_redis, "no-such-message", "a")


async def test_under_another_run_id_attempts_leap_past_every_lost_claim(redis: Redis) -> None:
    created = now_ms() - 5_000
    message_id = await accept(redis)
    await put(redis, message_id, created_at=str(created))
    await claim(redis, message_id, "a")
    await put(redis, message_id, run_id="0" * 40)  # as if the record were an older server's
    leapt = await claim(redis, message_id, "b")
    assert 5_000 <= leapt.attempt <= 60_000
    assert (await claim(redis, message_id, "c")).attempt == leapt.attempt + 1


async def test_a_repeat_does_not_leap(redis: Redis) -> None:
    message_id = await accept(redis)
    await put(redis, message_id, created_at=str(now_ms() - 5_000))
    await claim(redis, message_id, "a")
    await put(redis, message_id, run_id="0" * 40)
    assert (await claim(redis, message_id, "a")).attempt == 1


async def test_a_leap_never_goes_back(redis: Redis) -> None:
    message_id = await accept(redis)
    await claim(redis, message_id, "a", seen=10**9)
    await put(redis, message_id, run_id="0" * 40)
    assert (await claim(redis, message_id, "b")).attempt == 10**9 + 2


async def test_the_record_keeps_redis_own_run_id(redis: Redis) -> None:
    message_id = await accept(redis)
    await claim(redis, message_id, "a")
    kept = await cast(Awaitable[bytes], redis.hget(keys.record(message_id), "run_id"))
    assert kept.decode() == (await redis.info("server"))["run_id"]


async def test_the_first_start_is_kept(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    await claim(any_redis, message_id, "a")
    await put(any_redis, message_id, started_at="12345")
    await claim(any_redis, message_id, "b")
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert found.started_at == 12345


async def test_a_claim_renews_the_life_of_every_key(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    won = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, won, 0, [start(message_id)]))
    names = [keys.record(message_id), keys.log(message_id), keys.request(message_id)]
    for name in names:
        await any_redis.expire(name, 5)
    await claim(any_redis, message_id, "b")
    assert all([500 < await any_redis.ttl(name) <= 600 for name in names])


async def test_cancel_flags_of_many_messages_are_read_at_once(any_redis: Redis) -> None:
    message_ids = [await accept(any_redis) for _ in range(4)]
    for message_id in message_ids[1::2]:
        await record.cancel(any_redis, message_id)
    asked = await record.cancelled_of(any_redis, [*message_ids, "no-such-message"])
    assert asked == message_ids[1::2]
    assert await record.cancelled_of(any_redis, []) == []


async def test_runs_lost_count_anew_after_a_finished_step(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    await claim(any_redis, message_id, "a")
    owner = await claim(any_redis, message_id, "b")
    assert owner.lost_runs == 1
    going_on = batch(message_id, owner, 0, [start(message_id)])
    await log.append(any_redis, going_on)
    owner = await claim(any_redis, message_id, "c")
    assert owner.lost_runs == 2
    step = batch(message_id, owner, 0, [start(message_id)], ending="step")
    for _ in range(2):
        await log.append(any_redis, step)
    assert (await claim(any_redis, message_id, "d")).lost_runs == 1
