"""A message that waits in line for a provider's key: what ends its waiting, and what does not."""

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, queue, record, waiting
from rejoin.shared.ending import Ender, end_message
from rejoin.shared.errors import Fenced, LogEnded, MessageMissing
from rejoin.shared.record import Status
from rejoin.shared.waiting import Parked
from tests.support.messages import LIFE, accept, batch, claim, end, start
from tests.support.quotas import admit, fill, pass_time, scope_of
from tests.support.waits import ask, wait_for

LINE = scope_of(requests=1).line


async def in_line(redis: Redis) -> str:
    message_id = await accept(redis)
    await claim(redis, message_id, "a")
    parked = await waiting.park_in_line(redis, message_id, token="a", line=LINE)
    assert parked is Parked.PARKED
    return message_id


async def test_it_is_waiting_and_no_run_of_it_was_lost(any_redis: Redis) -> None:
    message_id = await in_line(any_redis)
    for _ in range(2):  # the reply was lost
        await waiting.park_in_line(any_redis, message_id, token="a", line=LINE)
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert (found.status, found.line) == (Status.WAITING, LINE)
    claimed = await claim(any_redis, message_id, "b")
    assert claimed.lost_runs == 0
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert found.status is Status.STREAMING


async def test_it_does_not_wait_in_vain_until_it_is_cancelled(any_redis: Redis) -> None:
    message_id = await in_line(any_redis)
    assert await waiting.ready(any_redis, [message_id]) == []
    await record.cancel(any_redis, message_id)
    assert await waiting.ready(any_redis, [message_id]) == [message_id]


async def test_one_that_waited_in_line_may_wait_for_a_person_later(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x")
    await waiting.park_in_line(any_redis, message_id, token="a", line=LINE)
    await claim(any_redis, message_id, "b")
    await ask(any_redis, message_id, "b", "x", round_=2)
    await waiting.park(any_redis, message_id, token="b", call_ids=["x"])
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert found.line == ""


@pytest.mark.parametrize("after_step", [False, True])
async def test_a_cancel_that_came_first_lets_nothing_wait(
    any_redis: Redis, after_step: bool
) -> None:
    message_id = await accept(any_redis)
    await claim(any_redis, message_id, "a")
    await record.cancel(any_redis, message_id, after_step=after_step)
    for _ in range(2):
        parked = await waiting.park_in_line(any_redis, message_id, token="a", line=LINE)
        assert parked is Parked.CANCEL
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert found.status is Status.STREAMING


async def test_a_parking_whose_reply_was_lost_gives_way_to_a_cancel(any_redis: Redis) -> None:
    message_id = await in_line(any_redis)
    await record.cancel(any_redis, message_id)
    parked = await waiting.park_in_line(any_redis, message_id, token="a", line=LINE)
    assert parked is Parked.CANCEL
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert found.status is Status.STREAMING


async def test_only_its_owner_lets_it_wait(any_redis: Redis) -> None:
    message_id = await in_line(any_redis)
    await claim(any_redis, message_id, "b")
    with pytest.raises(Fenced):
        await waiting.park_in_line(any_redis, message_id, token="a", line=LINE)
    with pytest.raises(MessageMissing):
        await waiting.park_in_line(any_redis, "no-such-message", token="a", line=LINE)
    owner = await claim(any_redis, message_id, "c")
    last = batch(message_id, owner, 0, [start(message_id), *end()], ending="done")
    await log.append(any_redis, last)
    with pytest.raises(LogEnded):
        await waiting.park_in_line(any_redis, message_id, token="c", line=LINE)
    assert await any_redis.exists(keys.record("no-such-message")) == 0


async def test_an_end_by_whomever_gives_its_place_up(any_redis: Redis) -> None:
    scope = scope_of(requests=1)
    await fill(any_redis, scope, 1)
    message_id = await in_line(any_redis)
    await admit(any_redis, scope, message_id)
    await admit(any_redis, scope, "next")
    await record.cancel(any_redis, message_id)
    await queue.index(any_redis, message_id, most_due=9)
    await end_message(Ender(any_redis, "api", LIFE), message_id)
    await pass_time(any_redis, scope, 61)
    assert (await admit(any_redis, scope, "next")).admitted
