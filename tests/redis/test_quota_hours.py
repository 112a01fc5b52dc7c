"""Messages that wait for long at a provider's key: how often they look, and who holds a worker."""

from redis.asyncio import Redis

from rejoin.shared import quota
from tests.support.quotas import PATIENCE_MS, SLOT_MS, admit, fill, pass_time, scope_of

HOUR = 3600


async def test_who_waits_behind_a_call_of_an_hour_looks_twice_a_minute_in_the_end(
    redis: Redis,
) -> None:
    scope = scope_of(at_once=1)
    await fill(redis, scope, 1)
    looks, waited = 0, 0.0
    while waited < HOUR:
        # Nothing was known of how long a call takes, and so it first waits within its slot.
        assert not (await admit(redis, scope, "a")).admitted
        waits = await admit(redis, scope, "a", patience_ms=0)
        looks += 1
        waited += waits.wait_ms / 1000
        await pass_time(redis, scope, waits.wait_ms / 1000)
        await quota.keep(redis, scope, ["first-0"], slot_ms=SLOT_MS)
        assert looks <= 150, waited
    assert waits.wait_ms <= 30_000
    over = await quota.settle(redis, scope, "first-0", tokens=1, made=True, took_seconds=HOUR)
    assert [place.name for place in over.following] == ["a"]


async def test_a_key_that_is_parked_again_and_again_is_looked_at_twice_a_minute_in_the_end(
    redis: Redis,
) -> None:
    scope = scope_of(name="m")
    for number in range(40):
        await quota.heard(redis, scope, f"r{number}", refused=True, parked_seconds=3)
        waits = await admit(redis, scope, "b")
        assert waits.wait_ms <= 30_000
        await pass_time(redis, scope, 3)
    assert waits.wait_ms == 30_000


async def test_a_small_call_behind_a_large_one_that_is_parked_is_parked_too(
    any_redis: Redis,
) -> None:
    scope = scope_of(tokens=100)
    await fill(any_redis, scope, 1, tokens=60)
    large = await admit(any_redis, scope, "large", tokens=90)
    small = await admit(any_redis, scope, "small", tokens=1)
    assert large.wait_ms > 59_000
    assert small.wait_ms > PATIENCE_MS
    await pass_time(any_redis, scope, 61)
    assert (await admit(any_redis, scope, "large", tokens=90)).admitted
    assert (await admit(any_redis, scope, "small", tokens=1)).admitted
