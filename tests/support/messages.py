"""Messages in Redis without an API and without a worker: accepted, claimed and written by hand."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis

from rejoin.shared import accepting, keys, log, queue, record, turns
from rejoin.shared.clock import now_ms
from rejoin.shared.events import Done, Event, FinishReason, Start, Text, Usage
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId, new_message_id
from rejoin.shared.record import Claim, Record, Status
from rejoin.shared.request import StoredRequest, StoredTurn

LIFE: Final = 600  # seconds that a test's keys live
TEXT: Final = "one two three"
MODEL: Final = "demo/echo?rate=0"


async def accept(
    redis: Redis,
    text: str = TEXT,
    *,
    model: str = MODEL,
    message_id: str | None = None,
    owner: str = "",
    conversation_id: str | None = None,
    **fields: Any,
) -> str:
    """Index, place and store a message as an accept does, without queueing it; its id.

    `conversation_id` None: it begins one. `fields` are the request's others.
    """
    new = new_record(message_id, conversation_id, model=model, owner=owner)
    indexed_at = await queue.index(redis, new.message_id, most_due=100_000)
    request = StoredRequest(model, [StoredTurn("user", text)], **fields)
    await turns.place_again(redis, new, life_seconds=LIFE)
    await accepting.store(redis, new, request, indexed_at=indexed_at, life_seconds=LIFE)
    return new.message_id


def new_record(
    message_id: str | None = None,
    conversation_id: str | None = None,
    *,
    model: str = MODEL,
    owner: str = "",
) -> Record:
    """The record of a message that is accepted now; new ids where none are given."""
    return Record(
        message_id=message_id or new_message_id(),
        owner=owner,
        conversation_id=conversation_id or new_message_id(),
        model=model,
        created_at=now_ms(),
        status=Status.QUEUED,
        attempt=0,
        worker=None,
        cancel_asked=False,
        started_at=None,
        finished_at=None,
    )


async def enqueue(redis: Redis, message_id: str) -> bool:
    """Queue a message's job."""
    return await queue.enqueue(redis, message_id, life_seconds=LIFE, now_ms=now_ms())


async def post(redis: Redis, text: str = TEXT, *, model: str = MODEL, **fields: Any) -> str:
    """Accept a message and queue it; its id."""
    message_id = await accept(redis, text, model=model, **fields)
    await enqueue(redis, message_id)
    return message_id


async def claim(redis: Redis, message_id: str, token: str, *, seen: int = 0) -> Claim:
    """Claim a message as the worker `w-<token>`."""
    return await record.claim(
        redis,
        message_id,
        token=token,
        worker_id=f"w-{token}",
        life_seconds=LIFE,
        seen_attempt=seen,
    )


def start(message_id: str, attempt: int = 1) -> Event:
    """A `start`."""
    return Start(message_id, "c", MODEL, attempt, "2026-11-21T09:30:00.125Z")


def end(reason: FinishReason = FinishReason.STOP) -> list[Event]:
    """The last two events of a message."""
    return [Usage(), Done(reason, 0)]


def batch(
    message_id: str,
    claimed: Claim,
    first: int,
    events: Sequence[Event | str],
    *,
    ending: str = "",
    life: int = LIFE,
    private: bytes = b"",
) -> log.Batch:
    """A batch of one attempt; a plain string is a `text`."""
    frames = []
    for sequence, event in enumerate(events, first):
        event_id = EventId(claimed.attempt, sequence)
        told = Text(event) if isinstance(event, str) else event
        frames.append(Frame(event_id, encode(event_id, told), private))
    return log.Batch(message_id, claimed.token, frames, life, ending)


async def ids(redis: Redis, message_id: str) -> list[str]:
    """The ids of the whole log."""
    return [str(frame.id) for frame in await log.read_all(redis, message_id)]


async def texts(redis: Redis, message_id: str) -> list[bytes]:
    """The bytes of the whole log, event by event."""
    return [frame.data for frame in await log.read_all(redis, message_id)]


class Place(NamedTuple):
    """Where a message's job stands: its score less Redis' clock in ms, and whose it is."""

    due_in_ms: float | None
    owner: bytes | None
    indexed: bool


async def place(redis: Redis, message_id: str) -> Place:
    """Read it."""
    seconds, micros = cast(tuple[int, int], await redis.time())
    score = await redis.zscore(keys.QUEUE, message_id)
    owner = await cast(Awaitable[bytes | None], redis.hget(keys.OWNERS, message_id))
    indexed = await redis.zscore(keys.OPEN, message_id) is not None
    now = seconds * 1000 + micros // 1000
    return Place(None if score is None else score - now, owner, indexed)


async def until(
    seen: Callable[[], Awaitable[bool]], *, within: float = 10, every: float = 0.01
) -> None:
    """Wait until `seen()`; TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not await seen():  # noqa: ASYNC110  another process sets no event of ours
            await asyncio.sleep(every)


async def until_true(seen: Callable[[], bool], *, within: float = 10) -> None:
    """Wait until `seen()`, of something in this process; TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not seen():  # noqa: ASYNC110  what is looked at sets no event
            await asyncio.sleep(0.005)
