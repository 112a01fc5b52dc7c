"""An accepted message is stored once, and not long after its index entry."""

import dataclasses
from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import accepting, keys, queue, record
from rejoin.shared.clock import now_ms
from rejoin.shared.errors import RequestUnreadable, Unavailable
from rejoin.shared.ids import new_message_id
from rejoin.shared.record import Record, Status
from rejoin.shared.request import StoredRequest, StoredTurn
from tests.support.messages import LIFE, accept, claim

REQUEST = StoredRequest(
    "demo/echo",
    [StoredTurn("system", "be kind"), StoredTurn("user", 'ü 😀 \u2028 "')],
    temperature=0.5,
    metadata={"a": "b"},
)


def new_record() -> Record:
    return Record(
        message_id=new_message_id(),
        owner="someone ü",
        conversation_id=new_message_id(),
        model="demo/echo",
        created_at=now_ms(),
        status=Status.QUEUED,
        attempt=0,
        worker=None,
        cancel_asked=False,
        started_at=None,
        finished_at=None,
    )


async def stored(redis: Redis, new: Record, *, indexed_at: int, request: StoredRequest) -> None:
    await accepting.store(redis, new, request, indexed_at=indexed_at, life_seconds=LIFE)


async def test_what_was_accepted_is_read_back(any_redis: Redis) -> None:
    new = new_record()
    indexed_at = await queue.index(any_redis, new.message_id, most_due=10)
    await stored(any_redis, new, indexed_at=indexed_at, request=REQUEST)
    assert await record.load(any_redis, new.message_id) == new
    assert await record.load_request(any_redis, new.message_id) == REQUEST
    for name in (keys.record(new.message_id), keys.request(new.message_id)):
        assert 0 < await any_redis.ttl(name) <= LIFE


async def test_a_repeat_changes_nothing_even_when_it_is_late(any_redis: Redis) -> None:
    new = new_record()
    indexed_at = await queue.index(any_redis, new.message_id, most_due=10)
    await stored(any_redis, new, indexed_at=indexed_at, request=REQUEST)
    await claim(any_redis, new.message_id, "a")
    other = dataclasses.replace(REQUEST, temperature=1.0)
    for at in (indexed_at, indexed_at - 10 * accepting.WITHIN_MS):
        await stored(any_redis, new, indexed_at=at, request=other)
    found = await record.load(any_redis, new.message_id)
    assert found is not None
    assert (found.attempt, found.worker) == (1, "w-a")
    assert await record.load_request(any_redis, new.message_id) == REQUEST


async def test_too_long_after_its_index_entry_nothing_is_stored(any_redis: Redis) -> None:
    new = new_record()
    indexed_at = await queue.index(any_redis, new.message_id, most_due=10)
    late = indexed_at - accepting.WITHIN_MS - 1
    with pytest.raises(Unavailable):
        await stored(any_redis, new, indexed_at=late, request=REQUEST)
    assert await record.load(any_redis, new.message_id) is None
    with pytest.raises(RequestUnreadable):
        await record.load_request(any_redis, new.message_id)


async def test_shortly_before_that_it_is_stored(any_redis: Redis) -> None:
    new = new_record()
    indexed_at = await queue.index(any_redis, new.message_id, most_due=10)
    in_time = indexed_at - accepting.WITHIN_MS + 5_000
    await stored(any_redis, new, indexed_at=in_time, request=REQUEST)
    assert await record.load(any_redis, new.message_id) == new


async def test_an_unknown_message_has_neither_record_nor_request(any_redis: Redis) -> None:
    assert await record.load(any_redis, "no-such-message") is None
    with pytest.raises(RequestUnreadable):
        await record.load_request(any_redis, "no-such-message")


async def test_a_rest_of_a_record_is_no_record(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    key = keys.record(message_id)
    await cast(Awaitable[int], any_redis.hdel(key, "created_at"))
    assert await record.load(any_redis, message_id) is None


async def test_a_request_of_another_version_is_told_from_one_that_is_away(
    any_redis: Redis,
) -> None:
    message_id = await accept(any_redis)
    for stored in ("not json", "[]", '{"model":"demo/echo"}'):
        await any_redis.set(keys.request(message_id), stored)
        with pytest.raises(RequestUnreadable):
            await record.load_request(any_redis, message_id)


async def test_a_message_accepted_before_a_restart_leaps_at_its_first_claim(redis: Redis) -> None:
    """Its first claim may have been among the writes that the restart lost."""
    message_id = await accept(redis)
    fields = {"run_id": "0" * 40, "created_at": str(now_ms() - 5_000)}
    await cast(Awaitable[int], redis.hset(keys.record(message_id), mapping=fields))
    assert (await claim(redis, message_id, "a")).attempt >= 5_000
