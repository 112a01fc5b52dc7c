"""Whose turn it is in a conversation: one message runs, the others wait behind it in their order.

A message has its turn from its place until it is passed on, after its end. `first_open` passes on
what nobody else will: a message that ended, or one that was never accepted.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, cast

from redis.asyncio import Redis

from rejoin.shared import accepting, dropped, keys, queue, record, scripts
from rejoin.shared.clock import now_ms
from rejoin.shared.connections import redis_or_away
from rejoin.shared.errors import Busy, NotFound
from rejoin.shared.record import Record
from rejoin.shared.request import StoredRequest


class IfBusy(StrEnum):
    """What becomes of a message whose conversation has another one that is not ended."""

    ENQUEUE = "enqueue"
    INTERRUPT = "interrupt"
    REJECT = "reject"


class Placed(NamedTuple):
    """A message's place: whose turn it is, whose it was when it was placed, and its parent."""

    first: str
    first_before: str | None
    parent_id: str | None


class Waiting(NamedTuple):
    """The message whose turn it is, and how many are before one that waits for its own."""

    first: str
    position: int


async def place(
    redis: Redis,
    conversation_id: str,
    message_id: str,
    *,
    owner: str,
    if_busy: IfBusy,
    parent_id: str | None,
    life_seconds: int,
    make: bool = False,
    newest: str | None = None,
) -> Placed:
    """Place a message; a repeat gets the first answer again.

    `parent_id` None: after the newest message. `make`: the conversation is made where Redis has
    none, with `newest` as its newest message.

    Raises:
        NotFound: there is no such conversation, or it is another owner's.
        Busy: it has an open message, and `if_busy` says to refuse then.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    call = _placing(
        conversation_id,
        message_id,
        owner=owner,
        how=if_busy,
        parent_id=parent_id,
        life_seconds=life_seconds,
        make=make,
        newest=newest,
    )
    with redis_or_away():
        return _placed(await scripts.run(redis, *call))


async def place_again(redis: Redis, found: Record, *, life_seconds: int) -> Placed:
    """Place an accepted message that has its place already, or lost it with Redis' newest writes.

    Raises:
        NotFound: the conversation is another owner's by now: it never was this message's.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    call = _placing(
        found.conversation_id,
        found.message_id,
        owner=found.owner,
        how="again",
        parent_id=None,
        life_seconds=life_seconds,
        make=True,
        newest=None,
    )
    with redis_or_away():
        return _placed(await scripts.run(redis, *call))


async def accept(
    redis: Redis, new: Record, request: StoredRequest, *, indexed_at: int, life_seconds: int
) -> str:
    """Store a message that is placed, then ask whose turn it is, in one round trip.

    Raises:
        Unavailable: the index entry is too old by now: accept the message anew.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    calls = [
        accepting.storing(new, request, indexed_at=indexed_at, life_seconds=life_seconds),
        asking(new.conversation_id, life_seconds),
    ]
    with redis_or_away():
        stored, first = await scripts.run_all(redis, calls)
    accepting.check(stored)
    return cast(bytes, first).decode()


async def accept_in_new(
    redis: Redis, new: Record, request: StoredRequest, *, indexed_at: int, life_seconds: int
) -> None:
    """Place, store and queue the first message of a conversation that nobody else knows of.

    In one round trip, so it is queued too where it was not stored: a job without a record is put
    off until its index entry is too old, and one without a turn until the reaper has placed it.

    Raises:
        Unavailable: the index entry is too old by now: accept the message anew.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    placing = _placing(
        new.conversation_id,
        new.message_id,
        owner=new.owner,
        how=IfBusy.ENQUEUE,
        parent_id=None,
        life_seconds=life_seconds,
        make=True,
        newest=None,
    )
    storing = accepting.storing(new, request, indexed_at=indexed_at, life_seconds=life_seconds)
    queueing = queue.enqueueing(
        new.message_id,
        life_seconds=life_seconds,
        now_ms=now_ms(),
        conversation_id=new.conversation_id,
    )
    with redis_or_away():
        _, stored, _ = await scripts.run_all(redis, [placing, storing, queueing])
    accepting.check(stored)


async def first(redis: Redis, conversation_id: str, *, life_seconds: int) -> str:
    """Return the message whose turn it is, or an empty string.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        reply = await scripts.run(redis, *asking(conversation_id, life_seconds))
    return cast(bytes, reply).decode()


async def let_live(redis: Redis, conversation_ids: Iterable[str], *, life_seconds: int) -> None:
    """Let these conversations' turns live so long from now, in one round trip.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        for conversation_id in conversation_ids:
            pipeline.expire(keys.turns(conversation_id), life_seconds)
            pipeline.expire(keys.conversation(conversation_id), life_seconds)
        await pipeline.execute()


async def pass_on(redis: Redis, conversation_id: str, message_id: str, *, life_seconds: int) -> str:
    """Take an ended message out; return whose turn it is then, or an empty string.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        reply = await scripts.run(
            redis,
            "conversation/pass",
            [keys.turns(conversation_id), keys.conversation(conversation_id)],
            [message_id, life_seconds * 1000],
        )
    return cast(bytes, reply).decode()


async def first_open(
    redis: Redis, conversation_id: str, first: str, *, life_seconds: int
) -> tuple[str, Record | None]:
    """Pass on `first`, and those after it, as long as nobody will run them.

    Those are the ended ones, whose worker or API died before it passed its turn, and those without
    record and index entry, which were never accepted and are dropped. The one whose turn came so is
    queued. Returns whose turn it is then, and its record: an empty string and None where nobody is
    left.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    passed = False
    while first:
        found = await record.load(redis, first)
        # One that is indexed and has no record: its accept is under way, within a bound.
        if not found.ended if found is not None else await queue.is_indexed(redis, first):
            if passed:
                await queue.enqueue(
                    redis,
                    first,
                    life_seconds=life_seconds,
                    now_ms=now_ms(),
                    conversation_id=conversation_id,
                )
            return first, found
        take_out = pass_on if found is not None else dropped.drop
        first = await take_out(redis, conversation_id, first, life_seconds=life_seconds)
        passed = True
    return "", None


async def waiting(redis: Redis, conversation_id: str, message_id: str) -> Waiting | None:
    """Return what an open message waits for; None where it is its turn, or it has none.

    Raises:
        LogUnavailable: Redis is away.
    """
    name = keys.turns(conversation_id)
    with redis_or_away():
        pipeline = redis.pipeline(transaction=True)
        pipeline.zrank(name, message_id)
        pipeline.zrange(name, 0, 0)
        position, ahead = cast(tuple[int | None, list[bytes]], await pipeline.execute())
    return Waiting(ahead[0].decode(), position) if position else None


async def order(redis: Redis, conversation_id: str) -> list[str]:
    """Return the messages that have a turn, the one whose turn it is first.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        placed = await redis.zrange(keys.turns(conversation_id), 0, -1)
    return [message_id.decode() for message_id in cast(list[bytes], placed)]


def _placing(
    conversation_id: str,
    message_id: str,
    *,
    owner: str,
    how: str,
    parent_id: str | None,
    life_seconds: int,
    make: bool,
    newest: str | None,
) -> scripts.Call:
    return scripts.Call(
        "conversation/place",
        [keys.turns(conversation_id), keys.conversation(conversation_id)],
        [
            message_id,
            owner,
            how,
            life_seconds * 1000,
            parent_id or "",
            int(make),
            newest or "",
        ],
    )


def asking(conversation_id: str, life_seconds: int) -> scripts.Call:
    """The call of `first`, to be sent with others in one round trip."""
    names = [keys.turns(conversation_id), keys.conversation(conversation_id)]
    return scripts.Call("conversation/head", names, [life_seconds * 1000])


def _placed(reply: object) -> Placed:
    status, first, first_before, parent_id = (
        word.decode() for word in cast(tuple[bytes, bytes, bytes, bytes], reply)
    )
    if status == "unknown":
        raise NotFound("no such conversation")
    if status == "busy":
        raise Busy(first)
    return Placed(first, first_before or None, parent_id or None)
