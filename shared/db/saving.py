"""Saves messages: again and in any order, what is older than what is there changes nothing."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from rejoin.shared.db import upserts
from rejoin.shared.db.engine import Database
from rejoin.shared.db.rows import Fields, StoredMessage, call_row, row_of
from rejoin.shared.db.tables import tool_calls


class _Conversation(NamedTuple):
    """What some of its messages tell of a conversation."""

    id: str
    owner: str
    created_at: int
    updated_at: int


async def save(database: Database, rows: Sequence[StoredMessage]) -> set[str]:
    """Save messages in one transaction, and make their conversations where there are none.

    What is of a deleted conversation, or of another owner's, is left out; returns its ids.

    Raises:
        DatabaseUnavailable: the database is away; a repeat is safe.
        DatabaseRefused: it cannot hold one of them; none is saved.
    """
    newest = {message.id: message for message in sorted(rows, key=_age)}
    # In one order everywhere: two savers that lock the same rows must not wait for each other.
    batch = sorted(newest.values(), key=lambda message: message.id)
    told = [one._asdict() for one in _conversations_of(batch)]
    # What comes without tool calls PostgreSQL takes in one statement, and one round trip.
    single = not any(map(_writes_calls, batch))
    async with database.writing(single=single) as connection:
        kept, new = await upserts.write(connection, told, [row_of(message) for message in batch])
        if not single:
            await _write_calls(connection, [message for message in batch if message.id in new])
    return {message.id for message in batch if message.conversation_id not in kept}


def _conversations_of(batch: Sequence[StoredMessage]) -> list[_Conversation]:
    told: dict[str, _Conversation] = {}
    for message in batch:
        at = message.finished_at or message.created_at
        one = told.get(message.conversation_id)
        told[message.conversation_id] = _Conversation(
            message.conversation_id,
            message.owner,
            min(one.created_at, message.created_at) if one else message.created_at,
            max(one.updated_at, at) if one else at,
        )
    return [told[conversation_id] for conversation_id in sorted(told)]


def _writes_calls(message: StoredMessage) -> bool:
    """Whether there are tool calls to be written, or may be those of an earlier attempt."""
    answered = message.ended and message.role == "assistant"
    return answered and (bool(message.tool_calls) or _age(message)[1] > 1)


async def _write_calls(connection: AsyncConnection, written: Sequence[StoredMessage]) -> None:
    """Replace the tool calls of answers that have ended: another attempt may have made others."""
    answers = [message for message in written if _writes_calls(message)]
    rows: list[Fields] = [
        call_row(message.id, place, call)
        for message in answers
        for place, call in enumerate(message.tool_calls)
    ]
    ids = [message.id for message in answers]
    if ids:
        await connection.execute(delete(tool_calls).where(tool_calls.c.message_id.in_(ids)))
    if rows:
        await connection.execute(insert(tool_calls), rows)


def _age(message: StoredMessage) -> tuple[bool, int, int]:
    last = message.last_event_id
    attempt = last.attempt if last else message.attempt
    return message.ended, attempt, last.sequence if last else -1
