"""A message's turns and its answer, as the database has them: from record, request and log."""

import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import cast
from uuid import UUID, uuid5

from redis.asyncio import Redis

from rejoin.shared import dropped
from rejoin.shared.clock import iso
from rejoin.shared.db.rows import Fields, Spent, StoredCall, StoredMessage, StoredStep
from rejoin.shared.fold import Message
from rejoin.shared.record import Record
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.spent import attempts_of
from rejoin.shared.tool_calls import CallState, calls_of

_OF_ITS_OWN = ("model", "turns", "metadata", "parent_id")  # columns, or rows, of their own


def rows_of(record: Record, request: StoredRequest | None, message: Message) -> list[StoredMessage]:
    """Return the rows of the request's turns, and that of the answer last.

    Without a request, which another version may have written, the answer alone.
    """
    turns = request.turns if request else []
    parent_id = request.parent_id if request else None
    rows = []
    for place, turn in enumerate(turns):
        row = StoredMessage(
            id=_id_of(turn, record.message_id, place),
            conversation_id=record.conversation_id,
            owner=record.owner,
            parent_id=parent_id,
            role=turn.role,
            created_at=record.created_at,
            place=place,
            content=turn.content,
        )
        rows.append(row)
        parent_id = row.id
    return [*rows, _answer(record, request, message, parent_id, len(turns))]


async def standing_rows_of(
    redis: Redis, record: Record, request: StoredRequest | None, message: Message
) -> list[StoredMessage]:
    """Return those rows, the first one behind a message that was accepted (shared/dropped.py).

    Raises:
        LogUnavailable: Redis is away.
    """
    first, *others = rows_of(record, request, message)
    parent_id = await dropped.standing(redis, record.conversation_id, first.parent_id)
    return [replace(first, parent_id=parent_id), *others]


def _answer(
    record: Record,
    request: StoredRequest | None,
    message: Message,
    parent_id: str | None,
    place: int,
) -> StoredMessage:
    end, calls = message.end, calls_in(message)
    failed = end is not None and end.name == "failed"
    finished_at = record.finished_at
    return StoredMessage(
        id=record.message_id,
        conversation_id=record.conversation_id,
        owner=record.owner,
        parent_id=parent_id,
        role="assistant",
        created_at=record.created_at,
        place=place,
        status=record.status,
        model=record.model,
        text=message.text,
        reasoning=message.reasoning,
        finish_reason=str(end.fields["finish_reason"]) if end and not failed else None,
        error=end.fields if end and failed else None,
        usage=_spent(message.usage),
        attempts=attempts_of(message, request, iso(finished_at) if finished_at else None),
        attempt=record.attempt,
        last_event_id=message.last_event_id,
        request=_parameters(request) if request else None,
        metadata=dict(request.metadata) if request else None,
        started_at=record.started_at,
        finished_at=finished_at,
        tool_calls=tuple(calls),
        steps=tuple(_steps(message, calls)),
    )


def _id_of(turn: StoredTurn, message_id: str, place: int) -> str:
    # An older version gave turns no id: the same one each time, for a save is repeated.
    return turn.id or str(uuid5(UUID(message_id), f"turn {place}"))


def _parameters(request: StoredRequest) -> Fields:
    fields = cast(Fields, json.loads(request.encode()))
    return {
        name: value
        for name, value in fields.items()
        if name not in _OF_ITS_OWN and value not in (None, [])
    }


def _spent(usage: Fields | None) -> Spent | None:
    if usage is None:
        return None
    cost = usage["cost_usd"]
    return Spent(
        input_tokens=int(str(usage["input_tokens"])),
        output_tokens=int(str(usage["output_tokens"])),
        reasoning_tokens=int(str(usage["reasoning_tokens"])),
        cached_tokens=int(str(usage["cached_tokens"])),
        cost_usd=None if cost is None else Decimal(str(cost)),
        estimated=bool(usage["estimated"]),
    )


def _steps(message: Message, calls: Sequence[StoredCall]) -> Sequence[StoredStep]:
    """The finished steps, where they thought, or were not all of it."""
    steps, text_chars = list[StoredStep](), 0
    for event in message.kept:
        if event.name == "text":
            text_chars += len(str(event.fields["text"]))
        elif event.name == "step":
            thinking = cast(list[Fields], event.private.get("thinking", []))
            steps.append(StoredStep(text_chars, str(event.private.get("model", "")), thinking))
            text_chars = 0
    telling = len(steps) > 1 or any(step.thinking for step in steps) or calls
    return steps if telling else []


def calls_in(message: Message) -> list[StoredCall]:
    """Return the tool calls of a message so far, each with how far it came."""
    return [stored_call(call) for call in calls_of(message)]


def stored_call(call: CallState) -> StoredCall:
    """Return a call, and how far it came, as the history has it."""
    return StoredCall(
        call.tool_call_id,
        call.step,
        call.name,
        call.arguments,
        result=call.result,
        error=call.error,
        ended=call.ended is not None,
        needs=call.waits if call.ended is None and not call.started else None,
        running=call.started and call.ended is None,
    )
