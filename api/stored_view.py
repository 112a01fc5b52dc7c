"""A message of the history as clients see it."""

from dataclasses import replace
from typing import Final

from rejoin.shared import content
from rejoin.shared.clock import iso
from rejoin.shared.db.rows import Fields, StoredCall, StoredMessage
from rejoin.shared.events import FailureCode
from rejoin.shared.ids import EventId
from rejoin.shared.record import Status
from rejoin.shared.spent import decimal_string

_LOST: Final[Fields] = {
    "code": FailureCode.INTERNAL.value,
    "message": "Redis lost this message before its end was saved",
    "retryable": True,
    "status": None,
}


def snapshot_of(row: StoredMessage) -> Fields:
    """Return what GET /api/messages/{id} says of an answer."""
    return {
        "id": row.id,
        "conversation_id": row.conversation_id,
        "model": row.model,
        "status": row.status,
        "text": row.text if row.content is None else content.text_of(row.content),
        "reasoning": row.reasoning,
        "tool_calls": [shown_call(call) for call in row.tool_calls],
        "usage": usage_of(row),
        "error": row.error,
        "attempt": row.attempt,
        "attempts": row.attempts,
        "last_event_id": None if row.last_event_id is None else str(row.last_event_id),
        "created_at": iso(row.created_at),
        "started_at": _time(row.started_at),
        "finished_at": _time(row.finished_at),
    }


def in_conversation(row: StoredMessage, siblings: list[str]) -> Fields:
    """Return what a conversation says of a message, of either role."""
    return snapshot_of(row) | {
        "role": row.role,
        "parent_id": row.parent_id,
        "siblings": siblings,
        "content": row.text if row.content is None else content.encode(row.content),
        "finish_reason": row.finish_reason,
        "metadata": row.metadata,
    }


def usage_of(row: StoredMessage) -> Fields | None:
    """Return the fields of its `usage`; None: no provider was asked."""
    if row.usage is None:
        return None
    cost = row.usage.cost_usd
    return row.usage._asdict() | {"cost_usd": None if cost is None else decimal_string(cost)}


def lost(row: StoredMessage) -> StoredMessage:
    """An answer that was saved when it was accepted and is gone from Redis: nobody can end it.

    Its attempt is later than any that its log can have had, which nobody knows any more: those are
    below the milliseconds of an open message's life.
    """
    last = EventId(row.created_at, 0)
    return replace(row, status=Status.FAILED, error=_LOST, attempt=last.attempt, last_event_id=last)


def shown_call(call: StoredCall) -> Fields:
    """Return what clients see of a tool call."""
    return {
        "tool_call_id": call.tool_call_id,
        "step": call.step,
        "name": call.name,
        "arguments": call.arguments,
        "result": call.result,
        "error": call.error,
        "ended": call.answered,
        "needs": call.needs,
        "running": call.running,
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)
