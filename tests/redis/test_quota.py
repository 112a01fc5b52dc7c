"""One quota for all workers: who is admitted, who waits for how long, and in which order."""

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, quota
from rejoin.shared.quota import Place, Seen
from rejoin.shared.quota_scope import key_of
from rejoin.shared.rate_limits import Limit, RateLimits
from tests.support.quotas import SLOT_MS, admit, fill, pass_time, scope_of


async def test_so_many_requests_are_admitted_and_the_next_when_the_first_leaves_the_window(
    any_redis: Redis,
) -> None:
    scope = scope_of(requests=3)
    await fill(any_redis, scope, 3)
    await pass_time(any_redis, scope, 50)
    waits = await admit(any_redis, scope, "a")
    assert not waits.admitted
    assert 9_000 < waits.wait_ms <= 10_600
    await pass_time(any_redis, scope, 11)
    assert (await admit(any_redis, scope, "a")).admitted


async def test_one_that_is_far_back_is_told_how_many_windows_it_has_to_wait(
    any_redis: Redis,
) -> None:
    scope = scope_of(requests=2)
    await fill(any_redis, scope, 2)
    waits = [(await admit(any_redis, scope, f"a{n}")).wait_ms for n in range(6)]
    assert [round(wait / 60_600) for wait in waits] == [1, 1, 2, 2, 3, 3]


async def test_an_unbounded_key_admits_and_says_that_nothing_bounds_it(any_redis: Redis) -> None:
    admitted, stands = await quota.admit(
        any_redis, scope_of(), "a", "a", caller="", tokens=1, slot_ms=SLOT_MS, patience_ms=1
    )
    assert admitted.admitted
    assert not stands.bounded


async def test_who_comes_later_does_not_overtake_one_that_waits(any_redis: Redis) -> None:
    scope = scope_of(requests=1)
    await fill(any_redis, scope, 1)
    assert not (await admit(any_redis, scope, "early")).admitted
    await pass_time(any_redis, scope, 61)
    assert not (await admit(any_redis, scope, "late")).admitted
    assert (await admit(any_redis, scope, "early")).admitted


async def test_one_that_waits_is_kept_no_part_when_it_does_not_come(any_redis: Redis) -> None:
    scope = scope_of(requests=1)
    await fill(any_redis, scope, 1)
    assert not (await admit(any_redis, scope, "dead")).admitted
    await pass_time(any_redis, scope, 70)
    assert (await admit(any_redis, scope, "late")).admitted


async def test_callers_take_turns_and_each_ones_own_come_in_their_order(any_redis: Redis) -> None:
    scope = scope_of(at_once=1)
    await fill(any_redis, scope, 1)
    for place in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        assert not (await admit(any_redis, scope, place, caller=place[0])).admitted
    line = keys.quota(scope.key, "")[6]
    order = [place.decode() for place in await any_redis.zrange(line, 0, -1)]
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    await quota.settle(any_redis, scope, "first-0", tokens=1, made=True, took_seconds=1)
    for place in ("a2", "c1", "b1"):
        assert not (await admit(any_redis, scope, place, caller=place[0])).admitted
    assert (await admit(any_redis, scope, "a1", caller="a")).admitted


async def test_a_place_that_is_given_up_lets_the_next_one_come(any_redis: Redis) -> None:
    scope = scope_of(requests=1)
    await fill(any_redis, scope, 1)
    for place in ("a", "b"):
        await admit(any_redis, scope, place)
    await pass_time(any_redis, scope, 61)
    assert not (await admit(any_redis, scope, "b")).admitted
    await quota.leave(any_redis, scope.line, "a")
    assert (await admit(any_redis, scope, "b")).admitted


async def test_tokens_are_kept_before_a_call_and_settled_after_it(any_redis: Redis) -> None:
    scope = scope_of(tokens=100)
    assert (await admit(any_redis, scope, "a", tokens=90)).admitted
    assert not (await admit(any_redis, scope, "b", tokens=20)).admitted
    await quota.settle(any_redis, scope, "a", tokens=30, made=True, took_seconds=1)
    assert (await admit(any_redis, scope, "b", tokens=20)).admitted
    assert not (await admit(any_redis, scope, "c", tokens=51)).admitted


async def test_a_call_that_was_never_made_takes_nothing(any_redis: Redis) -> None:
    scope = scope_of(requests=1, tokens=10)
    await fill(any_redis, scope, 1)
    await quota.settle(any_redis, scope, "first-0", tokens=None, made=False, took_seconds=0)
    assert (await admit(any_redis, scope, "a")).admitted


async def test_a_call_of_more_tokens_than_the_limit_goes_alone(any_redis: Redis) -> None:
    scope = scope_of(tokens=100)
    assert (await admit(any_redis, scope, "a", tokens=5000)).admitted
    waits = await admit(any_redis, scope, "b", tokens=5000)
    assert not waits.admitted
    assert waits.wait_ms <= 61_000
    await pass_time(any_redis, scope, 61)
    assert (await admit(any_redis, scope, "b", tokens=5000)).admitted


async def test_a_slot_of_a_worker_that_died_comes_free_by_itself(any_redis: Redis) -> None:
    scope = scope_of(at_once=2)
    await fill(any_redis, scope, 2)
    assert not (await admit(any_redis, scope, "a")).admitted
    await pass_time(any_redis, scope, SLOT_MS / 1000 - 1)
    stands = await quota.keep(any_redis, scope, ["first-1"], slot_ms=SLOT_MS)
    assert list(stands.following) == []
    assert not (await admit(any_redis, scope, "a")).admitted
    await pass_time(any_redis, scope, 1.5)
    stands = await quota.keep(any_redis, scope, [], slot_ms=SLOT_MS)
    assert list(stands.following) == [Place("a", parked=False)]
    assert (await admit(any_redis, scope, "a")).admitted
    assert not (await admit(any_redis, scope, "b")).admitted


async def test_an_end_names_the_next_ones_and_a_parked_one_once(any_redis: Redis) -> None:
    scope = scope_of(at_once=2)
    await fill(any_redis, scope, 2)
    for place in ("a", "b", "c"):
        await admit(any_redis, scope, place, patience_ms=0)
    over = [
        await quota.settle(any_redis, scope, f"first-{n}", tokens=1, made=True, took_seconds=1)
        for n in range(2)
    ]
    assert [[place.name for place in stands.following] for stands in over] == [["a"], ["b"]]
    assert all(place.parked for stands in over for place in stands.following)


async def test_what_is_left_by_the_headers_bounds_what_goes_until_all_is_there_again(
    any_redis: Redis,
) -> None:
    scope = scope_of(name="m")
    said = RateLimits(Limit(60, 2, 20.0))
    await quota.heard(any_redis, scope, "probe", said)
    await fill(any_redis, scope, 2)
    waits = await admit(any_redis, scope, "a")
    assert 19_000 < waits.wait_ms <= 20_000
    await pass_time(any_redis, scope, 21)
    assert (await admit(any_redis, scope, "a")).admitted


async def test_what_is_under_way_is_not_counted_in_what_the_headers_say(any_redis: Redis) -> None:
    scope = scope_of(name="m")
    await quota.heard(any_redis, scope, "probe", RateLimits(Limit(60, 10, 20.0)))
    await fill(any_redis, scope, 3)
    await quota.heard(any_redis, scope, "first-0", RateLimits(Limit(60, 4, 20.0)))
    for place in ("a", "b"):
        assert (await admit(any_redis, scope, place)).admitted
    assert not (await admit(any_redis, scope, "c")).admitted


async def test_an_answer_that_was_overtaken_raises_nothing(any_redis: Redis) -> None:
    scope = scope_of(name="m")
    await quota.heard(any_redis, scope, "late", RateLimits(Limit(60, 0, 20.0)))
    await quota.heard(any_redis, scope, "early", RateLimits(Limit(60, 5, 20.0)))
    assert not (await admit(any_redis, scope, "a")).admitted


async def test_the_limit_of_the_headers_bounds_a_window(any_redis: Redis) -> None:
    scope = scope_of(name="m")
    await quota.heard(any_redis, scope, "probe", RateLimits(Limit(3, 2, 0.001), Limit(most=1000)))
    await fill(any_redis, scope, 2)
    assert not (await admit(any_redis, scope, "a")).admitted
    _, (seen,) = await quota.look(any_redis, scope.key, scope.bounds)
    assert seen == Seen("m", 3, 1000, None, 1)


async def test_headers_tighten_what_the_file_says_and_never_loosen_it(any_redis: Redis) -> None:
    scope = scope_of(requests=5)
    await quota.heard(any_redis, scope, "probe", RateLimits(Limit(100)))
    await fill(any_redis, scope, 4)
    assert not (await admit(any_redis, scope, "a")).admitted
    _, (seen,) = await quota.look(any_redis, scope.key, scope.bounds)
    assert seen.requests == 5


async def test_a_parked_key_admits_nobody_of_any_model(any_redis: Redis) -> None:
    refused, other = scope_of(name="m"), scope_of(name="other")
    await quota.heard(any_redis, refused, "call", refused=True, parked_seconds=600)
    for scope in (refused, other):
        waits = await admit(any_redis, scope, "a", patience_ms=0)
        assert 599_000 < waits.wait_ms <= 600_000
        stands = await quota.keep(any_redis, scope, [], slot_ms=SLOT_MS)
        assert (stands.bounded, list(stands.following)) == (True, [])
        assert 599_000 < stands.parked_ms <= 600_000
    parked_seconds, _ = await quota.look(any_redis, refused.key, refused.bounds)
    assert 599 < parked_seconds <= 600


async def test_a_shorter_word_does_not_end_a_parking(any_redis: Redis) -> None:
    scope = scope_of(name="m")
    await quota.heard(any_redis, scope, "call", refused=True, parked_seconds=600)
    await quota.heard(any_redis, scope, "call", refused=True, parked_seconds=1)
    assert (await admit(any_redis, scope, "a")).wait_ms > 590_000


async def test_after_a_parking_without_a_known_limit_they_come_back_one_by_one(
    any_redis: Redis,
) -> None:
    scope = scope_of(name="m")
    await quota.heard(any_redis, scope, "call", refused=True, parked_seconds=10)
    await pass_time(any_redis, scope, 11)
    assert (await admit(any_redis, scope, "a")).admitted
    assert not (await admit(any_redis, scope, "b")).admitted
    await quota.heard(any_redis, scope, "a")
    assert (await admit(any_redis, scope, "b")).admitted
    assert (await admit(any_redis, scope, "c")).admitted
    assert not (await admit(any_redis, scope, "d")).admitted


async def test_a_call_that_is_admitted_twice_counts_once(any_redis: Redis) -> None:
    scope = scope_of(requests=2, tokens=20, at_once=2)
    for _ in range(3):
        assert (await admit(any_redis, scope, "a")).admitted
    assert (await admit(any_redis, scope, "b")).admitted
    assert not (await admit(any_redis, scope, "c")).admitted


async def test_a_clock_that_went_back_holds_nobody_for_long(any_redis: Redis) -> None:
    scope = scope_of(requests=1, tokens=10, at_once=1)
    await fill(any_redis, scope, 1)
    await quota.heard(any_redis, scope, "first-0", RateLimits(Limit(1, 0, 10), Limit(10, 0, 10)))
    await quota.heard(any_redis, scope, "first-0", refused=True, parked_seconds=5)
    await pass_time(any_redis, scope, -86400)
    waits = await admit(any_redis, scope, "a")
    assert waits.wait_ms <= 5000


async def test_no_key_of_a_quota_is_without_an_expiry(any_redis: Redis) -> None:
    scope = scope_of(requests=2, tokens=100, at_once=2)
    await fill(any_redis, scope, 2)
    await admit(any_redis, scope, "a")
    await quota.heard(any_redis, scope, "first-0", RateLimits(Limit(60, 2, 20.0)))
    await quota.heard(any_redis, scope, "other", refused=True, parked_seconds=10)
    await quota.keep(any_redis, scope, ["first-0"], slot_ms=SLOT_MS)
    await quota.settle(any_redis, scope, "first-1", tokens=7, made=True, took_seconds=1)
    names = await any_redis.keys("rejoin:*")
    assert len(names) >= 8
    for name in names:
        assert await any_redis.pttl(name) > 0, name


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_name_of_a_key_does_not_show_it_and_differs_by_it(provider: str) -> None:
    secret, variable = "sk-very-secret", f"{provider.upper()}_API_KEY"
    name = key_of(provider, {variable: secret})
    assert "secret" not in name
    assert name.startswith(f"{provider}:")
    assert name != key_of(provider, {variable: "sk-another"})
    assert name == key_of(provider, {variable: f" {secret}\n", "HOME": "/"})


async def test_a_call_of_no_tokens_comes_and_goes(any_redis: Redis) -> None:
    scope = scope_of(requests=1, tokens=5)
    for place in ("a", "b"):
        assert (await admit(any_redis, scope, place, tokens=0)).admitted
        await pass_time(any_redis, scope, 61)


async def test_no_key_lives_for_ever_at_any_moment(any_redis: Redis) -> None:
    scope = scope_of(requests=2, tokens=100, at_once=2)
    for place in ("a", "b", "c"):
        await admit(any_redis, scope, place)
        lives = {name: await any_redis.pttl(name) for name in await any_redis.keys("rejoin:*")}
        assert lives
        assert all(life > 0 for life in lives.values()), lives


async def test_a_later_call_of_one_that_has_begun_comes_before_those_that_have_not(
    any_redis: Redis,
) -> None:
    scope = scope_of(at_once=1)
    await fill(any_redis, scope, 1)
    for place in ("a1", "a2", "begun", "b1"):
        await admit(any_redis, scope, place, caller=place[0], had_turn=place == "begun")
    order, left, call = [], ["a2", "b1", "a1", "begun"], "first-0"
    while left:
        await quota.settle(any_redis, scope, call, tokens=1, made=True, took_seconds=1)
        (call,) = [one for one in left if (await admit(any_redis, scope, one)).admitted]
        left.remove(call)
        order.append(call)
    assert order == ["begun", "a1", "b1", "a2"]


async def test_a_redis_that_forgot_its_scripts_admits_all_the_same(redis: Redis) -> None:
    scope = scope_of(requests=2)
    await admit(redis, scope, "a")
    await redis.script_flush()
    assert (await admit(redis, scope, "b")).admitted
    assert not (await admit(redis, scope, "c")).admitted
