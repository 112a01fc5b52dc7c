"""Saves messages: again and in any order, what is older than what is there changes nothing."""

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Table, and_, case, delete, func, insert, literal_column, or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from rejoin.shared.db.engine import Database
from rejoin.shared.db.rows import Fields, StoredMessage, call_row, row_of
from rejoin.shared.db.tables import conversations, messages, tool_calls
from rejoin.shared.record import ENDED

Upsert = postgresql.Insert | sqlite.Insert

# Written out: one statement for many rows takes no other values than theirs.
_ENDED: Final[list[ColumnElement[str]]] = [
    literal_column(f"'{status.value}'") for status in sorted(ENDED)
]
_NONE: Final[ColumnElement[int]] = literal_column("-1")
_FIXED: Final = ("id", "conversation_id", "created_at")


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
    async with database.writing() as connection:
        kept = await _touch_conversations(connection, batch)
        left_out = {message.id for message in batch if message.conversation_id not in kept}
        batch = [message for message in batch if message.id not in left_out]
        if batch:
            written = await connection.execute(
                _messages_upsert(connection.dialect.name), [row_of(message) for message in batch]
            )
            new = set(written.scalars())
            await _write_calls(connection, [message for message in batch if message.id in new])
    return left_out


def insert_of(dialect: str, table: Table) -> Upsert:
    """An INSERT that may say what a conflict does, in the database's own dialect."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


async def _touch_conversations(
    connection: AsyncConnection, batch: Sequence[StoredMessage]
) -> set[str]:
    """Make or renew the messages' conversations; the ids of those that are not deleted."""
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
    rows = [told[conversation_id]._asdict() for conversation_id in sorted(told)]
    kept = await connection.execute(_conversations_upsert(connection.dialect.name), rows)
    return set(kept.scalars())


@cache
def _conversations_upsert(dialect: str) -> ReturningInsert[str]:
    statement = insert_of(dialect, conversations)
    old, new = conversations.c, statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[old.id],
        set_={
            "created_at": case(
                (new.created_at < old.created_at, new.created_at), else_=old.created_at
            ),
            "updated_at": case(
                (new.updated_at > old.updated_at, new.updated_at), else_=old.updated_at
            ),
        },
        where=and_(old.deleted_at.is_(None), old.owner == new.owner),
    ).returning(old.id)


# To build a statement takes longer than to run it.
@cache
def _messages_upsert(dialect: str) -> ReturningInsert[str]:
    statement = insert_of(dialect, messages)
    old, new = messages.c, statement.excluded
    # An end goes before all that is none; then the later event of the log decides.
    newer = _later(
        (_rank(new.status), _rank(old.status)),
        (new.attempt, old.attempt),
        (func.coalesce(new.sequence, _NONE), func.coalesce(old.sequence, _NONE)),
    )
    return statement.on_conflict_do_update(
        index_elements=[old.id],
        set_={name: new[name] for name in old.keys() if name not in _FIXED},  # noqa: SIM118
        where=and_(old.conversation_id == new.conversation_id, newer),
    ).returning(old.id)


def _rank(status: ColumnElement[str]) -> ColumnElement[int]:
    is_ended = or_(*(status == ended for ended in _ENDED))
    return case((is_ended, literal_column("1")), else_=literal_column("0"))


def _later(*pairs: tuple[ColumnElement[int], ColumnElement[int]]) -> ColumnElement[bool]:
    """Whether the first ones, in their order, are not less than the second ones."""
    new, old = pairs[0]
    if len(pairs) == 1:
        return new >= old
    return or_(new > old, and_(new == old, _later(*pairs[1:])))


async def _write_calls(connection: AsyncConnection, written: Sequence[StoredMessage]) -> None:
    """Replace the tool calls of answers that have ended: another attempt may have made others."""
    answers = [m for m in written if m.ended and m.role == "assistant"]
    rows: list[Fields] = [
        call_row(message.id, place, call)
        for message in answers
        for place, call in enumerate(message.tool_calls)
    ]
    # A first attempt finds none of another one.
    ids = [message.id for message in answers if message.tool_calls or _age(message)[1] > 1]
    if ids:
        await connection.execute(delete(tool_calls).where(tool_calls.c.message_id.in_(ids)))
    if rows:
        await connection.execute(insert(tool_calls), rows)


def _age(message: StoredMessage) -> tuple[bool, int, int]:
    last = message.last_event_id
    attempt = last.attempt if last else message.attempt
    return message.ended, attempt, last.sequence if last else -1
