"""What the log refuses, and that it keeps nothing of it."""

from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, record
from rejoin.shared.errors import (
    CancelAsked,
    Fenced,
    LogEnded,
    LogRefused,
    LogWentBack,
    MessageMissing,
)
from rejoin.shared.events import FinishReason, Text
from rejoin.shared.frames import encode, is_end
from rejoin.shared.ids import EventId
from tests.support.messages import accept, batch, claim, end, ids, start, texts


async def test_an_earlier_batch_again_is_refused_and_changes_nothing(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    stale = batch(message_id, owner, 0, [start(message_id)])
    await log.append(any_redis, stale)
    await log.append(any_redis, batch(message_id, owner, 1, ["one"]))
    with pytest.raises(LogWentBack):
        await log.append(any_redis, stale)
    assert await ids(any_redis, message_id) == ["1-0", "1-1"]


async def test_a_hole_is_refused(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    with pytest.raises(LogWentBack):
        await log.append(any_redis, batch(message_id, owner, 1, ["one"]))
    await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)]))
    with pytest.raises(LogWentBack):
        await log.append(any_redis, batch(message_id, owner, 2, ["two"]))
    assert await ids(any_redis, message_id) == ["1-0"]


async def test_an_earlier_attempt_is_fenced_from_the_claim_on(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    old = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, old, 0, [start(message_id), "one"]))
    new = await claim(any_redis, message_id, "b")
    with pytest.raises(Fenced):
        await log.append(any_redis, batch(message_id, old, 2, ["two"]))
    await log.append(any_redis, batch(message_id, new, 0, ["other"]))
    with pytest.raises(Fenced):
        await log.append(any_redis, batch(message_id, old, 2, end(), ending="done"))
    assert await ids(any_redis, message_id) == ["1-0", "1-1", "2-0"]


async def test_another_claim_of_the_same_attempt_is_fenced(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    stranger = owner._replace(token="b")
    with pytest.raises(Fenced):
        await log.append(any_redis, batch(message_id, stranger, 0, [start(message_id)]))
    await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)]))
    with pytest.raises(Fenced):
        await log.append(any_redis, batch(message_id, stranger, 0, [start(message_id)]))
    with pytest.raises(Fenced):
        await log.append(any_redis, batch(message_id, stranger, 1, ["b"]))
    assert await ids(any_redis, message_id) == ["1-0"]


@pytest.mark.parametrize("ending", ["done", "failed", "cancelled"])
async def test_nothing_follows_an_end(any_redis: Redis, ending: str) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    last = batch(message_id, owner, 0, [start(message_id), *end()], ending=ending)
    await log.append(any_redis, last)
    with pytest.raises(LogEnded):
        await log.append(any_redis, batch(message_id, owner, 3, ["more"]))
    with pytest.raises(LogEnded):
        await log.append(any_redis, batch(message_id, owner, 3, end(), ending="cancelled"))
    assert await texts(any_redis, message_id) == [frame.data for frame in last.frames]
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert (found.status, found.ended) == (ending, True)
    assert found.finished_at is not None


async def test_a_missing_record_is_final(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)]))
    await any_redis.delete(keys.record(message_id))
    with pytest.raises(MessageMissing):
        await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)]))
    with pytest.raises(MessageMissing):
        await log.append(any_redis, batch(message_id, owner, 1, ["one"]))
    assert await any_redis.exists(keys.record(message_id)) == 0


async def test_a_lost_log_is_noticed_and_not_begun_in_the_middle(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, owner, 0, [start(message_id), "one"]))
    await any_redis.delete(keys.log(message_id))
    with pytest.raises(LogWentBack):
        await log.append(any_redis, batch(message_id, owner, 2, ["two"]))
    assert await ids(any_redis, message_id) == []


async def test_a_lost_tail_of_the_log_is_noticed(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, owner, 0, [start(message_id), "one", "two"]))
    await any_redis.xdel(keys.log(message_id), "1-2")
    with pytest.raises(LogWentBack):
        await log.append(any_redis, batch(message_id, owner, 3, ["three"]))
    assert await ids(any_redis, message_id) == ["1-0", "1-1"]


async def test_a_lost_claim_is_noticed(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    await cast(Awaitable[int], any_redis.hdel(keys.record(message_id), "attempt", "token"))
    with pytest.raises(LogWentBack):
        await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)]))
    assert await ids(any_redis, message_id) == []


async def test_a_lost_token_alone_fences_its_owner(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    await cast(Awaitable[int], any_redis.hdel(keys.record(message_id), "token"))
    with pytest.raises(Fenced):
        await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)]))


async def test_a_record_that_went_back_to_an_older_attempt_is_noticed(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    old = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, old, 0, [start(message_id)]))
    kept = await any_redis.dump(keys.record(message_id))
    new = await claim(any_redis, message_id, "b")
    await log.append(any_redis, batch(message_id, new, 0, ["one"]))
    await any_redis.restore(keys.record(message_id), 0, kept, replace=True)
    with pytest.raises(LogWentBack):
        await log.append(any_redis, batch(message_id, new, 1, ["two"]))
    with pytest.raises(LogWentBack):  # nor may the older attempt go on behind the newer one
        await log.append(any_redis, batch(message_id, old, 1, ["two"]))
    assert await ids(any_redis, message_id) == ["1-0", "2-0"]


async def test_a_cancel_is_told_by_every_append_and_refuses_another_end(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    before = await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)]))
    await record.cancel(any_redis, message_id)
    after = await log.append(any_redis, batch(message_id, owner, 1, ["one"]))
    assert (before.cancel_asked, after.cancel_asked) == (False, True)
    for ending in ("done", "failed"):
        with pytest.raises(CancelAsked):
            await log.append(any_redis, batch(message_id, owner, 2, end(), ending=ending))
    assert await ids(any_redis, message_id) == ["1-0", "1-1"]
    last = batch(message_id, owner, 2, end(FinishReason.CANCELLED), ending="cancelled")
    await log.append(any_redis, last)
    assert await ids(any_redis, message_id) == ["1-0", "1-1", "1-2", "1-3"]


async def test_nothing_is_published_of_a_refused_batch(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    await claim(any_redis, message_id, "b")
    async with any_redis.pubsub() as heard:
        await heard.subscribe(keys.live(message_id))
        await heard.get_message(timeout=5)
        with pytest.raises(Fenced):
            await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)]))
        assert await heard.get_message(timeout=0.05) is None


def test_ends_are_told_by_the_frame_alone() -> None:
    assert not is_end(encode(EventId(1, 0), Text("event: done")))


def test_every_refusal_is_one_a_writer_stops_at() -> None:
    assert {Fenced, LogEnded, LogWentBack, MessageMissing, CancelAsked} == set(
        LogRefused.__subclasses__()
    )


async def test_a_loss_between_a_look_at_the_log_and_a_new_attempts_first_events_is_noticed(
    any_redis: Redis,
) -> None:
    message_id = await accept(any_redis)
    old = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, old, 0, [start(message_id), "one"]))
    new = await claim(any_redis, message_id, "b")
    first = batch(message_id, new, 0, ["other"])._replace(after=log.found_last(EventId(1, 1)))
    await any_redis.xdel(keys.log(message_id), "1-1")
    with pytest.raises(LogWentBack):
        await log.append(any_redis, first)
    await any_redis.delete(keys.log(message_id))
    with pytest.raises(LogWentBack):
        await log.append(any_redis, first)
    await log.append(any_redis, first._replace(after=log.found_last(None)))
    assert await ids(any_redis, message_id) == ["2-0"]
