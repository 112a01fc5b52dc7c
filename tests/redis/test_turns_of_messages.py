"""Messages of one conversation: one runs after the other, whatever becomes of each."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from rejoin.shared import deleted, ending, keys, log, queue, record, turns
from rejoin.shared.ending import Ender, end_message
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.ids import new_message_id
from rejoin.shared.record import Status
from rejoin.shared.turns import IfBusy, Placed
from rejoin.worker.reaper import Reaper
from tests.redis.jobs import lease
from tests.support.in_process import kit_for, until_ended, until_events, worker_on
from tests.support.messages import LIFE, accept, batch, claim, end, enqueue, place, start, until

LONG_AGO = 61_000  # ms


async def placed(redis: Redis, conversation_id: str, message_id: str) -> Placed:
    """Place a message as an accept does before its record."""
    return await turns.place(
        redis,
        conversation_id,
        message_id,
        owner="",
        if_busy=IfBusy.ENQUEUE,
        parent_id=None,
        life_seconds=LIFE,
        make=True,
    )


async def order(redis: Redis, conversation_id: str) -> list[str]:
    return [name.decode() for name in await redis.zrange(keys.turns(conversation_id), 0, -1)]


async def talk(redis: Redis, count: int, *, queued: bool = True) -> tuple[str, list[str]]:
    """Accept messages of one conversation; the first is queued. Its id and theirs."""
    conversation_id = new_message_id()
    ids = [await accept(redis, f"say {n}", conversation_id=conversation_id) for n in range(count)]
    if queued:
        await enqueue(redis, ids[0])
    return conversation_id, ids


async def ended(redis: Redis, message_id: str) -> None:
    """Write a message's end as a worker that dies before the aftermath."""
    held = await claim(redis, message_id, "a")
    await log.append(redis, batch(message_id, held, 0, [start(message_id), *end()], ending="done"))


async def no_job(redis: Redis, message_id: str) -> bool:
    return await redis.zscore(keys.QUEUE, message_id) is None


async def queue_of(redis: Redis) -> list[str]:
    return [name.decode() for name in await redis.zrange(keys.QUEUE, 0, -1)]


def ender(redis: Redis) -> Ender:
    return Ender(redis, "ender", LIFE)


async def test_an_end_queues_the_next_and_nobody_else(any_redis: Redis) -> None:
    conversation_id, ids = await talk(any_redis, 3)
    await end_message(ender(any_redis), ids[0])
    assert await queue_of(any_redis) == [ids[1]]
    assert await order(any_redis, conversation_id) == ids[1:]
    await end_message(ender(any_redis), ids[0])
    assert await queue_of(any_redis) == [ids[1]]


async def test_a_cancelled_one_that_waits_ends_at_once_and_the_others_stay(
    any_redis: Redis,
) -> None:
    conversation_id, ids = await talk(any_redis, 3)
    await lease(any_redis, "worker")
    held = await claim(any_redis, ids[0], "a")
    await log.append(any_redis, batch(ids[0], held, 0, [start(ids[0]), "one "]))
    await record.cancel(any_redis, ids[1])
    await end_message(ender(any_redis), ids[1])
    found = await record.load(any_redis, ids[1])
    assert found is not None
    assert found.status is Status.CANCELLED
    assert await order(any_redis, conversation_id) == [ids[0], ids[2]]
    assert await queue_of(any_redis) == [ids[0]], "the running one stays its worker's"
    assert (await place(any_redis, ids[0])).owner == b"worker"
    assert await place(any_redis, ids[1]) == (None, None, False)
    other = await record.load(any_redis, ids[2])
    assert other is not None
    assert (other.status, other.cancel_asked) == (Status.QUEUED, False)


async def look(redis: Redis) -> int:
    return await Reaper(kit_for(redis)).look()


async def test_the_reaper_leaves_those_that_wait_for_one_that_runs(any_redis: Redis) -> None:
    _, ids = await talk(any_redis, 3)
    await lease(any_redis, "worker")
    assert await look(any_redis) == 0
    assert await queue_of(any_redis) == [ids[0]]


async def test_the_reaper_lets_those_that_wait_live(any_redis: Redis) -> None:
    conversation_id, ids = await talk(any_redis, 2)
    names = [keys.turns(conversation_id), keys.conversation(conversation_id)]
    names += [keys.record(ids[1]), keys.request(ids[1])]
    for name in names:
        await any_redis.expire(name, 5)
    await look(any_redis)
    for name in names:
        assert await any_redis.ttl(name) > 5


async def test_the_reaper_queues_the_first_of_those_that_nobody_runs(any_redis: Redis) -> None:
    _, ids = await talk(any_redis, 3, queued=False)
    assert await look(any_redis) == 1
    assert await queue_of(any_redis) == [ids[0]]


async def test_a_turn_that_an_ended_one_never_passed_is_passed_by_the_reaper(
    any_redis: Redis,
) -> None:
    conversation_id, ids = await talk(any_redis, 2)
    await ended(any_redis, ids[0])
    await queue.complete(any_redis, ids[0])
    await queue.drop_index(any_redis, ids[0])
    await look(any_redis)
    assert await queue_of(any_redis) == [ids[1]]
    assert await order(any_redis, conversation_id) == [ids[1]]


async def test_one_that_was_never_accepted_holds_its_turn_for_a_minute_and_no_longer(
    any_redis: Redis,
) -> None:
    conversation_id, never = new_message_id(), new_message_id()
    await queue.index(any_redis, never, most_due=10)
    await placed(any_redis, conversation_id, never)
    waits = await accept(any_redis, conversation_id=conversation_id)
    await look(any_redis)
    assert await order(any_redis, conversation_id) == [never, waits]
    await any_redis.zincrby(keys.OPEN, -LONG_AGO, never)
    await any_redis.zrem(keys.QUEUE, never)
    await look(any_redis)
    assert await order(any_redis, conversation_id) == [waits]
    assert waits in await queue_of(any_redis)


async def test_a_place_that_redis_lost_is_given_again(any_redis: Redis) -> None:
    conversation_id, ids = await talk(any_redis, 3, queued=False)
    await any_redis.delete(keys.turns(conversation_id), keys.conversation(conversation_id))
    assert await look(any_redis) == 1
    assert await order(any_redis, conversation_id) == ids
    assert await deleted.owner_of(any_redis, conversation_id) == ""
    again = await placed(any_redis, conversation_id, "new")
    assert again.parent_id == ids[-1]


async def test_a_worker_whose_message_is_not_first_leaves_it_without_a_job(
    clean_redis_url: str, redis: Redis
) -> None:
    conversation_id, ids = await talk(redis, 2, queued=False)
    async with worker_on(clean_redis_url, lease_seconds=60):
        await enqueue(redis, ids[1])
        await until(lambda: no_job(redis, ids[1]))
        assert await log.read_all(redis, ids[1]) == []
        assert await order(redis, conversation_id) == ids
        await enqueue(redis, ids[0])
        first, second = [await until_ended(redis, message_id) for message_id in ids]
    assert first[0].id.attempt == 1
    assert second[0].name == "start", "its claim was given back: nothing was lost"
    found = [await record.load(redis, message_id) for message_id in ids]
    assert found[0] is not None
    assert found[1] is not None
    assert (found[0].finished_at or 0) <= (found[1].finished_at or 0)


async def test_a_conversations_messages_run_one_after_the_other(
    clean_redis_url: str, redis: Redis
) -> None:
    async with worker_on(clean_redis_url):
        _, ids = await talk(redis, 5)
        for message_id in ids:
            await until_ended(redis, message_id)
    records = [await record.load(redis, message_id) for message_id in ids]
    for before, after in itertools.pairwise(records):
        assert before is not None
        assert after is not None
        assert (before.finished_at or 0) <= (after.started_at or 0)


async def test_an_end_that_redis_lost_is_written_again_before_the_turn_passes(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id, ids = await talk(redis, 2, queued=False)
    names = (keys.log(ids[0]), keys.record(ids[0]))
    kept: dict[str, bytes] = {}
    lost: list[str] = []
    append_all, aftermath = log.append_all, ending.aftermath

    async def keeping(client: Redis, batches: Sequence[log.Batch]) -> object:
        if not kept and any(sent.ending and sent.message_id == ids[0] for sent in batches):
            kept.update({name: await redis.dump(name) for name in names})
        return await append_all(client, batches)

    async def away_once(client: Redis, message_id: str, **how: Any) -> bool:
        if not lost:
            for name, dumped in kept.items():
                await redis.restore(name, LIFE * 1000, dumped, replace=True)
                lost.append(name)
            raise LogUnavailable("Redis was away, and is back without the end")
        assert message_id != ids[0] or await order(redis, conversation_id) == ids
        return await aftermath(client, message_id, **how)

    monkeypatch.setattr("rejoin.worker.writer.log.append_all", keeping)
    monkeypatch.setattr("rejoin.worker.run.aftermath", away_once)
    async with worker_on(clean_redis_url):
        await enqueue(redis, ids[0])
        first, second = [await until_ended(redis, message_id) for message_id in ids]
    assert lost
    assert [frame.id.attempt for frame in first] == [1] * len(first), "the very same end"
    assert (first[-1].name, second[-1].name) == ("done", "done")


@pytest.mark.parametrize("reason", ["cancelled", "failed"])
async def test_after_one_that_was_cancelled_or_failed_the_next_starts(
    clean_redis_url: str, redis: Redis, reason: str
) -> None:
    conversation_id = new_message_id()
    model = "demo/echo?rate=1" if reason == "cancelled" else "nobody/nothing"
    first = await accept(redis, "word " * 99, model=model, conversation_id=conversation_id)
    second = await accept(redis, conversation_id=conversation_id)
    await enqueue(redis, first)
    async with worker_on(clean_redis_url):
        if reason == "cancelled":
            await until_events(redis, first, 2)
            await record.cancel(redis, first)
        await until_ended(redis, first)
        frames = await until_ended(redis, second)
    assert frames[-1].name == "done"
    found = await record.load(redis, first)
    assert found is not None
    assert found.status == reason
