"""The events of a log that Redis has let go: made again from the message in the database.

They are an attempt of their own, one later than the log's last: a client of the log finds its
position in neither, or its end in both.
"""

from collections.abc import Sequence
from typing import Any, cast

from rejoin.api.bounds import database_answers
from rejoin.api.context import Context
from rejoin.api.stored_view import lost, usage_of
from rejoin.shared.clock import iso
from rejoin.shared.db import messages
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.errors import NotFound
from rejoin.shared.events import (
    Done,
    Event,
    Failed,
    FailureCode,
    FinishReason,
    Start,
    Text,
    Usage,
)
from rejoin.shared.frames import encode
from rejoin.shared.ids import EventId, is_message_id
from rejoin.shared.opening import reset_to_nothing
from rejoin.shared.tool_events import ToolCall, ToolError, ToolResult


async def load(context: Context, message_id: str, owner: str) -> StoredMessage:
    """Return an answer that Redis does not know, as the database has it.

    Raises:
        NotFound: there is none, or it is another's, or was deleted: all answer alike.
        DatabaseUnavailable, Unavailable: nobody can say.
    """
    found = None
    if is_message_id(message_id):
        async with database_answers():
            found = await messages.load(context.database, message_id)
    if found is None or found.owner != owner or found.role != "assistant":
        raise NotFound("no such message")
    return found if found.ended else lost(found)


def after(row: StoredMessage, position: EventId | None) -> list[bytes]:
    """Return the frames that follow a position.

    None after the log's last event and the archive's own; the rest after one within the
    archive; for any other a `reset` without an id, which takes all back, and the whole.
    """
    events = _events(row)
    attempt = _attempt(row)
    whole = [encode(EventId(attempt, at), event) for at, event in enumerate(events)]
    if position is None:
        return whole
    if position == row.last_event_id:
        return []
    if position.attempt == attempt and position.sequence < len(whole):
        return whole[position.sequence + 1 :]
    return [reset_to_nothing(attempt, row.model or ""), *whole]


def _attempt(row: StoredMessage) -> int:
    return (row.last_event_id.attempt if row.last_event_id else row.attempt) + 1


def _events(row: StoredMessage) -> Sequence[Event]:
    start = Start(row.id, row.conversation_id, row.model or "", _attempt(row), iso(row.created_at))
    events: list[Event] = [start]
    if row.text:
        events.append(Text(row.text))
    for call in row.tool_calls:
        events.append(ToolCall(call.tool_call_id, call.name, call.arguments))
        if call.error is not None:
            events.append(ToolError(call.tool_call_id, call.name, call.error))
        elif call.answered:
            events.append(ToolResult(call.tool_call_id, call.name, call.result))
    if (usage := usage_of(row)) is not None:
        events.append(Usage(**cast(dict[str, Any], usage)))
    return [*events, _end(row)]


def _end(row: StoredMessage) -> Event:
    if row.error is None:
        reason = FinishReason(row.finish_reason) if row.finish_reason else FinishReason.STOP
        return Done(reason, len(row.text))
    status = row.error.get("status")
    return Failed(
        FailureCode(str(row.error["code"])),
        str(row.error["message"]),
        bool(row.error["retryable"]),
        int(str(status)) if status is not None else None,
    )
