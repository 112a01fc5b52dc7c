"""The reaper: open messages without a job are queued again, and the index is kept clean."""

import asyncio
from collections.abc import Awaitable
from typing import cast

from redis.asyncio import Redis

from rejoin.shared import keys, log, queue, record
from rejoin.shared.fold import fold
from rejoin.shared.ids import new_message_id
from rejoin.worker.reaper import Reaper
from tests.redis.jobs import lease
from tests.support.in_process import kit_for, until_ended, worker_on
from tests.support.messages import (
    accept,
    batch,
    claim,
    end,
    enqueue,
    place,
    post,
    start,
    until,
)

LONG_AGO = 61_000  # ms


async def index_entry(redis: Redis, *, ago_ms: int = 0) -> str:
    """Index a message whose record was never written, or is gone."""
    message_id = new_message_id()
    await queue.index(redis, message_id, most_due=100_000)
    await redis.zincrby(keys.OPEN, -ago_ms, message_id)
    return message_id


async def ended(redis: Redis, message_id: str) -> None:
    """Write a message's end as a worker that dies before the aftermath."""
    held = await claim(redis, message_id, "a")
    events = [start(message_id), *end()]
    await log.append(redis, batch(message_id, held, 0, events, ending="done"))


async def indexed(redis: Redis) -> list[str]:
    return [entry.decode() for entry in await redis.zrange(keys.OPEN, 0, -1)]


async def look(redis: Redis) -> int:
    return await Reaper(kit_for(redis)).look()


async def test_a_message_accepted_and_never_queued_is_queued_and_wakes_a_worker(
    any_redis: Redis,
) -> None:
    message_id = await accept(any_redis)
    assert await look(any_redis) == 1
    assert ((await place(any_redis, message_id)).due_in_ms or 0) <= 0
    assert await cast(Awaitable[int], any_redis.llen(keys.WAKE)) == 1
    assert 0 < await any_redis.pttl(keys.job(message_id)) <= 604_800_000
    assert await look(any_redis) == 0, "it has its job by now"


async def test_a_message_whose_job_was_lost_in_mid_run_is_queued_for_the_next_worker(
    any_redis: Redis,
) -> None:
    message_id = await post(any_redis)
    assert await lease(any_redis, "lost") == [message_id]
    held = await claim(any_redis, message_id, "lost")
    await log.append(any_redis, batch(message_id, held, 0, [start(message_id), "half"]))
    await any_redis.delete(keys.QUEUE, keys.job(message_id))
    assert await look(any_redis) == 1
    assert await lease(any_redis, "next") == [message_id]


async def test_what_waits_and_what_runs_is_left_alone(any_redis: Redis) -> None:
    running = await post(any_redis)
    await lease(any_redis, "a")
    waiting = await post(any_redis)
    before = [await place(any_redis, running), await place(any_redis, waiting)]
    assert await look(any_redis) == 0
    after = [await place(any_redis, running), await place(any_redis, waiting)]
    assert [found.owner for found in after] == [found.owner for found in before]
    assert [found.indexed for found in after] == [True, True]


async def test_an_ended_message_only_loses_its_index_entry(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    await ended(any_redis, message_id)
    events = await log.read_all(any_redis, message_id)
    assert await look(any_redis) == 0
    assert await place(any_redis, message_id) == (None, None, False)
    assert await log.read_all(any_redis, message_id) == events


async def test_an_ended_message_whose_owner_died_with_the_queue_leaves_nothing(
    any_redis: Redis,
) -> None:
    message_id = await post(any_redis)
    await lease(any_redis, "a")
    await ended(any_redis, message_id)
    await any_redis.delete(keys.QUEUE)
    await look(any_redis)
    assert await place(any_redis, message_id) == (None, None, False)
    assert not await any_redis.exists(keys.job(message_id))


async def test_an_ended_message_that_its_worker_still_holds_is_left_to_it(
    any_redis: Redis,
) -> None:
    message_id = await post(any_redis)
    await lease(any_redis, "a")
    await ended(any_redis, message_id)
    await look(any_redis)
    found = await place(any_redis, message_id)
    assert (found.owner, found.indexed) == (b"a", True)


async def test_an_entry_whose_record_may_still_come_stays(any_redis: Redis) -> None:
    message_id = await index_entry(any_redis, ago_ms=LONG_AGO - 5_000)
    assert await look(any_redis) == 0
    assert await indexed(any_redis) == [message_id]


async def test_an_entry_without_a_record_goes_after_a_minute(any_redis: Redis) -> None:
    message_id = await index_entry(any_redis, ago_ms=LONG_AGO)
    assert await look(any_redis) == 0
    assert await indexed(any_redis) == []
    assert (await place(any_redis, message_id)).due_in_ms is None, "nothing was queued"


async def test_many_entries_are_looked_at_in_pages_though_some_are_dropped(redis: Redis) -> None:
    """Every third is lost, every third has no record, and the rest may be accepted yet."""
    lost, young = [], []
    for n in range(1_200):
        if n % 3 == 0:
            lost.append(await accept(redis))
        elif n % 3 == 1:
            await index_entry(redis, ago_ms=LONG_AGO)
        else:
            young.append(await index_entry(redis))
    assert await look(redis) == len(lost)
    assert set(await indexed(redis)) == {*lost, *young}
    assert {entry.decode() for entry in await redis.zrange(keys.QUEUE, 0, -1)} == set(lost)


async def test_entries_that_stay_are_each_looked_at_once(redis: Redis) -> None:
    for _ in range(1_100):
        await index_entry(redis)
    await redis.config_resetstat()
    assert await look(redis) == 0
    assert (await redis.info("commandstats"))["cmdstat_hgetall"]["calls"] == 1_100


async def test_a_cancel_before_the_reaper_came_is_kept(clean_redis_url: str, redis: Redis) -> None:
    message_id = await accept(redis)
    await record.cancel(redis, message_id)
    await look(redis)
    async with worker_on(clean_redis_url):
        frames = await until_ended(redis, message_id)
    assert [frame.name for frame in frames] == ["start", "usage", "done"]
    assert fold(frames).text == ""


async def test_one_at_a_time_has_the_turn_and_keeps_it(any_redis: Redis) -> None:
    assert await queue.take_turn(any_redis, keys.REAPER, "a", seconds=60)
    assert not await queue.take_turn(any_redis, keys.REAPER, "b", seconds=60)
    assert await queue.take_turn(any_redis, keys.REAPER, "a", seconds=90)
    assert await any_redis.get(keys.REAPER) == b"a"
    assert 60_000 < await any_redis.pttl(keys.REAPER) <= 90_000


async def test_the_turn_of_one_that_is_gone_is_anothers(any_redis: Redis) -> None:
    await queue.take_turn(any_redis, keys.REAPER, "gone", seconds=0.05)

    async def mine() -> bool:
        return await queue.take_turn(any_redis, keys.REAPER, "next", seconds=60)

    await until(mine, within=2)


async def test_a_worker_whose_turn_it_is_not_queues_nothing(
    clean_redis_url: str, redis: Redis
) -> None:
    await queue.take_turn(redis, keys.REAPER, "another", seconds=60)
    message_id = await accept(redis)
    async with worker_on(clean_redis_url, lease_seconds=0.1):
        await renewals(redis, 5)
        assert await place(redis, message_id) == (None, None, True)
        await redis.delete(keys.REAPER)  # the other one is gone
        frames = await until_ended(redis, message_id)
    assert frames[-1].name == "done"


async def renewals(redis: Redis, leases: int) -> None:
    """Wait until the worker has asked for its turn so many times over."""
    before = int(redis_calls(await redis.info("commandstats")))

    async def asked() -> bool:
        return int(redis_calls(await redis.info("commandstats"))) >= before + leases

    await until(asked)


def redis_calls(stats: dict[str, dict[str, int]]) -> int:
    """How often the script of the turn, and nothing else here, has read a string."""
    return stats.get("cmdstat_get", {}).get("calls", 0)


async def test_the_workers_reaper_brings_a_lost_message_to_its_end(
    clean_redis_url: str, redis: Redis
) -> None:
    async with worker_on(clean_redis_url, lease_seconds=0.2):
        message_id = await accept(redis)
        frames = await until_ended(redis, message_id)
    assert frames[-1].name == "done"
    assert fold(frames).text == "one two three"


async def test_two_looks_at_once_queue_a_message_once(redis: Redis) -> None:
    message_id = await accept(redis)
    assert sum(await asyncio.gather(look(redis), look(redis))) == 1
    assert await cast(Awaitable[int], redis.llen(keys.WAKE)) == 1
    assert not await enqueue(redis, message_id)
