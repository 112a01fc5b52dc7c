"""A conversation's turns: who is first, who comes next, and what a repeat of each step does."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import deleted, keys, queue, record, turns
from rejoin.shared.errors import Busy, NotFound, Unavailable
from rejoin.shared.request import StoredRequest
from rejoin.shared.turns import IfBusy, Placed, Waiting
from tests.support.messages import LIFE, new_record


async def placed(
    redis: Redis,
    conversation_id: str,
    message_id: str,
    if_busy: IfBusy = IfBusy.ENQUEUE,
    **fields: Any,
) -> Placed:
    """Place a message of the owner "me"; the conversation is made with its first one."""
    whole: dict[str, Any] = {"owner": "me", "parent_id": None, "make": True}
    return await turns.place(
        redis, conversation_id, message_id, if_busy=if_busy, life_seconds=LIFE, **(whole | fields)
    )


async def passed(redis: Redis, conversation_id: str, message_id: str) -> str:
    return await turns.pass_on(redis, conversation_id, message_id, life_seconds=LIFE)


async def order(redis: Redis, conversation_id: str) -> list[str]:
    return [name.decode() for name in await redis.zrange(keys.turns(conversation_id), 0, -1)]


async def test_they_have_their_turns_in_the_order_of_their_coming(any_redis: Redis) -> None:
    for name in "abc":
        await placed(any_redis, "c", name)
    assert await order(any_redis, "c") == ["a", "b", "c"]
    assert await passed(any_redis, "c", "a") == "b"
    assert await turns.first(any_redis, "c", life_seconds=LIFE) == "b"
    assert await passed(any_redis, "c", "b") == "c"
    assert await passed(any_redis, "c", "c") == ""
    assert await turns.first(any_redis, "c", life_seconds=LIFE) == ""


async def test_a_message_comes_after_the_newest_whether_that_has_ended_or_not(
    any_redis: Redis,
) -> None:
    assert await placed(any_redis, "c", "a") == Placed("a", None, None)
    assert await placed(any_redis, "c", "b") == Placed("a", "a", "a")
    for name in "ab":
        await passed(any_redis, "c", name)
    assert await placed(any_redis, "c", "d") == Placed("d", None, "b")


async def test_a_parent_that_is_named_makes_a_branch_and_the_newest_goes_on(
    any_redis: Redis,
) -> None:
    for name in "ab":
        await placed(any_redis, "c", name)
        await passed(any_redis, "c", name)
    assert (await placed(any_redis, "c", "d", parent_id="a")).parent_id == "a"
    assert (await placed(any_redis, "c", "e")).parent_id == "d"


async def test_placing_again_gives_the_first_answer_whatever_came_since(any_redis: Redis) -> None:
    await placed(any_redis, "c", "a")
    first = await placed(any_redis, "c", "b")
    await placed(any_redis, "c", "d")
    await passed(any_redis, "c", "a")
    for if_busy in IfBusy:
        again = await placed(any_redis, "c", "b", if_busy)
        assert again == first._replace(first="b")
    assert await order(any_redis, "c") == ["b", "d"]
    assert (await placed(any_redis, "c", "e")).parent_id == "d"


async def test_passing_twice_gives_the_present_first_and_takes_nobody_elses_turn(
    any_redis: Redis,
) -> None:
    for name in "abc":
        await placed(any_redis, "c", name)
    assert [await passed(any_redis, "c", "a") for _ in range(3)] == ["b", "b", "b"]
    assert await order(any_redis, "c") == ["b", "c"]


async def test_one_that_waits_is_passed_without_touching_the_first(any_redis: Redis) -> None:
    for name in "abc":
        await placed(any_redis, "c", name)
    assert await passed(any_redis, "c", "b") == "a"
    assert await passed(any_redis, "c", "a") == "c"


async def test_an_interrupt_has_the_next_turn_before_those_that_wait(any_redis: Redis) -> None:
    for name in "abc":
        await placed(any_redis, "c", name)
    told = await placed(any_redis, "c", "i", IfBusy.INTERRUPT)
    assert told == Placed("a", "a", "c")
    assert await order(any_redis, "c") == ["a", "i", "b", "c"]
    await placed(any_redis, "c", "j", IfBusy.INTERRUPT)
    assert await order(any_redis, "c") == ["a", "j", "i", "b", "c"]
    await passed(any_redis, "c", "a")
    await placed(any_redis, "c", "k", IfBusy.INTERRUPT)
    assert await order(any_redis, "c") == ["j", "k", "i", "b", "c"]


async def test_hundreds_of_interrupts_keep_their_order(any_redis: Redis) -> None:
    await placed(any_redis, "c", "first")
    for n in range(300):
        await placed(any_redis, "c", f"{n}", IfBusy.INTERRUPT)
    assert await order(any_redis, "c") == ["first", *(f"{n}" for n in reversed(range(300)))]


async def test_an_interrupt_of_nothing_is_first(any_redis: Redis) -> None:
    assert await placed(any_redis, "c", "a", IfBusy.INTERRUPT) == Placed("a", None, None)


async def test_a_reject_names_the_first_and_leaves_nothing(any_redis: Redis) -> None:
    await placed(any_redis, "c", "a")
    await placed(any_redis, "c", "b")
    with pytest.raises(Busy) as raised:
        await placed(any_redis, "c", "d", IfBusy.REJECT)
    assert raised.value.active_message_id == "a"
    assert await order(any_redis, "c") == ["a", "b"]
    assert (await placed(any_redis, "c", "e")).parent_id == "b"


async def test_a_conversation_is_its_owners_alone(any_redis: Redis) -> None:
    with pytest.raises(NotFound):
        await placed(any_redis, "c", "a", make=False)
    assert await any_redis.keys("*") == []
    await placed(any_redis, "c", "a")
    for make in (False, True):
        with pytest.raises(NotFound):
            await placed(any_redis, "c", "b", owner="another", make=make)
    assert await order(any_redis, "c") == ["a"]
    assert await deleted.owner_of(any_redis, "c") == "me"
    assert await deleted.owner_of(any_redis, "d") is None


async def test_a_conversation_known_elsewhere_goes_on_after_its_newest(any_redis: Redis) -> None:
    assert (await placed(any_redis, "c", "b", newest="a")).parent_id == "a"
    assert (await placed(any_redis, "c", "d", newest="a")).parent_id == "b"


async def test_every_step_renews_both_keys(any_redis: Redis) -> None:
    async def ask() -> object:
        return await turns.first(any_redis, "c", life_seconds=LIFE)

    async def pass_one() -> object:
        return await passed(any_redis, "c", "a")

    await placed(any_redis, "c", "a")
    steps: Sequence[Callable[[], Awaitable[object]]] = (
        lambda: placed(any_redis, "c", "a"),
        lambda: placed(any_redis, "c", "b"),
        ask,
        pass_one,
    )
    for step in steps:
        for key in (keys.turns("c"), keys.conversation("c")):
            await any_redis.expire(key, 5)
        await step()
        for key in (keys.turns("c"), keys.conversation("c")):
            assert 5 < await any_redis.ttl(key) <= LIFE
    await passed(any_redis, "c", "b")
    assert await any_redis.keys("*") == [keys.conversation("c").encode()]


async def test_what_was_told_is_kept_no_longer_than_the_turn(any_redis: Redis) -> None:
    for n in range(50):
        await placed(any_redis, "c", f"{n}")
        await passed(any_redis, "c", f"{n}")
    held = await cast(Awaitable[dict[bytes, bytes]], any_redis.hgetall(keys.conversation("c")))
    assert held == {b"owner": b"me", b"newest": b"49"}


async def test_what_a_message_waits_for(any_redis: Redis) -> None:
    for name in "abc":
        await placed(any_redis, "c", name)
    seen = [await turns.waiting(any_redis, "c", name) for name in "abcx"]
    assert seen == [None, Waiting("a", 1), Waiting("a", 2), None]


async def test_many_at_once_are_each_placed_once_one_after_another(redis: Redis) -> None:
    await asyncio.gather(*(placed(redis, "c", f"{n % 20}") for n in range(100)))
    in_order = await order(redis, "c")
    assert sorted(in_order, key=int) == [f"{n}" for n in range(20)]
    told = [await placed(redis, "c", name) for name in in_order]
    assert [each.parent_id for each in told] == [None, *in_order[:-1]], "a path without a cycle"


REQUEST = StoredRequest("demo/echo", [])


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_first_message_is_placed_and_stored_in_one_call(
    any_redis: Redis, forgotten: bool
) -> None:
    new = new_record(owner="me")
    at = await queue.index(any_redis, new.message_id, most_due=10)
    for _ in range(2):
        if forgotten:
            await any_redis.script_flush()
        await turns.accept_in_new(any_redis, new, REQUEST, indexed_at=at, life_seconds=LIFE)
    assert await order(any_redis, new.conversation_id) == [new.message_id]
    assert await record.load(any_redis, new.message_id) == new


async def test_a_stored_message_is_told_whose_turn_it_is_now(any_redis: Redis) -> None:
    new = new_record(conversation_id="c", owner="me")
    at = await queue.index(any_redis, new.message_id, most_due=10)
    await placed(any_redis, "c", "a")
    await placed(any_redis, "c", new.message_id)
    told = await turns.accept(any_redis, new, REQUEST, indexed_at=at, life_seconds=LIFE)
    assert told == "a"
    await passed(any_redis, "c", "a")
    told = await turns.accept(any_redis, new, REQUEST, indexed_at=at, life_seconds=LIFE)
    assert told == new.message_id


async def test_one_that_is_late_is_not_stored(any_redis: Redis) -> None:
    new = new_record(conversation_id="c", owner="me")
    for accept in (turns.accept, turns.accept_in_new):
        with pytest.raises(Unavailable):
            await accept(any_redis, new, REQUEST, indexed_at=1, life_seconds=LIFE)
    assert await record.load(any_redis, new.message_id) is None
