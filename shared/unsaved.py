"""Which messages the database lacks: marks in Redis, and the logs' life until they are saved.

A mark is set with a message's index entry and again with its end (lua/queue/index, complete). A
saver leases what is due, saves it, and takes the mark off unless a newer one came meanwhile.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away
from rejoin.shared.scripts import Call

_PAGE: Final = 500


class Lease(NamedTuple):
    """A message that is the caller's to save; `mark` is what Redis holds of the lease."""

    message_id: str
    mark: str


async def take(redis: Redis, *, lease_seconds: float, most: int) -> list[Lease]:
    """Lease up to `most` messages whose saving is due.

    Raises:
        LogUnavailable: Redis is away. What a lost reply named is due again with its lease's end.
    """
    with redis_or_away():
        reply = await scripts.run(
            redis, "queue/take_unsaved", [keys.UNSAVED], [int(lease_seconds * 1000), most]
        )
    words = [word.decode() for word in cast(Sequence[bytes], reply)]
    return [Lease(*pair) for pair in zip(words[::2], words[1::2], strict=True)]


async def saved(redis: Redis, leases: Sequence[Lease]) -> None:
    """Take marks off, but for those that are newer than the lease.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    await _settle(redis, leases, "")


async def saved_ended(
    redis: Redis, leases: Sequence[Lease], ended: Sequence[str], *, life_seconds: int
) -> None:
    """Take marks off, and let those messages that have `ended` live so long from now.

    In one round trip, the marks last: whatever is lost in between only saves them twice.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    settling = _settling(leases, "")
    with redis_or_away():
        await scripts.load_first(redis, [settling])
        pipeline = redis.pipeline(transaction=False)
        _let_live(pipeline, ended, life_seconds)
        scripts.add(pipeline, settling)
        replies = cast(list[object], await pipeline.execute(raise_on_error=False))
        if isinstance(replies[-1], NoScriptError):
            replies[-1] = await scripts.run(redis, *settling)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply


async def put_off(redis: Redis, leases: Sequence[Lease], *, seconds: float) -> None:
    """Give messages back, due in `seconds`; those with a newer mark stay due.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    await _settle(redis, leases, int(seconds * 1000))


async def _settle(redis: Redis, leases: Sequence[Lease], due_in_ms: str | int) -> None:
    if leases:
        with redis_or_away():
            await scripts.run(redis, *_settling(leases, due_in_ms))


def _settling(leases: Sequence[Lease], due_in_ms: str | int) -> Call:
    arguments: list[str | int] = [due_in_ms]
    for lease in leases:
        arguments += lease
    return Call("queue/settle_unsaved", [keys.UNSAVED], arguments)


async def let_live(redis: Redis, message_ids: Sequence[str], *, life_seconds: int) -> None:
    """Let all keys of these messages live so long from now, in one round trip.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        _let_live(pipeline, message_ids, life_seconds)
        await pipeline.execute()


async def let_open_live(redis: Redis, message_ids: Sequence[str], *, life_seconds: int) -> None:
    """Let those of these messages live so long from now that have not ended, in one round trip.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    calls = []
    for message_id in message_ids:
        log, record, *others = keys.of_message(message_id)
        calls.append(Call("log/let_live", [record, log, *others], [life_seconds * 1000]))
    with redis_or_away():
        await scripts.run_all(redis, calls)


def _let_live(pipeline: Pipeline, message_ids: Sequence[str], life_seconds: int) -> None:
    for message_id in message_ids:
        for name in keys.of_message(message_id):
            pipeline.expire(name, life_seconds)


async def remove_logs(redis: Redis, message_ids: Sequence[str]) -> None:
    """Remove all keys of these messages, and their marks.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        for message_id in message_ids:
            for name in keys.of_message(message_id):
                pipeline.unlink(name)
            pipeline.zrem(keys.UNSAVED, message_id)
        await pipeline.execute()


async def marked(redis: Redis) -> AsyncIterator[list[str]]:
    """Every marked message, a page at a time; one that is marked throughout is never missed.

    Raises:
        LogUnavailable: Redis is away.
    """
    cursor = 0
    while True:
        with redis_or_away():
            cursor, found = await redis.zscan(keys.UNSAVED, cursor, count=_PAGE)
        yield [message_id.decode() for message_id, _ in found]
        if cursor == 0:
            return
