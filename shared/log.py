"""The log: append a message's events to its Redis stream, and read them back in order."""

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from rejoin.shared import keys, scripts
from rejoin.shared.connections import means_away, redis_or_away
from rejoin.shared.errors import (
    CancelAsked,
    Fenced,
    LogEnded,
    LogRefused,
    LogWentBack,
    MessageMissing,
    RejoinError,
)
from rejoin.shared.frames import Frame, is_end
from rejoin.shared.ids import EventId

PAGE: Final = 500  # events a read: the socket's timeout spans a whole reply

_MOST: Final = 2**63
_KEYS: Final = 5  # of the append's script
_NOW: Final = 1  # how the script tells a cancel's mode; 0: none is set
_AFTER_STEP: Final = 2

_log = logging.getLogger(__name__)

_REFUSED: Final[dict[bytes, type[LogRefused]]] = {
    b"missing": MessageMissing,
    b"ended": LogEnded,
    b"fenced": Fenced,
    b"went_back": LogWentBack,
    b"cancel_asked": CancelAsked,
}

Entry = tuple[bytes, dict[bytes, bytes]]


class Batch(NamedTuple):
    """Events of one attempt for one append: no holes, not empty.

    `token` is the claim's. `ending` is how the batch's last event ends the message (`done`,
    `failed`, `cancelled`), `step` where it finishes a step and the message goes on, or empty;
    `life_seconds` is what the message's keys live from now. With an attempt's first events `after`
    is the last one that its worker found in the log (`-` for none; empty: whichever).
    """

    message_id: str
    token: str
    frames: Sequence[Frame]
    life_seconds: int
    ending: str = ""
    after: str = ""

    def command(self) -> list[str | int | bytes]:
        """The script's keys and arguments, after its digest and the number of keys."""
        first = self.frames[0].id
        message_id = self.message_id
        command: list[str | int | bytes] = [
            keys.log(message_id),
            keys.record(message_id),
            keys.live(message_id),
            keys.request(message_id),
            keys.answers(message_id),
            first.attempt,
            self.token,
            first.sequence,
            self.life_seconds * 1000,
            self.ending,
            self.after,
        ]
        for frame in self.frames:
            command += (frame.data, frame.private)
        return command


def found_last(newest: EventId | None) -> str:
    """How a batch's `after` spells the last event that its worker found."""
    return "-" if newest is None else str(newest)


class Appended(NamedTuple):
    """What an append tells: whether a cancel was asked for, and the bytes the log holds.

    `cancel_asked` is at once, `cancel_after_step` when the present step has ended.
    """

    cancel_asked: bool
    log_bytes: int
    cancel_after_step: bool = False


async def append(redis: Redis, batch: Batch) -> Appended:
    """Append and publish a batch in one step.

    Sent twice it is stored once, so after LogUnavailable send exactly the same batch again;
    after a LogRefused write nothing more, anywhere.

    Raises:
        MessageMissing, Fenced, LogEnded, LogWentBack, CancelAsked: see `LogRefused`.
        LogUnavailable: Redis is away, read-only or full.
    """
    (outcome,) = await append_all(redis, [batch])
    if isinstance(outcome, RejoinError):
        raise outcome
    return outcome


async def append_all(redis: Redis, batches: Sequence[Batch]) -> list[Appended | LogRefused]:
    """Append batches of several messages in one round trip; an outcome each, in their order.

    Raises:
        LogUnavailable: Redis is away, read-only or full: send all of them again.
    """
    with redis_or_away():
        replies = await _send(redis, batches)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            await scripts.load(redis, "log/append")
            replies = await _send(redis, batches)  # those that were stored say so again
        outcomes: list[Appended | LogRefused] = []
        for batch, reply in zip(batches, replies, strict=True):
            if isinstance(reply, Exception):
                if means_away(reply):
                    raise reply
                # A defect of ours, or a key that somebody spoilt: it ends this attempt alone.
                _log.error("the log of %s took nothing: %s", batch.message_id, reply)
                outcomes.append(LogRefused(batch.message_id))
                continue
            status, cancel, log_bytes = cast(tuple[bytes, int, int], reply)
            refused = _REFUSED.get(status)
            if refused is None:
                appended = Appended(cancel == _NOW, log_bytes, cancel == _AFTER_STEP)
                outcomes.append(appended)
            else:
                outcomes.append(refused(batch.message_id))
        return outcomes


async def _send(redis: Redis, batches: Sequence[Batch]) -> list[object]:
    digest = scripts.digest("log/append")
    pipeline = redis.pipeline(transaction=False)
    for batch in batches:
        pipeline.execute_command("EVALSHA", digest, _KEYS, *batch.command())
    return cast(list[object], await pipeline.execute(raise_on_error=False))


async def read(
    redis: Redis, message_id: str, after: EventId | None = None, limit: int = PAGE
) -> list[Frame]:
    """Return up to `limit` events later than `after` (None: all); [] if there are none yet.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        entries = cast(
            list[Entry],
            await redis.xrange(keys.log(message_id), _later_than(after), "+", count=limit),
        )
    return [frame_of(entry) for entry in entries]


async def read_all(redis: Redis, message_id: str, after: EventId | None = None) -> list[Frame]:
    """Return all events later than `after` (None: the whole log), page by page.

    Raises:
        LogUnavailable: Redis is away.
    """
    frames: list[Frame] = []
    while page := await read(redis, message_id, frames[-1].id if frames else after):
        frames += page
        if len(page) < PAGE:
            break
    return frames


class Page(NamedTuple):
    """One look at a log, for a tail.

    `owner` is the message's (None: no such message), `newest` its log's last event and `ended`
    whether that one ends it; `frames` are the clients' bytes of the events that were asked for
    and `last` is the id of the last one of them.
    """

    owner: str | None
    newest: EventId | None
    ended: bool
    frames: list[bytes]
    last: EventId | None


async def look(redis: Redis, message_id: str, after: EventId | None, limit: int = PAGE) -> Page:
    """Read a page and where the log ends, in one round trip and without decoding an event.

    Raises:
        LogUnavailable: Redis is away.
    """
    log = keys.log(message_id)
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        pipeline.hget(keys.record(message_id), "owner")
        pipeline.xrevrange(log, "+", "-", count=1)
        pipeline.xrange(log, _later_than(after), "+", count=limit)
        owner, newest, entries = cast(
            tuple[bytes | None, list[Entry], list[Entry]], await pipeline.execute()
        )
    return Page(
        None if owner is None else owner.decode(),
        EventId.parse(newest[0][0]) if newest else None,
        bool(newest) and is_end(newest[0][1][b"f"]),
        [fields[b"f"] for _, fields in entries],
        EventId.parse(entries[-1][0]) if entries else None,
    )


async def newest_of(redis: Redis, message_ids: Sequence[str]) -> list[tuple[bool, EventId | None]]:
    """Whether each message exists, and its log's last event, in one round trip.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        for message_id in message_ids:
            pipeline.exists(keys.record(message_id))
            pipeline.xrevrange(keys.log(message_id), "+", "-", count=1)
        replies = cast(list[int | list[Entry]], await pipeline.execute())
    found = []
    for known, last in zip(replies[::2], replies[1::2], strict=True):
        entries = cast(list[Entry], last)
        found.append((bool(known), EventId.parse(entries[0][0]) if entries else None))
    return found


def _later_than(after: EventId | None) -> str:
    if after is None:
        return "-"
    # Redis takes nothing past 64 bits; no event is there, so a lower bound finds as little.
    return f"({min(after.attempt, _MOST)}-{min(after.sequence, _MOST)}"


def frame_of(entry: Entry) -> Frame:
    """The event that a stream's entry holds."""
    entry_id, fields = entry
    attempt, _, sequence = entry_id.partition(b"-")  # Redis' own spelling needs no check
    return Frame(EventId(int(attempt), int(sequence)), fields[b"f"], fields.get(b"p", b""))
