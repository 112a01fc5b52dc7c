"""The queue of messages to run, on arq's sorted set, and the index of open messages.

A score is the time in ms from which a job may be claimed, written and compared by Redis' clock
alone. A running job's score is its lease's end, so it vanishes from every poll and comes back by
itself when its worker dies.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, cast

from redis.asyncio import Redis

from rejoin.shared import jobs, keys, scripts
from rejoin.shared.connections import redis_or_away
from rejoin.shared.errors import OverLimit

_MOST_WAKE_TOKENS: Final = 1000
_FIRST_SAVE_MS: Final = 250  # an answer that ends sooner is saved once instead of twice
_RECORD_WITHIN_SECONDS: Final = 60  # twice what an accept may take


async def index(redis: Redis, message_id: str, *, most_due: int) -> int:
    """Index a message as open and unsaved; return the entry's time in ms. A repeat keeps it.

    Raises:
        OverLimit: `most_due` messages are due and not running.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        indexed = cast(
            int,
            await scripts.run(
                redis,
                "queue/index",
                [keys.QUEUE, keys.OPEN, keys.UNSAVED],
                [message_id, most_due, _FIRST_SAVE_MS],
            ),
        )
    if indexed < 0:
        raise OverLimit("too many messages wait for a worker", retry_after_seconds=2)
    return indexed


async def is_indexed(redis: Redis, message_id: str) -> bool:
    """Whether a message is in the index: of one without a record, its accept may be under way.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        return await redis.zscore(keys.OPEN, message_id) is not None


async def drop_index(redis: Redis, message_id: str) -> None:
    """Take an ended message out of the index, the last thing done for it.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        await redis.zrem(keys.OPEN, message_id)


async def enqueue(
    redis: Redis, message_id: str, *, life_seconds: int, now_ms: int, conversation_id: str = ""
) -> bool:
    """Queue the message's job and wake a worker; False where it was queued or running already.

    Its worker is told the conversation where the caller knows it, and else has to ask.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    call = enqueueing(
        message_id, life_seconds=life_seconds, now_ms=now_ms, conversation_id=conversation_id
    )
    with redis_or_away():
        return bool(await scripts.run(redis, *call))


def enqueueing(
    message_id: str, *, life_seconds: int, now_ms: int, conversation_id: str
) -> scripts.Call:
    """The call of `enqueue`, to be sent with others in one round trip."""
    # arq, and so an older worker, passes over a field that it does not know.
    fields: dict[str, object] = {"t": None, "f": jobs.FUNCTION, "a": [message_id], "k": {}}
    job = jobs.encode(fields | {"et": now_ms, "conversation_id": conversation_id})
    names = [keys.QUEUE, keys.job(message_id), keys.WAKE]
    return scripts.Call(
        "queue/enqueue", names, [message_id, job, life_seconds * 1000, _MOST_WAKE_TOKENS]
    )


async def lease(
    redis: Redis, *, token: str, lease_seconds: float, most: int, take_over: bool
) -> dict[str, bytes]:
    """Take up to `most` due jobs under `token` for `lease_seconds`.

    Returns message ids with their jobs as stored (empty where one is gone), the longest due first.
    `take_over` False leaves jobs alone whose lease of another worker has expired.

    Raises:
        LogUnavailable: Redis is away. Jobs named by a lost reply come back with their lease's end.
    """
    with redis_or_away():
        taken = await scripts.run(
            redis,
            "queue/lease",
            [keys.QUEUE, keys.OWNERS, keys.WAKE],
            [token, int(lease_seconds * 1000), most, int(take_over), keys.job("")],
        )
    names, stored = cast(Sequence[bytes], taken)[::2], cast(Sequence[bytes], taken)[1::2]
    return {name.decode(): job for name, job in zip(names, stored, strict=True)}


async def renew(redis: Redis, leases: Mapping[str, str], *, lease_seconds: float) -> list[str]:
    """Renew leases, message id to token, in one call; return those that are lost.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    arguments: list[str | int] = [int(lease_seconds * 1000)]
    for message_id, token in leases.items():
        arguments += [message_id, token]
    with redis_or_away():
        lost = await scripts.run(redis, "queue/renew", [keys.QUEUE, keys.OWNERS], arguments)
    return [message_id.decode() for message_id in cast(Sequence[bytes], lost)]


async def release(
    redis: Redis, message_id: str, token: str, *, delay_ms: int = 0, due_ms: int = 0
) -> bool:
    """Give a job back, due in `delay_ms`; False where it was not the caller's (any more).

    Not before `due_ms` by Redis' clock, either. One that was woken meanwhile is due at once.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        return bool(
            await scripts.run(
                redis,
                "queue/release",
                [keys.QUEUE, keys.OWNERS, keys.WAKE],
                [message_id, token, delay_ms, due_ms, _MOST_WAKE_TOKENS],
            )
        )


async def wake(redis: Redis, message_id: str) -> bool:
    """Let a job that is put off be due at once; False where it runs, and is due when given back.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        return bool(
            await scripts.run(
                redis,
                "queue/wake",
                [keys.QUEUE, keys.OWNERS, keys.WAKE, keys.WAKING],
                [message_id, _MOST_WAKE_TOKENS],
            )
        )


async def put_off(redis: Redis, message_id: str, token: str) -> None:
    """Give back a job whose message has no record: due again in a second, or gone for good.

    Its accept may still be under way, within a bound; a record that is gone after that is gone.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        indexed = await redis.zscore(keys.OPEN, message_id)
        seconds, _ = cast(tuple[int, int], await redis.time())
    if indexed is not None and seconds - indexed / 1000 < _RECORD_WITHIN_SECONDS:
        await release(redis, message_id, token, delay_ms=1000)
    elif await complete(redis, message_id, token):
        await drop_index(redis, message_id)


async def is_due(redis: Redis, message_id: str) -> bool:
    """Whether the job waits for a worker: handed over, or its worker's lease has ended.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        from_ms = await redis.zscore(keys.QUEUE, message_id)
        seconds, microseconds = cast(tuple[int, int], await redis.time())
    return from_ms is not None and from_ms <= seconds * 1000 + microseconds // 1000


async def complete(redis: Redis, message_id: str, token: str = "") -> bool:
    """Take a job off the queue for good, to be saved; False where it is another's.

    Without a token: only where nobody runs it.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        return bool(
            await scripts.run(
                redis,
                "queue/complete",
                [
                    keys.QUEUE,
                    keys.OWNERS,
                    keys.job(message_id),
                    keys.job_tries(message_id),
                    keys.UNSAVED,
                ],
                [message_id, token],
            )
        )


async def unqueued(redis: Redis, rank: int, count: int) -> tuple[int, list[tuple[str, int]]]:
    """Look at `count` open messages from `rank` on, the oldest first.

    Returns how many there were, and those without a job, each with its index entry's time in ms.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        reply = await scripts.run(redis, "queue/unqueued", [keys.OPEN, keys.QUEUE], [rank, count])
    looked, *found = cast(list[bytes], reply)
    pairs = zip(found[::2], found[1::2], strict=True)
    return int(looked), [(message_id.decode(), int(float(at))) for message_id, at in pairs]


async def long_put_off(redis: Redis, seconds: float, rank: int, count: int) -> list[str]:
    """Return `count` messages from `rank` on whose jobs are due in more than `seconds`.

    Where that is a lease nobody runs them.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        now, _ = cast(tuple[int, int], await redis.time())
        later = f"({(now + 1 + seconds) * 1000}"
        found = await redis.zrangebyscore(keys.QUEUE, later, "+inf", start=rank, num=count)
    return [message_id.decode() for message_id in cast(Sequence[bytes], found)]


async def let_jobs_live(redis: Redis, message_ids: Sequence[str], *, life_seconds: int) -> None:
    """Let these messages' jobs live so long from now, in one round trip.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        for message_id in message_ids:
            pipeline.expire(keys.job(message_id), life_seconds)
        await pipeline.execute()


async def take_turn(redis: Redis, name: str, who: str, *, seconds: float) -> bool:
    """Whether it is the caller's turn at what only one process does; it then keeps the turn.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        return bool(await scripts.run(redis, "queue/turn", [name], [who, int(seconds * 1000)]))


async def wait_for_token(redis: Redis, seconds: float) -> bool:
    """Pop a wake token, waiting for one; False after `seconds` without.

    `redis` needs a socket time-out above `seconds`.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        popped = redis.execute_command("BLPOP", keys.WAKE, seconds)  # type: ignore[no-untyped-call]
        return await cast(Awaitable[object], popped) is not None
