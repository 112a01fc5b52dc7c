"""Conversations: listed by owner, read with their messages, deleted for good."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rejoin.shared.db.engine import Database
from rejoin.shared.db.messages import Place, newest_in, read, selected
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.db.tables import conversations, messages
from rejoin.shared.db.upserts import insert_of
from rejoin.shared.errors import BadRequest
from rejoin.shared.record import ENDED


class Conversation(NamedTuple):
    """A conversation; times in ms since the epoch."""

    id: str
    owner: str
    created_at: int
    updated_at: int


class Page(NamedTuple):
    """Some of an owner's conversations; `next_cursor` None: these are the last."""

    conversations: list[Conversation]
    next_cursor: str | None


class Old(NamedTuple):
    """A conversation that is to be deleted for its age, its messages, and those still open."""

    id: str
    owner: str
    message_ids: list[str]
    open_ids: list[str]


_COLUMNS = (
    conversations.c.id,
    conversations.c.owner,
    conversations.c.created_at,
    conversations.c.updated_at,
)


async def page(database: Database, owner: str, *, limit: int, cursor: str | None = None) -> Page:
    """Return an owner's conversations, the last changed first, `limit` at the most.

    Raises:
        BadRequest: `cursor` is none that an earlier page gave.
        DatabaseUnavailable: the database is away.
    """
    table = conversations.c
    query = select(*_COLUMNS).where(table.owner == owner, table.deleted_at.is_(None))
    if cursor is not None:
        updated_at, conversation_id = _position(cursor)
        query = query.where(
            or_(
                table.updated_at < updated_at,
                and_(table.updated_at == updated_at, table.id < conversation_id),
            )
        )
    query = query.order_by(table.updated_at.desc(), table.id.desc()).limit(limit + 1)
    async with database.reading() as connection:
        found = [Conversation(*row) for row in await connection.execute(query)]
    if len(found) <= limit:
        return Page(found, None)
    last = found[limit - 1]
    return Page(found[:limit], f"{last.updated_at}-{last.id}")


async def load(
    database: Database, conversation_id: str, owner: str
) -> tuple[Conversation, list[StoredMessage]] | None:
    """Return a conversation with all its messages, the oldest first.

    None where it is not saved, deleted, or another owner's: all three alike.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    table = conversations.c
    query = select(*_COLUMNS).where(
        table.id == conversation_id, table.owner == owner, table.deleted_at.is_(None)
    )
    async with database.reading() as connection:
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        of_it = selected().where(messages.c.conversation_id == conversation_id)
        return Conversation(*row), await read(connection, of_it)


async def some(database: Database, owner: str, ids: Sequence[str]) -> list[Conversation]:
    """Return those of the conversations that are saved, not deleted, and this owner's.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    table = conversations.c
    query = select(*_COLUMNS).where(
        table.id.in_(ids), table.owner == owner, table.deleted_at.is_(None)
    )
    async with database.reading() as connection:
        return [Conversation(*row) for row in await connection.execute(query)]


async def message_ids(database: Database, conversation_id: str, owner: str) -> list[str] | None:
    """Return the ids of a conversation's messages; None as `load` does.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    if not await some(database, owner, [conversation_id]):
        return None
    of_it = select(messages.c.id).where(messages.c.conversation_id == conversation_id)
    async with database.reading() as connection:
        return list((await connection.execute(of_it)).scalars())


async def newest(database: Database, conversation_id: str) -> tuple[str, str | None] | None:
    """Return whose a conversation is, and its newest message's id; None where it is not saved.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    table = conversations.c
    query = select(table.owner).where(table.id == conversation_id, table.deleted_at.is_(None))
    columns = (messages.c.id, messages.c.parent_id, messages.c.created_at, messages.c.place)
    of_it = select(*columns).where(messages.c.conversation_id == conversation_id)
    async with database.reading() as connection:
        owner = (await connection.execute(query)).scalar()
        if owner is None:
            return None
        places = [Place(*row) for row in await connection.execute(of_it)]
        return str(owner), newest_in(places)


async def remove(
    database: Database, conversation_id: str, owner: str, *, now_ms: int
) -> list[str] | None:
    """Delete a conversation's messages and leave a tombstone, so that no late save brings it back.

    Returns the ids of its messages, whose logs are to go too; None where it is another owner's.
    One that is not saved yet gets its tombstone all the same. A repeat finds no messages.

    Raises:
        DatabaseUnavailable: the database is away; a repeat is safe.
    """
    async with database.writing() as connection:
        statement = insert_of(connection.dialect.name, conversations)
        statement = statement.on_conflict_do_update(
            index_elements=[conversations.c.id],
            set_={"deleted_at": statement.excluded.deleted_at},
            where=conversations.c.owner == statement.excluded.owner,
        )
        tombstone = {
            "id": conversation_id,
            "owner": owner,
            "created_at": now_ms,
            "updated_at": now_ms,
            "deleted_at": now_ms,
        }
        taken = await connection.execute(statement.returning(conversations.c.id), [tombstone])
        if not taken.scalars().all():
            return None
        return await _remove_messages(connection, [conversation_id])


async def unchanged_since(
    database: Database, before_ms: int, *, most: int, past: int = 0
) -> list[Old]:
    """Return conversations whose last change was before a time, the oldest first.

    The first `past` of them are left out.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    table = conversations.c
    query = (
        select(table.id, table.owner)
        .where(table.updated_at < before_ms, table.deleted_at.is_(None))
        .order_by(table.updated_at, table.id)
        .limit(most)
        .offset(past)
    )
    async with database.reading() as connection:
        owners = {row.id: row.owner for row in await connection.execute(query)}
        found = {one: Old(one, owner, [], []) for one, owner in owners.items()}
        of_them = select(messages.c.conversation_id, messages.c.id, messages.c.status).where(
            messages.c.conversation_id.in_(list(owners))
        )
        for conversation_id, message_id, status in await connection.execute(of_them):
            found[conversation_id].message_ids.append(message_id)
            if status not in ENDED:
                found[conversation_id].open_ids.append(message_id)
    return list(found.values())


async def remove_unchanged(
    database: Database, ids: Sequence[str], before_ms: int, *, now_ms: int
) -> None:
    """Delete as `remove` does those of the conversations that did not change after all.

    Raises:
        DatabaseUnavailable: the database is away; a repeat is safe.
    """
    still = and_(conversations.c.id.in_(ids), conversations.c.updated_at < before_ms)
    async with database.writing() as connection:
        statement = update(conversations).where(still).values(deleted_at=now_ms)
        gone = await connection.execute(statement.returning(conversations.c.id))
        await _remove_messages(connection, list(gone.scalars()))


async def forget_removed(database: Database, before_ms: int) -> None:
    """Take away the tombstones of what was deleted before a time.

    Raises:
        DatabaseUnavailable: the database is away; a repeat is safe.
    """
    async with database.writing() as connection:
        await connection.execute(
            delete(conversations).where(conversations.c.deleted_at < before_ms)
        )


async def _remove_messages(connection: AsyncConnection, ids: Sequence[str]) -> list[str]:
    statement = delete(messages).where(messages.c.conversation_id.in_(ids))
    return list((await connection.execute(statement.returning(messages.c.id))).scalars())


def _position(cursor: str) -> tuple[int, str]:
    updated_at, _, conversation_id = cursor.partition("-")
    # As far as a column of 64 bits goes.
    if not (updated_at.isascii() and updated_at.isdecimal() and len(updated_at) < 19):
        raise BadRequest("cursor is the next_cursor of an earlier page", field=("query", "cursor"))
    return int(updated_at), conversation_id.replace("\0", "")
