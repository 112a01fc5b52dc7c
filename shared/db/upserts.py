"""The statements that save messages: what is older than what is there changes nothing.

PostgreSQL takes conversations and messages in one statement, for any number of rows the same one;
SQLite in two. Each is built once: to build one takes longer than to run it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    TableValuedAlias,
    and_,
    bindparam,
    case,
    column,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.selectable import CompoundSelect

from rejoin.shared.db.rows import Fields
from rejoin.shared.db.tables import conversations, messages
from rejoin.shared.record import ENDED

Upsert = postgresql.Insert | sqlite.Insert

# Written out: one statement for many rows takes no other values than theirs.
_ENDED: Final[list[ColumnElement[str]]] = [
    literal_column(f"'{status.value}'") for status in sorted(ENDED)
]
_NONE: Final[ColumnElement[int]] = literal_column("-1")
_FIXED: Final = ("id", "conversation_id", "created_at")
_OF_CONVERSATIONS: Final = ("id", "owner", "created_at", "updated_at")
_OF_MESSAGES: Final = tuple(messages.c.keys())


def insert_of(dialect: str, table: Table) -> Upsert:
    """An INSERT that may say what a conflict does, in the database's own dialect."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


async def write(
    connection: AsyncConnection, told: Sequence[Fields], rows: Sequence[Fields]
) -> tuple[set[str], set[str]]:
    """Make or renew the conversations `told`, then write `rows` of those that are not deleted.

    Both in the order that they have. Returns the ids of these conversations, and those of the
    messages that were written: others are there as new, or newer.
    """
    if connection.dialect.name == "sqlite":
        return await _write_in_two(connection, told, rows)
    values: Fields = {f"told_{name}": [one[name] for one in told] for name in _OF_CONVERSATIONS}
    values |= {f"rows_{name}": [row[name] for row in rows] for name in _OF_MESSAGES}
    kept, written = set[str](), set[str]()
    for is_message, row_id in await connection.execute(_upsert_of_both(), values):
        (written if is_message else kept).add(row_id)
    return kept, written


async def _write_in_two(
    connection: AsyncConnection, told: Sequence[Fields], rows: Sequence[Fields]
) -> tuple[set[str], set[str]]:
    kept = set((await connection.execute(_upsert_of_conversations(), told)).scalars())
    rows = [row for row in rows if row["conversation_id"] in kept]
    if not rows:
        return kept, set()
    return kept, set((await connection.execute(_upsert_of_messages(), rows)).scalars())


@cache
def _upsert_of_conversations() -> ReturningInsert[str]:
    return _renewing(sqlite.insert(conversations))


@cache
def _upsert_of_messages() -> ReturningInsert[str]:
    return _replacing(sqlite.insert(messages))


@cache
def _upsert_of_both() -> CompoundSelect[bool, str]:
    told = _unnested("told", conversations, _OF_CONVERSATIONS)
    kept = _renewing(_from(conversations, _OF_CONVERSATIONS, select(*told.c))).cte("kept")
    rows = _unnested("rows", messages, _OF_MESSAGES)
    # A message waits for its conversation: whoever has that one's lock has those of its messages.
    source = select(*rows.c).where(rows.c.conversation_id.in_(select(kept.c.id)))
    written = _replacing(_from(messages, _OF_MESSAGES, source)).cte("written")
    return union_all(
        select(literal_column("false"), kept.c.id), select(literal_column("true"), written.c.id)
    )


def _from(table: Table, names: Sequence[str], source: Select[object]) -> postgresql.Insert:
    return postgresql.insert(table).from_select(list(names), source)


def _unnested(name: str, table: Table, names: Sequence[str]) -> TableValuedAlias:
    """Rows that come as one array a column."""
    types = {one: table.c[one].type for one in names}
    arrays = [
        # One dimension: a value may be a list itself.
        bindparam(f"{name}_{one}", type_=postgresql.ARRAY(kind, dimensions=1))
        for one, kind in types.items()
    ]
    columns = [column(one, kind) for one, kind in types.items()]
    return func.unnest(*arrays).table_valued(*columns, name=name).render_derived()


def _renewing(statement: Upsert) -> ReturningInsert[str]:
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


def _replacing(statement: Upsert) -> ReturningInsert[str]:
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
