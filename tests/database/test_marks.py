"""The marks of what is to be saved: leased, taken off, put off, and never lost to a newer end."""

from redis.asyncio import Redis

from rejoin.shared import keys, queue, unsaved
from tests.support.messages import accept, enqueue, until

LEASE = 30.0


async def due(redis: Redis) -> None:
    """Let every mark and lease be due by now."""
    for message_id, score in await redis.zrange(keys.UNSAVED, 0, -1, withscores=True):
        await redis.zadd(keys.UNSAVED, {message_id: score - 60_000})


async def take(redis: Redis, most: int = 10, *, seconds: float = LEASE) -> list[unsaved.Lease]:
    return await unsaved.take(redis, lease_seconds=seconds, most=most)


async def test_an_accepted_message_is_due_soon(redis: Redis) -> None:
    message_id = await accept(redis)
    taken: list[unsaved.Lease] = []

    async def is_due() -> bool:
        taken.extend(await take(redis))
        return bool(taken)

    await until(is_due, within=2)
    assert [lease.message_id for lease in taken] == [message_id]


async def test_what_one_has_leased_another_does_not_get(redis: Redis) -> None:
    ids = {await accept(redis) for _ in range(5)}
    await due(redis)
    first, second = await take(redis, 3), await take(redis, 3)
    assert {lease.message_id for lease in first + second} == ids
    assert (len(first), len(second)) == (3, 2)
    assert await take(redis) == []


async def test_what_was_saved_is_not_due_again(redis: Redis) -> None:
    await accept(redis)
    await due(redis)
    await unsaved.saved(redis, await take(redis))
    assert await redis.zcard(keys.UNSAVED) == 0


async def test_what_ended_lives_its_time_from_when_it_was_saved(redis: Redis) -> None:
    running, ended = await accept(redis), await accept(redis)
    await due(redis)
    first, second = await take(redis)
    await unsaved.saved_ended(redis, [first], [], life_seconds=50)
    await redis.script_flush()
    await unsaved.saved_ended(redis, [second], [ended], life_seconds=50)
    assert await redis.zcard(keys.UNSAVED) == 0
    assert 0 < await redis.ttl(keys.record(ended)) <= 50 < await redis.ttl(keys.record(running))


async def test_a_lease_that_ended_is_anothers_and_its_holder_takes_nothing_off(
    redis: Redis,
) -> None:
    await accept(redis)
    await due(redis)
    old = await take(redis)
    await due(redis)
    (new,) = await take(redis, seconds=LEASE + 1)  # as if later: a lease is named by its end
    await unsaved.saved(redis, old)
    assert await redis.zcard(keys.UNSAVED) == 1
    await unsaved.saved(redis, [new])
    assert await redis.zcard(keys.UNSAVED) == 0


async def test_an_end_in_mid_save_is_saved_too(redis: Redis) -> None:
    message_id = await accept(redis)
    await enqueue(redis, message_id)
    await due(redis)
    beginning = await take(redis)
    assert await queue.complete(redis, message_id), "as the aftermath of its end does"
    await unsaved.saved(redis, beginning)
    assert [lease.message_id for lease in await take(redis)] == [message_id]


async def test_what_is_put_off_is_due_again_but_not_a_newer_end(redis: Redis) -> None:
    later, ended = await accept(redis), await accept(redis)
    await due(redis)
    leases = await take(redis)
    await queue.complete(redis, ended)
    await unsaved.put_off(redis, leases, seconds=20)
    assert [lease.message_id for lease in await take(redis)] == [ended]
    await due(redis)
    assert later in [lease.message_id for lease in await take(redis)]


async def test_a_repeated_accept_keeps_the_first_mark(redis: Redis) -> None:
    message_id = await accept(redis)
    before = await redis.zscore(keys.UNSAVED, message_id)
    await queue.index(redis, message_id, most_due=10)
    assert await redis.zscore(keys.UNSAVED, message_id) == before


async def test_every_marked_message_is_found_for_renewal(redis: Redis) -> None:
    ids = {await accept(redis) for _ in range(30)}
    found: set[str] = set()
    async for some in unsaved.marked(redis):
        found |= set(some)
    assert found == ids
