"""What calls wait for, and their answers: the first one stands, and none comes too late."""

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, record, unsaved, waiting
from rejoin.shared.asks import TIMEOUT, Answer, Ask, Kind
from rejoin.shared.errors import (
    BadRequest,
    Conflict,
    Fenced,
    LogEnded,
    MessageMissing,
    NotFound,
)
from rejoin.shared.record import Status
from rejoin.shared.tool_events import Needs
from rejoin.shared.waiting import Parked
from tests.support.messages import LIFE, accept, batch, claim, end, start, until
from tests.support.waits import FAR, ask, passed, say, wait_for

YES = Answer(Kind.APPROVE, True)
NO = Answer(Kind.APPROVE, False)


async def status(redis: Redis, message_id: str) -> Status:
    found = await record.load(redis, message_id)
    assert found is not None
    return found.status


async def test_what_a_call_waits_for_is_kept(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    await claim(any_redis, message_id, "a")
    asks = [Ask("x", Needs.APPROVAL, 1, FAR), Ask("y", Needs.RESULT, 1, FAR)]
    for _ in range(2):
        await waiting.ask(any_redis, message_id, token="a", asks=asks, life_seconds=LIFE)
        assert await waiting.asked(any_redis, message_id) == {"x": asks[0], "y": asks[1]}
    assert await waiting.answers(any_redis, message_id) == {}


async def test_asking_again_keeps_the_first_deadline_and_the_answer(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x")
    await say(any_redis, message_id, "x", YES)
    await ask(any_redis, message_id, "a", "x", deadline_ms=FAR + 5)
    assert (await waiting.asked(any_redis, message_id))["x"].deadline_ms == FAR
    assert await waiting.answers(any_redis, message_id) == {"x": YES}


async def test_a_later_round_forgets_the_answer_of_the_one_before(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x")
    await say(any_redis, message_id, "x", YES)
    for _ in range(2):
        await ask(any_redis, message_id, "a", "x", round_=2, deadline_ms=FAR + 5)
        assert (await waiting.asked(any_redis, message_id))["x"].deadline_ms == FAR + 5
        assert await waiting.answers(any_redis, message_id) == {}
    await say(any_redis, message_id, "x", NO)
    await ask(any_redis, message_id, "a", "x", round_=1)  # of a reply that was lost long ago
    assert await waiting.answers(any_redis, message_id) == {"x": NO}


async def test_only_the_owner_asks_and_parks(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x")
    await claim(any_redis, message_id, "b")
    with pytest.raises(Fenced):
        await ask(any_redis, message_id, "a", "y")
    with pytest.raises(Fenced):
        await waiting.park(any_redis, message_id, token="a", call_ids=["x"])
    assert list(await waiting.asked(any_redis, message_id)) == ["x"]
    assert await status(any_redis, message_id) is Status.STREAMING


async def test_nothing_waits_in_a_message_that_ended_or_is_gone(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x")
    await finish(any_redis, message_id)
    for wanted, refusal in ((message_id, LogEnded), ("no-such-message", MessageMissing)):
        with pytest.raises(refusal):
            await ask(any_redis, wanted, "a", "y")
        with pytest.raises(refusal):
            await waiting.park(any_redis, wanted, token="a", call_ids=["x"])
    assert await any_redis.exists(*keys.of_message("no-such-message")) == 0
    assert await status(any_redis, message_id) is Status.DONE


async def finish(redis: Redis, message_id: str, token: str = "a") -> None:
    owner = await claim(redis, message_id, token)
    last = batch(message_id, owner, 0, [start(message_id), *end()], ending="done")
    await log.append(redis, last)


async def test_the_same_answer_again_is_taken_and_another_one_is_not(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x")
    for _ in range(2):
        assert await say(any_redis, message_id, "x", YES)
    with pytest.raises(Conflict, match="otherwise"):
        await say(any_redis, message_id, "x", NO)
    assert await waiting.answers(any_redis, message_id) == {"x": YES}


async def test_the_same_json_is_the_same_answer(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x", needs=Needs.RESULT)
    await say(any_redis, message_id, "x", Answer(Kind.RESULT, {"a": 1, "b": [2.0]}))
    await say(any_redis, message_id, "x", Answer(Kind.RESULT, {"b": [2], "a": 1.0}))
    for other in ({"a": True, "b": [2]}, None, {"a": 1}):
        with pytest.raises(Conflict):
            await say(any_redis, message_id, "x", Answer(Kind.RESULT, other))


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, "\U0001f600é", 1.5e300])
async def test_a_result_comes_back_as_it_was_given(any_redis: Redis, value: object) -> None:
    message_id = await wait_for(any_redis, "x", needs=Needs.RESULT)
    await say(any_redis, message_id, "x", Answer(Kind.RESULT, value))
    (given,) = (await waiting.answers(any_redis, message_id)).values()
    assert (given.kind, given.value) == (Kind.RESULT, value)
    assert type(given.value) is type(value)


async def test_of_two_answers_at_one_instant_one_stands(any_redis: Redis) -> None:
    for _ in range(20):
        message_id = await wait_for(any_redis, "x")
        outcomes = await asyncio.gather(
            say(any_redis, message_id, "x", YES),
            say(any_redis, message_id, "x", NO),
            return_exceptions=True,
        )
        assert sorted(type(one) is Conflict for one in outcomes) == [False, True]
        stands = (await waiting.answers(any_redis, message_id))["x"]
        assert stands == (YES if outcomes[0] is True else NO)


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (Needs.RESULT, YES),
        (Needs.APPROVAL, Answer(Kind.RESULT, True)),
        (Needs.APPROVAL, Answer(Kind.ERROR, "no")),
    ],
)
async def test_an_answer_of_another_kind_is_none(
    any_redis: Redis, needs: Needs, said: Answer
) -> None:
    message_id = await wait_for(any_redis, "x", needs=needs)
    with pytest.raises(BadRequest) as refused:
        await say(any_redis, message_id, "x", said)
    assert refused.value.field == (said.kind.value,)
    assert await waiting.answers(any_redis, message_id) == {}


async def test_a_call_that_waits_for_nothing_has_no_answer(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x")
    with pytest.raises(NotFound):
        await say(any_redis, message_id, "y", YES)
    with pytest.raises(MessageMissing):
        await say(any_redis, "no-such-message", "x", YES)
    assert await any_redis.exists(*keys.of_message("no-such-message")) == 0


@pytest.mark.parametrize("said_before", [False, True])
@pytest.mark.parametrize("what", ["deadline", "cancel", "after_step", "end"])
async def test_after_its_time_no_answer_is_taken_the_same_neither(
    any_redis: Redis, what: str, said_before: bool
) -> None:
    message_id = await wait_for(any_redis, "x")
    if said_before:
        await say(any_redis, message_id, "x", YES)
    if what == "deadline":
        await passed(any_redis, message_id, "x")
    elif what == "end":
        await finish(any_redis, message_id, "b")
    else:
        await record.cancel(any_redis, message_id, after_step=what == "after_step")
    with pytest.raises(Conflict):
        await say(any_redis, message_id, "x", YES)
    assert await waiting.answers(any_redis, message_id) == ({"x": YES} if said_before else {})


async def test_a_deadline_answers_only_what_nobody_answered_in_time(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "late", "given", "early")
    await say(any_redis, message_id, "given", YES)
    await passed(any_redis, message_id, "late")
    await passed(any_redis, message_id, "given")
    for _ in range(2):
        names = ["late", "given", "early", "unknown"]
        await waiting.expire(any_redis, message_id, names)
        assert await waiting.answers(any_redis, message_id) == {"late": TIMEOUT, "given": YES}


async def test_an_answer_and_its_deadline_at_one_instant_never_both_count(redis: Redis) -> None:
    outcomes = set()
    for n in range(60):
        message_id = await wait_for(redis)
        seconds, micros = await redis.time()
        deadline_ms = seconds * 1000 + micros // 1000 + n % 3
        await ask(redis, message_id, "a", "x", deadline_ms=deadline_ms)
        said, _ = await asyncio.gather(
            say(redis, message_id, "x", YES),
            waiting.expire(redis, message_id, ["x"]),
            return_exceptions=True,
        )

        async def answered(message_id: str = message_id) -> bool:
            await waiting.expire(redis, message_id, ["x"])
            return "x" in await waiting.answers(redis, message_id)

        await until(answered)
        stands = (await waiting.answers(redis, message_id))["x"]
        assert stands == (YES if said is True else TIMEOUT)
        outcomes.add(stands)
    assert TIMEOUT in outcomes


async def test_a_cancel_and_a_park_at_one_instant_never_miss_each_other(any_redis: Redis) -> None:
    for _ in range(20):
        message_id = await wait_for(any_redis, "x")
        parked, _ = await asyncio.gather(
            waiting.park(any_redis, message_id, token="a", call_ids=["x"]),
            record.cancel(any_redis, message_id),
        )
        # Whoever cancels looks after it: what waits by then is his to end, what runs is not.
        waits = await status(any_redis, message_id) is Status.WAITING
        assert waits is (parked is Parked.PARKED)


async def test_an_answer_tells_whether_anything_waits_still(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x", "y")
    assert not await say(any_redis, message_id, "x", YES)
    assert await say(any_redis, message_id, "y", YES)
    assert await say(any_redis, message_id, "x", YES)  # its first reply was lost


async def test_of_the_last_two_answers_at_one_instant_one_tells_it(any_redis: Redis) -> None:
    for _ in range(20):
        message_id = await wait_for(any_redis, "x", "y")
        told = await asyncio.gather(
            say(any_redis, message_id, "x", YES), say(any_redis, message_id, "y", NO)
        )
        assert any(told)


async def test_a_message_that_waits_says_so_until_its_next_claim(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x", "y")
    await say(any_redis, message_id, "x", YES)
    for _ in range(2):
        parked = await waiting.park(any_redis, message_id, token="a", call_ids=["x", "y"])
        assert parked is Parked.PARKED
        assert await status(any_redis, message_id) is Status.WAITING
    key = keys.record(message_id)
    since = int(await cast(Awaitable[bytes], any_redis.hget(key, "parked_at")))
    await cast(Awaitable[int], any_redis.hset(key, "parked_at", str(since - 60_000)))
    await waiting.park(any_redis, message_id, token="a", call_ids=["x", "y"])
    for _ in range(2):
        again = await claim(any_redis, message_id, "b")
        assert (again.attempt, again.lost_runs) == (2, 0)
        found = await record.load(any_redis, message_id)
        assert found is not None
        assert found.status is Status.STREAMING
        assert 60_000 <= found.waited_ms < 90_000


async def test_waits_add_up(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x")
    key = keys.record(message_id)
    for token, following in (("a", "b"), ("b", "c")):
        await waiting.park(any_redis, message_id, token=token, call_ids=["x"])
        since = int(await cast(Awaitable[bytes], any_redis.hget(key, "parked_at")))
        await cast(Awaitable[int], any_redis.hset(key, "parked_at", str(since - 60_000)))
        await claim(any_redis, message_id, following)
    found = await record.load(any_redis, message_id)
    assert found is not None
    assert 120_000 <= found.waited_ms < 180_000


async def test_what_is_answered_does_not_wait(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x", "y")
    await say(any_redis, message_id, "x", YES)
    await say(any_redis, message_id, "y", NO)
    for _ in range(2):
        parked = await waiting.park(any_redis, message_id, token="a", call_ids=["x", "y"])
        assert parked is Parked.ANSWERED
    assert await status(any_redis, message_id) is Status.STREAMING


@pytest.mark.parametrize("after_step", [False, True])
async def test_what_is_cancelled_does_not_wait(any_redis: Redis, after_step: bool) -> None:
    message_id = await wait_for(any_redis, "x")
    await record.cancel(any_redis, message_id, after_step=after_step)
    parked = await waiting.park(any_redis, message_id, token="a", call_ids=["x"])
    assert parked is Parked.CANCEL
    assert await status(any_redis, message_id) is Status.STREAMING


@pytest.mark.parametrize("what", ["answer", "cancel"])
async def test_a_park_whose_reply_was_lost_has_not_been_one(any_redis: Redis, what: str) -> None:
    message_id = await wait_for(any_redis, "x")
    await waiting.park(any_redis, message_id, token="a", call_ids=["x"])
    if what == "answer":
        await say(any_redis, message_id, "x", YES)
    else:
        await record.cancel(any_redis, message_id)
    parked = await waiting.park(any_redis, message_id, token="a", call_ids=["x"])
    assert parked is (Parked.ANSWERED if what == "answer" else Parked.CANCEL)
    assert await status(any_redis, message_id) is Status.STREAMING
    assert (await claim(any_redis, message_id, "b")).lost_runs == 1  # it runs, and may be lost


async def test_an_answer_and_a_park_at_one_instant_never_miss_each_other(any_redis: Redis) -> None:
    for _ in range(20):
        message_id = await wait_for(any_redis, "x")
        parked, all_answered = await asyncio.gather(
            waiting.park(any_redis, message_id, token="a", call_ids=["x"]),
            say(any_redis, message_id, "x", YES),
        )
        # Either the worker goes on, or whoever answered is told to wake the next one.
        assert parked is Parked.ANSWERED or all_answered


async def test_what_a_lost_attempt_asked_is_forgotten(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "gone", "x", "kept")
    await say(any_redis, message_id, "kept", NO)
    await waiting.park(any_redis, message_id, token="a", call_ids=["x"])
    assert set(await waiting.asked(any_redis, message_id)) == {"x", "kept"}
    assert await say(any_redis, message_id, "x", YES)


async def test_asking_answering_and_claiming_renew_its_life(any_redis: Redis) -> None:
    message_id = await wait_for(any_redis, "x")
    name = keys.answers(message_id)
    assert LIFE - 60 < await any_redis.ttl(name) <= LIFE
    every = keys.record(message_id), keys.request(message_id), name

    async def shorten() -> None:
        for key in every:
            await any_redis.expire(key, 5)

    async def lives() -> bool:
        return all([await any_redis.ttl(key) > 60 for key in every])

    await shorten()
    await say(any_redis, message_id, "x", YES)
    assert await lives()
    await shorten()
    owner = await claim(any_redis, message_id, "b")
    assert await lives()
    await shorten()
    await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)], ending="step"))
    assert await lives()
    await unsaved.let_live(any_redis, [message_id], life_seconds=9)
    assert await any_redis.ttl(name) <= 9
    await unsaved.remove_logs(any_redis, [message_id])
    assert await any_redis.exists(*keys.of_message(message_id)) == 0


async def test_what_has_ended_lives_no_longer_for_a_reaper_that_found_it_open(
    any_redis: Redis,
) -> None:
    message_id, other = await wait_for(any_redis, "x"), await wait_for(any_redis, "x")
    await finish(any_redis, message_id, "b")
    both = [message_id, other]
    await unsaved.let_live(any_redis, both, life_seconds=9)
    await unsaved.let_open_live(any_redis, both, life_seconds=60)
    for one, least in ((message_id, 0), (other, 9)):
        names = keys.of_message(one)
        lives = [await any_redis.ttl(name) for name in names if await any_redis.exists(name)]
        assert least < min(lives) <= max(lives) <= (60 if least else 9)


@pytest.mark.parametrize("why", ["answered", "cancelled", "ended", "gone", "forgotten"])
async def test_who_waits_in_vain_is_found(any_redis: Redis, why: str) -> None:
    message_id, other = await wait_for(any_redis, "x", "y"), await wait_for(any_redis, "x")
    for one in (message_id, other):
        await waiting.park(any_redis, one, token="a", call_ids=["x", "y"])
    await say(any_redis, message_id, "x", YES)
    assert await waiting.ready(any_redis, [message_id, other]) == []
    match why:
        case "answered":
            await say(any_redis, message_id, "y", YES)
        case "cancelled":
            await record.cancel(any_redis, message_id, after_step=True)
        case "ended":
            await finish(any_redis, message_id, "b")
        case "gone":
            await any_redis.delete(*keys.of_message(message_id))
        case "forgotten":
            await any_redis.delete(keys.answers(message_id))
    assert await waiting.ready(any_redis, [message_id, other]) == [message_id]


async def test_who_does_not_wait_for_answers_does_not_wait_in_vain(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    await claim(any_redis, message_id, "a")
    assert await waiting.ready(any_redis, [message_id]) == []
    assert await waiting.ready(any_redis, []) == []
