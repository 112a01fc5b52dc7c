"""Reads messages back: one, the path to it, its siblings; a conversation's newest path."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rejoin.shared.db.engine import Database
from rejoin.shared.db.rows import StoredCall, StoredMessage, call_of, message_of
from rejoin.shared.db.tables import conversations, messages, tool_calls

_IDS_AT_ONCE: Final = 1000


class Place(NamedTuple):
    """Where a message stands in its conversation; see StoredMessage."""

    id: str
    parent_id: str | None
    created_at: int
    place: int


async def load(database: Database, message_id: str) -> StoredMessage | None:
    """Return a message, or None where none is saved.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    async with database.reading() as connection:
        found = await read(connection, selected().where(messages.c.id == message_id))
    return found[0] if found else None


async def path(database: Database, message_id: str) -> list[StoredMessage]:
    """Return the messages from the conversation's root to this one; [] where it is not saved.

    Where the first one has a parent, that one is not saved (yet).

    Raises:
        DatabaseUnavailable: the database is away.
    """
    columns = (messages.c.id, messages.c.parent_id, messages.c.conversation_id)
    walk = select(*columns).where(messages.c.id == message_id).cte("walk", recursive=True)
    # UNION, which drops what it has met: a cycle ends.
    walk = walk.union(
        select(*columns).where(
            messages.c.id == walk.c.parent_id,
            messages.c.conversation_id == walk.c.conversation_id,
        )
    )
    async with database.reading() as connection:
        query = selected().where(messages.c.id.in_(select(walk.c.id)))
        return path_in(await read(connection, query), message_id)


async def siblings(database: Database, message_id: str) -> list[str]:
    """Return the ids of those that have this message's parent, itself too, the oldest first.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    this = messages.alias()
    same_parent = or_(
        messages.c.parent_id == this.c.parent_id,
        and_(messages.c.parent_id.is_(None), this.c.parent_id.is_(None)),
    )
    query = (
        select(messages.c.id)
        .join(this, and_(this.c.conversation_id == messages.c.conversation_id, same_parent))
        .where(this.c.id == message_id)
        .order_by(messages.c.created_at, messages.c.place, messages.c.id)
    )
    async with database.reading() as connection:
        return list((await connection.execute(query)).scalars())


def path_in(found: Sequence[StoredMessage], message_id: str) -> list[StoredMessage]:
    """The path from the first known one to a message, among those that are known."""
    known = {message.id: message for message in found}
    way: list[StoredMessage] = []
    at: str | None = message_id
    while at is not None and at in known:
        way.append(known.pop(at))  # taken out: a cycle ends
        at = way[-1].parent_id
    return way[::-1]


def newest_path(found: Sequence[StoredMessage]) -> list[StoredMessage]:
    """A conversation's path to its newest message."""
    places = [Place(one.id, one.parent_id, one.created_at, one.place) for one in found]
    newest = newest_in(places)
    return [] if newest is None else path_in(found, newest)


def newest_in(places: Iterable[Place]) -> str | None:
    """The id of a conversation's newest message; None where there is none.

    The last one by its time, and whatever was posted after it: of turns that were posted within
    one millisecond, or through APIs whose clocks differ, the time alone does not tell the order.
    """
    ordered = sorted(places, key=_order)
    followed_by = {place.parent_id: place.id for place in ordered}  # the newest child stays
    at = ordered[-1].id if ordered else None
    while at in followed_by and at is not None:
        at = followed_by.pop(at)  # taken out: a cycle ends
    return at


def siblings_in(found: Sequence[StoredMessage]) -> dict[str, list[str]]:
    """For each message of a conversation the ids of its siblings, itself too, the oldest first."""
    families: dict[str | None, list[str]] = {}
    for message in sorted(found, key=_order):
        families.setdefault(message.parent_id, []).append(message.id)
    return {message.id: families[message.parent_id] for message in found}


def selected() -> Select[Any]:
    """The query of messages, their owner beside them, which `read` takes."""
    joined = messages.join(conversations, conversations.c.id == messages.c.conversation_id)
    return select(messages, conversations.c.owner).select_from(joined)


async def read(connection: AsyncConnection, query: Select[Any]) -> list[StoredMessage]:
    """Run a query made of `selected`; the messages with their calls, the oldest first."""
    order = (messages.c.created_at, messages.c.place, messages.c.id)
    rows = (await connection.execute(query.order_by(*order))).mappings().all()
    answers = [str(row["id"]) for row in rows if row["role"] == "assistant"]
    calls = await _calls_of(connection, answers)
    return [message_of(row, calls.get(row["id"], ())) for row in rows]


async def _calls_of(
    connection: AsyncConnection, message_ids: Sequence[str]
) -> dict[str, list[StoredCall]]:
    found: dict[str, list[StoredCall]] = {}
    for first in range(0, len(message_ids), _IDS_AT_ONCE):
        some = message_ids[first : first + _IDS_AT_ONCE]
        query = select(tool_calls).where(tool_calls.c.message_id.in_(some))
        ordered = query.order_by(tool_calls.c.message_id, tool_calls.c.place)
        for row in (await connection.execute(ordered)).mappings():
            found.setdefault(row["message_id"], []).append(call_of(row))
    return found


def _order(message: StoredMessage | Place) -> tuple[int, int, str]:
    return message.created_at, message.place, message.id
