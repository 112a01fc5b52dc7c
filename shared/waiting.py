"""What tool calls wait for, how they are answered, and a message that waits without a worker.

A call's deadline is a time by Redis' clock. Whatever answers a call, a person, a client or its
deadline, does so through one script: the first answer stands.
"""

from collections.abc import Awaitable, Mapping, Sequence
from enum import StrEnum
from typing import Final, cast

from redis.asyncio import Redis

from rejoin.shared import keys, scripts
from rejoin.shared.asks import TIMEOUT, Answer, Ask, Kind
from rejoin.shared.connections import redis_or_away
from rejoin.shared.errors import (
    BadRequest,
    Conflict,
    Fenced,
    LogEnded,
    LogRefused,
    MessageMissing,
    NotFound,
)
from rejoin.shared.scripts import Call
from rejoin.shared.tool_events import Needs

_LOOKED_AT: Final = ["created_at", "ended", "cancel", "parked_at", "line"]
_ASK: Final = b"ask "
_ANSWER: Final = b"answer "

_CONFLICTS: Final[Mapping[bytes, str]] = {
    b"ended": "the message has ended",
    b"cancelled": "the message is cancelled",
    b"late": "the call's deadline has passed",
    b"another": "the call was answered otherwise already",
}


_NEEDED_FOR: Final[Mapping[Kind, str]] = {
    Kind.APPROVE: Needs.APPROVAL,
    Kind.RESULT: Needs.RESULT,
    Kind.ERROR: Needs.RESULT,
    Kind.TIMEOUT: "",
}


class Parked(StrEnum):
    """What became of a wish to wait."""

    PARKED = "parked"
    ANSWERED = "answered"  # all of the calls: go on
    CANCEL = "cancelled"  # one is set: end the message


async def now_ms(redis: Redis) -> int:
    """This moment by Redis' clock, which deadlines go by.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        seconds, microseconds = cast(tuple[int, int], await redis.time())
    return seconds * 1000 + microseconds // 1000


async def ask(
    redis: Redis, message_id: str, *, token: str, asks: Sequence[Ask], life_seconds: int
) -> None:
    """Note what calls wait for, before their `tool_waiting` is in the log.

    What is asked already stays as it is, its deadline too; a later round of a call replaces it,
    and its answer.

    Raises:
        MessageMissing, LogEnded, Fenced: the message is no longer the caller's, whose claim has
            `token`.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    arguments: list[str | int] = [token, life_seconds * 1000]
    for one in asks:
        arguments += [one.tool_call_id, one.round, one.to_json()]
    with redis_or_away():
        reply = await scripts.run(
            redis, "log/ask", [keys.answers(message_id), keys.record(message_id)], arguments
        )
    _raise_where_refused(reply, message_id)


async def answer(
    redis: Redis, message_id: str, tool_call_id: str, said: Answer, *, life_seconds: int
) -> bool:
    """Answer a call; the same answer again changes nothing. The caller wakes the job then.

    Returns whether no call of the message waits any more: else it need not be woken.

    Raises:
        NotFound: no such call waits, or waited.
        BadRequest: it waits for an answer of another kind.
        Conflict: another answer stands, its deadline has passed, a cancel is set, the message
            has ended.
        MessageMissing: there is no record (any more).
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        reply = await scripts.run(redis, *_answering(message_id, tool_call_id, said, life_seconds))
    status, all_answered = cast(tuple[bytes, int], reply)
    match status:
        case b"missing":
            raise MessageMissing(message_id)
        case b"unknown":
            raise NotFound("no such call waits for an answer")
        case b"other_kind":
            mend = "the call waits for another kind of answer: see `needs` of its tool_waiting"
            raise BadRequest(mend, field=(said.kind.value,))
        case b"ended" | b"cancelled" | b"late" | b"another":
            raise Conflict(_CONFLICTS[status])
    return bool(all_answered)


async def expire(redis: Redis, message_id: str, call_ids: Sequence[str]) -> None:
    """Answer with TIMEOUT those of the calls that nobody answered until their deadline.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    calls = [_answering(message_id, call_id, TIMEOUT, 0) for call_id in call_ids]
    with redis_or_away():
        await scripts.run_all(redis, calls)


async def asked(redis: Redis, message_id: str) -> dict[str, Ask]:
    """Return what each call waits for, or waited for.

    Raises:
        LogUnavailable: Redis is away.
    """
    asks, _ = await load(redis, message_id)
    return asks


async def answers(redis: Redis, message_id: str) -> dict[str, Answer]:
    """Return the answers of calls that wait no more, each of the call's present round.

    Raises:
        LogUnavailable: Redis is away.
    """
    _, given = await load(redis, message_id)
    return given


async def load(redis: Redis, message_id: str) -> tuple[dict[str, Ask], dict[str, Answer]]:
    """Return both, of one moment: what calls wait for, and what they were answered.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        stored = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(keys.answers(message_id)))
    asks, given = {}, {}
    for name, text in stored.items():
        if name.startswith(_ASK):
            call_id = name.removeprefix(_ASK).decode()
            asks[call_id] = Ask.of_json(call_id, text)
        elif name.startswith(_ANSWER):
            given[name.removeprefix(_ANSWER).decode()] = Answer.of_json(text)
    return asks, given


async def park(redis: Redis, message_id: str, *, token: str, call_ids: Sequence[str]) -> Parked:
    """Let the message wait for answers to `call_ids`, all of its open calls that wait.

    Calls that waited besides and have no answer are forgotten: their step was taken back. The
    caller gives the job back then, due at the earliest deadline.

    Raises:
        MessageMissing, LogEnded, Fenced: the message is no longer the caller's, whose claim has
            `token`.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    names = [keys.record(message_id), keys.answers(message_id)]
    return await _parked(redis, message_id, Call("log/park", names, [token, *call_ids]))


async def park_in_line(redis: Redis, message_id: str, *, token: str, line: str) -> Parked:
    """Let the message wait for its turn at a provider's key, in this line (shared/quota.py).

    The caller gives the job back then, due when it is to be tried again.

    Raises:
        MessageMissing, LogEnded, Fenced: the message is no longer the caller's, whose claim has
            `token`.
        LogUnavailable: Redis is away; a repeat is safe.
    """
    call = Call("log/park_in_line", [keys.record(message_id)], [token, line])
    return await _parked(redis, message_id, call)


async def ready(redis: Redis, message_ids: Sequence[str]) -> list[str]:
    """Those of some messages that wait in vain, in one round trip: a worker is to look at them.

    Each of their calls is answered, a cancel is set, they have ended, or they are gone. One that
    waits in line for a provider's key waits for no call: its time comes, or it is woken.

    Raises:
        LogUnavailable: Redis is away.
    """
    if not message_ids:
        return []
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        for message_id in message_ids:
            pipeline.hmget(keys.record(message_id), _LOOKED_AT)
            pipeline.hkeys(keys.answers(message_id))
        replies = cast(list[list[bytes | None]], await pipeline.execute())
    return [
        message_id
        for message_id, fields, names in zip(message_ids, replies[::2], replies[1::2], strict=True)
        if _in_vain(fields, cast(list[bytes], names))
    ]


async def _parked(redis: Redis, message_id: str, parking: Call) -> Parked:
    with redis_or_away():
        reply = await scripts.run(redis, *parking)
    _raise_where_refused(reply, message_id)
    return Parked(cast(bytes, reply).decode())


def _in_vain(fields: list[bytes | None], names: list[bytes]) -> bool:
    created_at, ended, cancel, parked_at, line = fields
    if created_at is None or ended or cancel:
        return True
    given = {name.removeprefix(_ANSWER) for name in names if name.startswith(_ANSWER)}
    waits = {name.removeprefix(_ASK) for name in names if name.startswith(_ASK)}
    return parked_at is not None and not line and waits <= given


def _answering(message_id: str, tool_call_id: str, said: Answer, life_seconds: int) -> Call:
    names = [
        keys.answers(message_id),
        keys.record(message_id),
        keys.log(message_id),
        keys.request(message_id),
    ]
    arguments: list[str | int] = [
        tool_call_id, _NEEDED_FOR[said.kind], said.to_json(), life_seconds * 1000,
    ]  # fmt: skip
    return Call("log/answer", names, arguments)


def _raise_where_refused(reply: object, message_id: str) -> None:
    refused: Mapping[object, type[LogRefused]] = {
        b"missing": MessageMissing,
        b"ended": LogEnded,
        b"fenced": Fenced,
    }
    if reply in refused:
        raise refused[reply](message_id)
