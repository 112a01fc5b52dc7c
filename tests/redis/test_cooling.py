"""Models that failed: left alone for a while, tried by one message, and forgotten."""

import asyncio
from collections.abc import Awaitable
from typing import Final, cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import cooling, keys
from rejoin.shared.connections import open_redis
from rejoin.shared.cooling import Chosen, Waits
from rejoin.shared.errors import LogUnavailable
from tests.support.cooled import time_over

A: Final = "one/a"
B: Final = "two/b"
WAITS: Final = Waits()
SHORT: Final = Waits(first_ms=0, most_ms=0)  # over at once
DOWN: Final = "provider_unavailable"
NOTHING: Final = Chosen(0, False, {})


async def wait_ms(redis: Redis, until_ms: int) -> int:
    seconds, micros = cast(tuple[int, int], await redis.time())
    return until_ms - (seconds * 1000 + micros // 1000)


async def test_a_model_that_did_not_fail_is_chosen_and_nothing_is_kept(any_redis: Redis) -> None:
    assert await cooling.choose(any_redis, "m1", [A, B]) == NOTHING
    assert await any_redis.exists(keys.COOLING) == 0
    assert await cooling.left_alone(any_redis) == {}


async def test_a_model_that_failed_is_passed_over(any_redis: Redis) -> None:
    until_ms = await cooling.fail(any_redis, A, DOWN)
    assert 25_000 < await wait_ms(any_redis, until_ms) <= 30_000
    known = {A: (until_ms, DOWN)}
    assert await cooling.choose(any_redis, "m1", [A, B]) == (1, False, known)
    assert await cooling.left_alone(any_redis) == known


async def test_where_all_are_left_alone_none_is_chosen(any_redis: Redis) -> None:
    for model in (A, B):
        await cooling.fail(any_redis, model, DOWN)
    found = await cooling.choose(any_redis, "m1", [A, B])
    assert (found.place, set(found.known)) == (None, {A, B})


async def test_many_calls_that_fail_at_once_count_as_one(any_redis: Redis) -> None:
    first = await cooling.fail(any_redis, A, DOWN)
    assert {await cooling.fail(any_redis, A, "provider_timeout") for _ in range(9)} == {first}
    assert (await cooling.left_alone(any_redis))[A].reason == DOWN


async def test_a_longer_retry_after_wins(any_redis: Redis) -> None:
    for _ in range(2):  # also where it is left alone already
        until_ms = await cooling.fail(any_redis, A, "rate_limited", retry_after_ms=90_000)
        assert 85_000 < await wait_ms(any_redis, until_ms) <= 90_000
    until_ms = await cooling.fail(any_redis, B, "rate_limited", retry_after_ms=10**15)
    assert await wait_ms(any_redis, until_ms) <= cooling.MOST_RETRY_AFTER_MS


async def test_it_is_left_alone_for_twice_as_long_each_time_it_fails_again(
    any_redis: Redis,
) -> None:
    waits = []
    for _ in range(6):
        waits.append(await wait_ms(any_redis, await cooling.fail(any_redis, A, DOWN)))
        await time_over(any_redis, A)
    for wait, most in zip(waits, (30, 60, 120, 240, 300, 300), strict=True):
        assert most * 1000 - 5000 < wait <= most * 1000


async def test_one_message_alone_tries_a_model_whose_time_is_over(any_redis: Redis) -> None:
    await cooling.fail(any_redis, A, DOWN)
    await time_over(any_redis, A)
    assert await cooling.left_alone(any_redis) == {}
    for _ in range(2):  # a repeat of the same message's is its trial still
        assert (await cooling.choose(any_redis, "m1", [A, B]))[:2] == (0, True)
    assert (await cooling.choose(any_redis, "m2", [A, B]))[:2] == (1, False)
    assert set(await cooling.left_alone(any_redis)) == {A}


async def test_a_trial_that_comes_to_no_end_is_another_messages_after_a_time(
    any_redis: Redis,
) -> None:
    await cooling.fail(any_redis, A, DOWN)
    await time_over(any_redis, A)
    await cooling.choose(any_redis, "m1", [A, B], waits=Waits(trial_ms=0))
    assert (await cooling.choose(any_redis, "m2", [A, B]))[:2] == (0, True)
    assert (await cooling.choose(any_redis, "m1", [A, B]))[:2] == (1, False)


async def test_a_trial_that_fails_leaves_it_alone_for_longer(any_redis: Redis) -> None:
    await cooling.fail(any_redis, A, DOWN)
    await time_over(any_redis, A)
    await cooling.choose(any_redis, "m1", [A, B])
    until_ms = await cooling.fail(any_redis, A, "provider_timeout")
    assert 55_000 < await wait_ms(any_redis, until_ms) <= 60_000
    found = await cooling.choose(any_redis, "m1", [A, B])
    assert found == (1, False, {A: (until_ms, "provider_timeout")})


async def test_a_model_that_answers_again_is_asked_by_all(any_redis: Redis) -> None:
    until_ms = await cooling.fail(any_redis, A, DOWN)
    for _ in range(2):
        await cooling.clear(any_redis, A, until_ms)
        assert await cooling.choose(any_redis, "m2", [A, B]) == NOTHING


async def test_an_answer_to_a_call_from_before_a_failure_clears_nothing(any_redis: Redis) -> None:
    seen = await cooling.fail(any_redis, A, DOWN, waits=SHORT)
    later = await cooling.fail(any_redis, A, DOWN)
    assert later > seen
    await cooling.clear(any_redis, A, seen)
    assert set(await cooling.left_alone(any_redis)) == {A}


async def test_one_that_nobody_asked_for_long_begins_anew(any_redis: Redis) -> None:
    until_ms = await cooling.fail(any_redis, A, DOWN)
    long_ago = until_ms - 40_000 - cooling.FORGET_MS
    await cast(
        Awaitable[int], any_redis.hset(keys.COOLING, A, f"{long_ago} 240000 {long_ago} m1 {DOWN}")
    )
    assert await cooling.choose(any_redis, "m1", [A, B]) == NOTHING
    until_ms = await cooling.fail(any_redis, A, DOWN)
    assert await wait_ms(any_redis, until_ms) <= 30_000


async def test_it_has_an_expiry_beyond_the_longest_wait(any_redis: Redis) -> None:
    await cooling.fail(any_redis, A, "rate_limited", retry_after_ms=3_600_000)
    await cooling.fail(any_redis, B, DOWN)
    assert 3_800_000 < await any_redis.pttl(keys.COOLING) <= 3_600_000 + cooling.FORGET_MS


async def test_names_without_end_take_no_memory_without_end(any_redis: Redis) -> None:
    await cooling.fail(any_redis, A, DOWN, retry_after_ms=90_000)
    for number in range(cooling.MOST_MODELS + 10):
        await cooling.fail(any_redis, f"one/{number}", "invalid_request")
    left = await cooling.left_alone(any_redis)
    assert len(left) == cooling.MOST_MODELS
    assert {A, f"one/{cooling.MOST_MODELS + 9}"} <= set(left)


async def test_messages_at_one_instant_have_one_trial(clean_redis_url: str, redis: Redis) -> None:
    await cooling.fail(redis, A, DOWN)
    await time_over(redis, A)
    async with open_redis(clean_redis_url) as other:
        found = await asyncio.gather(
            *(cooling.choose((redis, other)[n % 2], f"m{n}", [A, B]) for n in range(20))
        )
    assert [one.on_trial for one in found].count(True) == 1


async def test_a_redis_that_is_away_is_said() -> None:
    async with open_redis("redis://127.0.0.1:1/0") as away:  # nobody listens there
        calls: list[Awaitable[object]] = [
            cooling.choose(away, "m1", [A, B]),
            cooling.fail(away, A, DOWN),
            cooling.clear(away, A, 1),
            cooling.left_alone(away),
        ]
        for call in calls:
            with pytest.raises(LogUnavailable):
                await call


@pytest.mark.parametrize("told", ["", "x", "1 2 3", '{"until": 1}'])
async def test_what_another_version_wrote_counts_as_nothing(any_redis: Redis, told: str) -> None:
    await cooling.fail(any_redis, B, DOWN)
    await cast(Awaitable[int], any_redis.hset(keys.COOLING, A, told))
    assert (await cooling.choose(any_redis, "m1", [A, B])).place == 0
    assert set(await cooling.left_alone(any_redis)) == {B}
    await cooling.fail(any_redis, A, DOWN)
    assert set(await cooling.left_alone(any_redis)) == {A, B}
    await cast(Awaitable[int], any_redis.hset(keys.COOLING, A, told))
    await cooling.clear(any_redis, A, 1)
    assert (await cooling.choose(any_redis, "m1", [A, B])).known.keys() == {B}
