"""Idempotency-Keys in Redis: the first use stands."""

from typing import Any, cast

from redis.asyncio import Redis

from rejoin.shared import idempotency
from rejoin.shared.idempotency import Use

NAME = idempotency.key_name("local", "a key")
FIRST = Use("m1", "c1", "d1")
SECOND = Use("m2", "c2", "d2")


async def test_the_first_use_of_a_key_stands(any_redis: Redis) -> None:
    first = await idempotency.reserve(any_redis, NAME, FIRST)
    assert (first.use, first.accepted) == (FIRST, False)
    second = await idempotency.reserve(any_redis, NAME, SECOND)
    assert (second.use, second.accepted) == (FIRST, False)
    assert 0 <= second.age_ms < 60_000


async def test_a_reservation_sent_twice_is_one(any_redis: Redis) -> None:
    await idempotency.reserve(any_redis, NAME, FIRST)
    assert (await idempotency.reserve(any_redis, NAME, FIRST)).use == FIRST


async def test_looking_writes_nothing(any_redis: Redis) -> None:
    assert await idempotency.find(any_redis, NAME) is None
    assert await any_redis.keys("*") == []
    await idempotency.reserve(any_redis, NAME, FIRST)
    found = await idempotency.find(any_redis, NAME)
    assert found is not None
    assert found.use == FIRST


async def test_a_key_lives_for_a_day(any_redis: Redis) -> None:
    await idempotency.reserve(any_redis, NAME, FIRST)
    assert 86_300 < await any_redis.ttl(NAME) <= 86_400


async def test_an_accepted_use_is_told_and_never_replaced(any_redis: Redis) -> None:
    await idempotency.reserve(any_redis, NAME, FIRST)
    for _ in range(2):
        assert await idempotency.confirm(any_redis, NAME, FIRST)
    held = await idempotency.reserve(any_redis, NAME, SECOND, instead_of="m1")
    assert (held.use, held.accepted) == (FIRST, True)
    assert not await idempotency.forget(any_redis, NAME, "m1")


async def test_a_stale_use_is_replaced_by_one_of_those_who_saw_it(any_redis: Redis) -> None:
    await idempotency.reserve(any_redis, NAME, FIRST)
    assert (await idempotency.reserve(any_redis, NAME, SECOND, instead_of="m1")).use == SECOND
    third = Use("m3", "c3", "d3")
    assert (await idempotency.reserve(any_redis, NAME, third, instead_of="m1")).use == SECOND


async def test_a_replaced_use_cannot_be_accepted_any_more(any_redis: Redis) -> None:
    await idempotency.reserve(any_redis, NAME, FIRST)
    await idempotency.reserve(any_redis, NAME, SECOND, instead_of="m1")
    assert not await idempotency.confirm(any_redis, NAME, FIRST)
    held = await idempotency.find(any_redis, NAME)
    assert held is not None
    assert (held.use, held.accepted) == (SECOND, False)


async def test_only_its_own_use_can_forget_a_key(any_redis: Redis) -> None:
    await idempotency.reserve(any_redis, NAME, FIRST)
    assert not await idempotency.forget(any_redis, NAME, "m2")
    assert await idempotency.forget(any_redis, NAME, "m1")
    assert not await idempotency.forget(any_redis, NAME, "m1")
    assert (await idempotency.reserve(any_redis, NAME, SECOND)).use == SECOND


async def test_an_accepted_use_outlives_a_twin_that_forgot_it(any_redis: Redis) -> None:
    await idempotency.reserve(any_redis, NAME, FIRST)
    await idempotency.forget(any_redis, NAME, "m1")
    assert await idempotency.confirm(any_redis, NAME, FIRST)
    held = await idempotency.reserve(any_redis, NAME, SECOND)
    assert (held.use, held.accepted) == (FIRST, True)
    assert await any_redis.ttl(NAME) > 86_300


async def test_whatever_a_key_holds_its_name_in_redis_is_plain(any_redis: Redis) -> None:
    name = idempotency.key_name("local", '} * " { \r\n')
    await idempotency.reserve(any_redis, name, FIRST)
    (stored,) = cast(list[bytes], await cast(Any, any_redis.keys("*")))
    assert stored.decode() == name
    assert name.startswith("rejoin:{local}:idem:")
    assert name.rpartition(":")[2].isalnum()
