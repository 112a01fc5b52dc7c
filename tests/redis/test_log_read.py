"""A log is read in pages from any position."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from rejoin.shared import log
from rejoin.shared.frames import Frame
from rejoin.shared.ids import EventId
from tests.support.messages import accept, batch, claim, end, start

each_example_has_its_own_message = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@each_example_has_its_own_message
@given(st.integers(0, 12), st.integers(1, 5), st.integers(0, 2**32))
async def test_pages_of_any_size_join_to_the_rest_of_the_log(
    redis: Redis, after: int, limit: int, seed: int
) -> None:
    message_id = await accept(redis)
    rng = random.Random(seed)
    frames = list[Frame]()
    for attempt in range(3):
        owner = await claim(redis, message_id, f"{attempt}")
        sent = batch(message_id, owner, 0, ["a"] * rng.randint(1, 4))
        await log.append(redis, sent)
        frames += sent.frames
    position = frames[after % len(frames)].id if after else None
    expected = [frame for frame in frames if position is None or frame.id > position]
    seen = []
    while page := await log.read(redis, message_id, position, limit):
        assert len(page) <= limit
        seen += page
        position = page[-1].id
    assert seen == expected


async def test_a_position_past_what_redis_can_hold_finds_nothing(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, owner, 0, ["a"]))
    for position in (EventId(2**64 - 1, 2**64 - 1), EventId(10**20, 0), EventId(1, 10**20)):
        assert await log.read(any_redis, message_id, position) == []
    assert len(await log.read(any_redis, message_id, EventId(0, 10**20))) == 1


async def test_a_look_tells_owner_page_and_end_at_once(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    assert await log.look(any_redis, message_id, None) == log.Page("", None, False, [], None)
    owner = await claim(any_redis, message_id, "a")
    written = batch(message_id, owner, 0, [start(message_id), "one"])
    await log.append(any_redis, written)
    seen = await log.look(any_redis, message_id, EventId(1, 0), 10)
    assert seen == log.Page("", EventId(1, 1), False, [written.frames[1].data], EventId(1, 1))
    await log.append(any_redis, batch(message_id, owner, 2, end(), ending="done"))
    seen = await log.look(any_redis, message_id, None, 1)
    assert (seen.newest, seen.ended, seen.last) == (EventId(1, 3), True, EventId(1, 0))
    unknown = await log.look(any_redis, "no-such-message", None)
    assert unknown == log.Page(None, None, False, [], None)


async def test_the_ends_of_many_logs_are_told_at_once(any_redis: Redis) -> None:
    written, empty = await accept(any_redis), await accept(any_redis)
    owner = await claim(any_redis, written, "a")
    await log.append(any_redis, batch(written, owner, 0, [start(written), "one"]))
    told = await log.newest_of(any_redis, [written, "unknown", empty])
    assert told == [(True, EventId(1, 1)), (False, None), (True, None)]
