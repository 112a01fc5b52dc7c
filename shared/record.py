"""The message's record: what was accepted, who owns it, how it ended."""

import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, cast

from redis.asyncio import Redis

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away
from rejoin.shared.errors import (
    Fenced,
    LogEnded,
    MessageMissing,
)
from rejoin.shared.events import dumps
from rejoin.shared.request import StoredRequest, read_request

_NOW: Final = 1  # how scripts tell a cancel's mode; 0: none is set
_AFTER_STEP: Final = 2


class Status(StrEnum):
    """Where a message stands."""

    QUEUED = "queued"
    STREAMING = "streaming"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED: Final = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED})


class Handed(NamedTuple):
    """What a worker tells of an attempt that it handed over: what its calls used.

    That is all that no entry of the log tells of, as the fields of a Usage; of zeros where there
    was nothing.
    """

    attempt: int
    used: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Record:
    """A message's record as it was read; times in ms since the epoch.

    `cancel_asked`: a cancel is set, of either mode. `waited_ms` is for how long it held no worker
    while it waited, up to its last claim. `line` is where it waited last for its turn at a
    provider's key, "" where it did not. `handed` is what the last worker that handed it over told
    of its attempt, and `called` the attempt and the step of the last model call that was noted.
    """

    message_id: str
    owner: str
    conversation_id: str
    model: str
    created_at: int
    status: Status
    attempt: int
    worker: str | None
    cancel_asked: bool
    started_at: int | None
    finished_at: int | None
    waited_ms: int = 0
    line: str = ""
    handed: Handed | None = None
    called: tuple[int, int] = (0, 0)

    @property
    def ended(self) -> bool:
        """Whether the log has its `done` or `failed`."""
        return self.status in ENDED


class Claim(NamedTuple):
    """A claim that was won: its attempt, whether a cancel is set, runs lost with their worker.

    And the conversation, for the claimer to ask at once whether it is the message's turn.
    `cancel_asked` is at once, `cancel_after_step` when the present step has ended.
    """

    attempt: int
    token: str
    cancel_asked: bool
    lost_runs: int
    conversation_id: str = ""
    cancel_after_step: bool = False


async def load(redis: Redis, message_id: str) -> Record | None:
    """Return the record, or None where there is none (any more).

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        fields = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(keys.record(message_id)))
    return parse(message_id, fields)


async def load_all(redis: Redis, message_ids: Sequence[str]) -> list[Record | None]:
    """Return the records of these messages in their order, in one round trip.

    Raises:
        LogUnavailable: Redis is away.
    """
    if not message_ids:
        return []
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        for message_id in message_ids:
            pipeline.hgetall(keys.record(message_id))
        found = cast(list[dict[bytes, bytes]], await pipeline.execute())
    return [
        parse(message_id, fields) for message_id, fields in zip(message_ids, found, strict=True)
    ]


async def load_request(redis: Redis, message_id: str) -> StoredRequest:
    """Return the accepted request.

    Raises:
        RequestUnreadable: it is gone, or another version wrote it in another form.
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        return read_request(cast(bytes | None, await redis.get(keys.request(message_id))))


async def claim(
    redis: Redis,
    message_id: str,
    *,
    token: str,
    worker_id: str,
    life_seconds: int,
    seen_attempt: int = 0,
    held: Claim | None = None,
) -> Claim:
    """Make the caller the message's owner under a new attempt; the same token: the same claim.

    Under another run_id of Redis, after a restart, attempts leap ahead, so that no id is used
    twice. Whoever gets LogEnded sees to what follows a message's end.

    Raises:
        MessageMissing: there is no record (any more).
        LogEnded: the message has ended.
        Fenced: `held`, the claim under which the caller begins again, is not the last one.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    call = claiming(message_id, token, worker_id, life_seconds, seen_attempt, held)
    with redis_or_away():
        reply = await scripts.run(redis, *call)
    return claimed(message_id, token, reply)


def claiming(
    message_id: str, token: str, worker_id: str, life_seconds: int, seen: int, held: Claim | None
) -> scripts.Call:
    """The call of `claim`, to be sent with others in one round trip."""
    names = [
        keys.record(message_id),
        keys.log(message_id),
        keys.request(message_id),
        keys.answers(message_id),
    ]
    under = held.token if held else ""
    return scripts.Call("log/claim", names, [token, worker_id, seen, life_seconds * 1000, under])


def claimed(message_id: str, token: str, reply: object) -> Claim:
    """Read the reply to `claiming`.

    Raises:
        MessageMissing, LogEnded, Fenced: as `claim`.
    """
    status, attempt, cancel, lost, conversation_id = cast(
        tuple[bytes, bytes, int, int, bytes], reply
    )
    if status == b"missing":
        raise MessageMissing(message_id)
    if status == b"ended":
        raise LogEnded(message_id)
    if status == b"fenced":
        raise Fenced(message_id)
    return Claim(
        int(attempt), token, cancel == _NOW, lost, conversation_id.decode(), cancel == _AFTER_STEP
    )


async def hand_over(
    redis: Redis, message_id: str, token: str, handed: Handed | None = None
) -> bool:
    """Note that a claim ends without being lost; False where it is another's by now.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        told = dumps(handed._asdict()) if handed is not None else ""
        names = [keys.record(message_id)]
        return bool(await scripts.run(redis, "log/release", names, [token, told]))


async def cancel(redis: Redis, message_id: str, *, after_step: bool = False) -> Status | None:
    """Ask for the message's end and tell the workers; a repeat only tells again.

    `after_step` lets the present step end first; it never puts off a cancel that is set already.
    Returns None where the cancel is set, else how the message had ended already.

    Raises:
        MessageMissing: there is no record (any more).
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        reply = await scripts.run(
            redis,
            "log/cancel",
            [keys.record(message_id)],
            [keys.CANCELS, message_id, "after_step" if after_step else "now"],
        )
    status, ended = cast(tuple[bytes, bytes], reply)
    if status == b"missing":
        raise MessageMissing(message_id)
    return Status(ended.decode()) if status == b"ended" else None


async def cancelled_of(redis: Redis, message_ids: list[str]) -> list[str]:
    """Those of the messages that are to be cancelled at once, in one round trip.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        for message_id in message_ids:
            pipeline.hget(keys.record(message_id), "cancel")
        modes = cast(list[bytes | None], await pipeline.execute())
    return [
        message_id
        for message_id, mode in zip(message_ids, modes, strict=True)
        if mode not in (None, b"after_step")
    ]


def parse(message_id: str, stored: Mapping[bytes, bytes]) -> Record | None:
    """Return the record that a hash holds, or None where it holds none."""
    if b"created_at" not in stored:
        return None
    fields = {name.decode(): value.decode() for name, value in stored.items()}

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    attempt = number("attempt") or 0
    ended = fields.get("ended")
    running = Status.STREAMING if attempt else Status.QUEUED
    if "parked_at" in fields:
        running = Status.WAITING
    return Record(
        message_id=message_id,
        owner=fields["owner"],
        conversation_id=fields["conversation_id"],
        model=fields["model"],
        created_at=int(fields["created_at"]),
        status=Status(ended) if ended else running,
        attempt=attempt,
        worker=fields.get("worker"),
        cancel_asked="cancel" in fields,
        started_at=number("started_at"),
        finished_at=number("finished_at"),
        waited_ms=number("waited_ms") or 0,
        line=fields.get("line", ""),
        handed=Handed(**json.loads(fields["handed"])) if "handed" in fields else None,
        called=(number("called_attempt") or 0, number("called_step") or 0),
    )
