"""Taking a message in: once, whatever breaks between two steps."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from rejoin.api import accept
from rejoin.api.bounds import redis_answers
from rejoin.api.context import Context
from rejoin.api.history import KnownMessage, NoHistory
from rejoin.api.offer import Accepted, Offer, WaitingFor
from rejoin.shared import deleted, dropped, idempotency, keys, queue, record, scripts, stored, turns
from rejoin.shared.ending import Ender, end_message
from rejoin.shared.errors import BadRequest, Conflict, OverLimit, Unavailable
from rejoin.shared.ids import is_message_id
from rejoin.shared.record import Status
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.turns import IfBusy

REQUEST = StoredRequest("demo/echo", [StoredTurn("user", "hi")])
KEYED = Offer("local", REQUEST, "key", "digest", resumes=False)
UNKEYED = replace(KEYED, key=None, digest="")
NAME = idempotency.key_name("local", "key")
CONVERSATION = "01980000-0000-7000-8000-000000000001"  # known, and nothing runs in it
ENDED = "01980000-0000-7000-8000-000000000002"  # the newest of it
IN_KNOWN = replace(KEYED, conversation_id=CONVERSATION)
STEPS = {
    "new": ("reserve", "index", "place", "accept", "enqueue", "confirm"),
    "known": ("reserve", "index", "place", "accept", "first", "enqueue", "confirm"),
}
EVERY_STEP = [
    pytest.param(offer, step, id=f"{how}-{step}")
    for how, offer in (("new", KEYED), ("known", IN_KNOWN))
    for step in STEPS[how]
]


class Crash(BaseException):
    """The process dies here."""


class Breaking:
    """A Redis at whose n-th script the process dies: before it is sent, or before its reply."""

    def __init__(self, redis: Redis, at: int, *, sent: bool) -> None:
        self._redis = redis
        self._left = at
        self._sent = sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    async def evalsha(self, *arguments: Any) -> object:
        """Run a script, or die."""
        self._left -= 1
        if self._left == 0 and not self._sent:
            raise Crash
        reply = await cast(Any, self._redis).evalsha(*arguments)
        if self._left == 0:
            raise Crash
        return reply

    def pipeline(self, **_: Any) -> "Pipeline":
        """Scripts one after the other: the process may die between two of them."""
        return Pipeline(self)


class Pipeline:
    """The scripts of one round trip."""

    def __init__(self, redis: Breaking) -> None:
        self._redis = redis
        self._calls: list[tuple[Any, ...]] = []

    def execute_command(self, name: str, *arguments: Any) -> None:
        """Take a script."""
        assert name == "EVALSHA"
        self._calls.append(arguments)

    async def execute(self, **_: Any) -> list[object]:
        """Run them."""
        return [await self._redis.evalsha(*arguments) for arguments in self._calls]


@pytest.fixture(autouse=True)
async def _loaded(redis: Redis) -> None:
    names = ["owner/reserve", "owner/confirm", "queue/index", "queue/enqueue", "log/accept"]
    names += ["conversation/place", "conversation/head"]
    for name in names:
        await scripts.load(redis, name)


async def know_the_conversation(redis: Redis) -> None:
    """Make Redis know the conversation; one message of it has ended."""
    await turns.place(
        redis,
        CONVERSATION,
        ENDED,
        owner="local",
        if_busy=IfBusy.ENQUEUE,
        parent_id=None,
        life_seconds=60,
        make=True,
    )
    await turns.pass_on(redis, CONVERSATION, ENDED, life_seconds=60)


def over(context: Context, **settings: Any) -> Context:
    return replace(context, settings=context.settings.model_copy(update=settings))


async def crash(context: Context, step: str, *, sent: bool, offer: Offer = KEYED) -> None:
    how = "known" if offer is IN_KNOWN else "new"
    if how == "known":
        await know_the_conversation(context.redis)
    breaking = Breaking(context.redis, STEPS[how].index(step) + 1, sent=sent)
    with pytest.raises(Crash):
        await accept.accept(replace(context, redis=cast(Redis, breaking)), offer)


async def set_age(redis: Redis, seconds: int) -> None:
    created_at = int(cast(bytes, await cast(Any, redis.hget(NAME, "created_at"))))
    await cast(Any, redis.hset(NAME, "created_at", str(created_at - seconds * 1000)))


async def queued(redis: Redis) -> list[str]:
    return [name.decode() for name in await redis.zrange(keys.QUEUE, 0, -1)]


async def recorded(redis: Redis) -> list[str]:
    return [name.decode() for name in await redis.keys("rejoin:*:record")]


async def assert_one(redis: Redis, made: Accepted) -> None:
    assert await queued(redis) == [made.message_id]
    assert await recorded(redis) == [keys.record(made.message_id)]
    assert await redis.zrange(keys.OPEN, 0, -1) == [made.message_id.encode()]
    assert await redis.llen(keys.WAKE) == 1  # type: ignore[misc]
    assert await redis.zrange(keys.turns(made.conversation_id), 0, -1) == [made.message_id.encode()]


async def test_a_message_is_recorded_with_its_request_and_queued(context: Context) -> None:
    made = await accept.accept(context, UNKEYED)
    await assert_one(context.redis, made)
    found = await record.load(context.redis, made.message_id)
    assert found is not None
    assert (found.status, found.owner, found.model) == (Status.QUEUED, "local", "demo/echo")
    assert found.conversation_id == made.conversation_id
    stored = await record.load_request(context.redis, made.message_id)
    assert is_message_id(stored.turns[0].id)
    assert replace(stored, turns=[replace(stored.turns[0], id="")]) == REQUEST


async def test_the_next_of_a_conversation_comes_after_the_one_before(context: Context) -> None:
    first = await accept.accept(context, UNKEYED)
    in_it = replace(UNKEYED, conversation_id=first.conversation_id)
    second = await accept.accept(context, in_it)
    stored = await record.load_request(context.redis, second.message_id)
    assert stored.parent_id == first.message_id
    assert await queued(context.redis) == [first.message_id]
    assert second.waiting_for == WaitingFor(first.message_id, Status.QUEUED)


async def test_another_answer_has_the_same_turn_before_it_and_no_turns_of_its_own(
    context: Context,
) -> None:
    first = await accept.accept(context, UNKEYED)
    turn = (await record.load_request(context.redis, first.message_id)).turns[-1]
    again = StoredRequest("", [], regenerate=first.message_id)
    for _ in range(2):
        made = await accept.accept(context, replace(UNKEYED, request=again))
        stored = await record.load_request(context.redis, made.message_id)
        assert (stored.parent_id, stored.turns, stored.model) == (turn.id, [], "demo/echo")
        again = replace(again, regenerate=made.message_id)


async def test_turns_have_ids_in_their_order(context: Context) -> None:
    three = replace(REQUEST, turns=[StoredTurn("user", "x") for _ in range(3)])
    made = await accept.accept(context, replace(UNKEYED, request=three))
    ids = [turn.id for turn in (await record.load_request(context.redis, made.message_id)).turns]
    assert sorted({*ids, made.message_id}) == [*ids, made.message_id]


async def test_one_whose_predecessor_passed_while_it_was_stored_is_queued_all_the_same(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await accept.accept(context, UNKEYED)
    place = turns.place

    async def then_it_passes(redis: Redis, conversation_id: str, *more: Any, **how: Any) -> Any:
        placed = await place(redis, conversation_id, *more, **how)
        await turns.pass_on(redis, conversation_id, first.message_id, life_seconds=60)
        return placed  # its worker died before it queued the next one

    monkeypatch.setattr(turns, "place", then_it_passes)
    in_it = replace(UNKEYED, conversation_id=first.conversation_id)
    second = await accept.accept(context, in_it)
    assert second.message_id in await queued(context.redis)
    assert second.waiting_for is None


async def test_without_a_key_each_offer_is_a_message(context: Context) -> None:
    made = [await accept.accept(context, UNKEYED) for _ in range(2)]
    assert not any(each.again for each in made)
    assert sorted(await queued(context.redis)) == sorted(each.message_id for each in made)


async def test_a_key_sent_again_gives_the_first_answer(context: Context) -> None:
    first = await accept.accept(context, KEYED)
    again = await accept.accept(context, KEYED)
    assert again == replace(first, again=True)
    await assert_one(context.redis, first)


async def test_a_key_sent_ten_times_at_once_is_one_message(context: Context) -> None:
    made = await asyncio.gather(*(accept.accept(context, KEYED) for _ in range(10)))
    assert len({each.message_id for each in made}) == 1
    assert sum(not each.again for each in made) == 1
    await assert_one(context.redis, made[0])


async def test_a_key_with_another_body_is_refused_and_the_first_stays(context: Context) -> None:
    first = await accept.accept(context, KEYED)
    with pytest.raises(Conflict):
        await accept.accept(context, replace(KEYED, digest="other"))
    await assert_one(context.redis, first)


async def test_a_key_of_another_owner_is_another_key(context: Context) -> None:
    first = await accept.accept(context, KEYED)
    other = await accept.accept(context, replace(KEYED, owner="another", digest="other"))
    assert other.message_id != first.message_id


@pytest.mark.parametrize("sent", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("offer", "step"), EVERY_STEP)
async def test_a_retry_finishes_what_a_crash_left(
    context: Context, offer: Offer, step: str, sent: bool
) -> None:
    await crash(context, step, sent=sent, offer=offer)
    made = await accept.accept(context, offer)
    await assert_one(context.redis, made)
    assert await accept.accept(context, offer) == replace(made, again=True)
    await assert_one(context.redis, made)


@pytest.mark.parametrize("sent", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("offer", "step"), EVERY_STEP)
async def test_many_retries_at_once_after_a_crash_are_one_message(
    context: Context, offer: Offer, step: str, sent: bool
) -> None:
    await crash(context, step, sent=sent, offer=offer)
    made = await asyncio.gather(*(accept.accept(context, offer) for _ in range(5)))
    assert len({each.message_id for each in made}) == 1
    await assert_one(context.redis, made[0])


async def test_a_message_that_ended_before_the_retry_is_not_queued_again(context: Context) -> None:
    await crash(context, "confirm", sent=False)
    (message_id,) = await queued(context.redis)
    await end_message(Ender(context.redis, "test", 60), message_id)
    assert await queued(context.redis) == []
    assert (await accept.accept(context, KEYED)).message_id == message_id
    assert await queued(context.redis) == []


async def test_a_running_message_stays_its_workers(context: Context) -> None:
    await crash(context, "confirm", sent=False)
    (message_id,) = await queue.lease(
        context.redis, token="t", lease_seconds=5, most=1, take_over=True
    )
    leased_till = await context.redis.zscore(keys.QUEUE, message_id)
    await record.claim(context.redis, message_id, token="t", worker_id="w", life_seconds=60)
    assert (await accept.accept(context, KEYED)).message_id == message_id
    assert await context.redis.zscore(keys.QUEUE, message_id) == leased_till


async def test_a_key_that_led_to_nothing_for_long_names_a_new_message(context: Context) -> None:
    await crash(context, "index", sent=False)
    held = await idempotency.find(context.redis, NAME)
    await set_age(context.redis, 31)
    made = await asyncio.gather(*(accept.accept(context, KEYED) for _ in range(5)))
    assert len({each.message_id for each in made}) == 1
    assert held is not None
    assert made[0].message_id != held.use.message_id
    await assert_one(context.redis, made[0])


class Kept(NoHistory):
    """A history that has one message."""

    def __init__(self, message_id: str) -> None:
        self._id = message_id

    async def message(self, message_id: str) -> KnownMessage | None:
        """Know the one."""
        known = KnownMessage(CONVERSATION, "local", "assistant", None, "demo/echo")
        return known if message_id == self._id else None


async def outlived(context: Context) -> str:
    """Accept a message without noting it at its key, and let its log's life pass; its id."""
    await crash(context, "confirm", sent=False)
    (message_id,) = await queued(context.redis)
    await context.redis.delete(keys.QUEUE, keys.record(message_id), keys.request(message_id))
    await set_age(context.redis, context.settings.log_ttl_seconds + 1)
    return message_id


async def test_a_key_older_than_a_log_gives_the_first_answer_and_queues_nothing(
    context: Context,
) -> None:
    message_id = await outlived(context)
    saved = replace(context, history=Kept(message_id))
    assert (await accept.accept(saved, KEYED)).message_id == message_id
    assert await queued(context.redis) == []


async def test_a_key_whose_message_was_deleted_since_gives_the_first_answer_and_queues_nothing(
    context: Context,
) -> None:
    message_id = await outlived(context)
    held = await idempotency.find(context.redis, NAME)
    assert held is not None
    await deleted.mark(context.redis, held.use.conversation_id, "local", life_seconds=60)
    assert (await accept.accept(context, KEYED)).message_id == message_id
    assert await queued(context.redis) == []


@pytest.mark.parametrize("step", ["index", "place", "accept"])
async def test_a_key_older_than_a_log_that_led_to_nothing_names_a_new_message(
    context: Context, step: str
) -> None:
    await crash(context, step, sent=False)
    held = await idempotency.find(context.redis, NAME)
    await set_age(context.redis, context.settings.log_ttl_seconds + 1)
    made = await accept.accept(context, KEYED)
    assert held is not None
    assert made.message_id != held.use.message_id
    assert await recorded(context.redis) == [keys.record(made.message_id)]
    assert await queued(context.redis) == [made.message_id]


async def parent_of(context: Context, made: Accepted) -> str | None:
    known = await stored.load_with_request(context.redis, made.message_id)
    assert known is not None
    return known[1].parent_id


async def test_a_message_that_was_placed_and_never_accepted_is_nobodys_parent(
    context: Context,
) -> None:
    await crash(context, "accept", sent=False, offer=IN_KNOWN)
    await context.redis.delete(keys.OPEN)  # as the reaper does, a minute later
    unkeyed = replace(IN_KNOWN, key=None)
    behind = await accept.accept(context, unkeyed)
    assert behind.waiting_for is None
    never = await parent_of(context, behind)
    assert await dropped.standing(context.redis, CONVERSATION, never) == ENDED
    await end_message(Ender(context.redis, "api", 60), behind.message_id)
    later = await accept.accept(context, unkeyed)
    assert await parent_of(context, later) == behind.message_id


async def test_where_it_is_dropped_the_message_before_it_is_the_newest_again(
    context: Context,
) -> None:
    await crash(context, "accept", sent=False, offer=IN_KNOWN)
    await context.redis.delete(keys.OPEN)
    first = await turns.first(context.redis, CONVERSATION, life_seconds=60)
    assert await turns.first_open(context.redis, CONVERSATION, first, life_seconds=60) == ("", None)
    later = await accept.accept(context, replace(IN_KNOWN, key=None))
    assert await parent_of(context, later) == ENDED


async def test_a_full_queue_refuses_and_forgets_the_key(context: Context) -> None:
    with pytest.raises(OverLimit):
        await accept.accept(over(context, max_queue=0), KEYED)
    assert await context.redis.keys("*") == []
    made = await accept.accept(context, replace(KEYED, digest="other"))
    await assert_one(context.redis, made)


async def test_a_known_key_is_answered_by_a_full_queue_too(context: Context) -> None:
    first = await accept.accept(context, KEYED)
    full = over(context, max_queue=1)
    assert await accept.accept(full, KEYED) == replace(first, again=True)
    with pytest.raises(OverLimit):
        await accept.accept(full, replace(KEYED, key="late"))
    await assert_one(context.redis, first)


@pytest.mark.parametrize("key", [None, "unknown"])
async def test_resuming_what_is_not_known_is_refused_and_writes_nothing(
    context: Context, key: str | None
) -> None:
    with pytest.raises(BadRequest) as raised:
        await accept.accept(context, replace(KEYED, key=key, resumes=True))
    assert raised.value.status == 400
    assert await context.redis.keys("*") == []


async def test_resuming_finds_the_keys_message(context: Context) -> None:
    first = await accept.accept(context, KEYED)
    resuming = replace(KEYED, resumes=True)
    assert await accept.accept(context, resuming) == replace(first, again=True)
    with pytest.raises(Conflict):
        await accept.accept(context, replace(resuming, digest="other"))
    await assert_one(context.redis, first)


async def test_a_redis_that_does_not_answer_is_unavailable(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(Breaking):
        async def evalsha(self, *arguments: Any) -> object:
            return await asyncio.get_running_loop().create_future()

    silent = cast(Redis, Silent(context.redis, 0, sent=False))
    monkeypatch.setattr(accept, "redis_answers", partial(redis_answers, 0.01))
    with pytest.raises(Unavailable):
        await accept.accept(replace(context, redis=silent), UNKEYED)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1.0}),
        ({"a": 0}, {"a": -0.0}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}),
    ],
)
def test_equal_json_has_one_digest(one: object, other: object) -> None:
    assert accept.digest_of(one) == accept.digest_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": None}),
        ({"a": 1}, {"a": "1"}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": 1}, {"a": 1.5}),
        ({"a": "é"}, {"a": "e\u0301"}),
        ({}, {"a": None}),
    ],
)
def test_other_json_has_another_digest(one: object, other: object) -> None:
    assert accept.digest_of(one) != accept.digest_of(other)
