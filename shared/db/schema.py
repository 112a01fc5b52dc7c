"""Brings the database's schema up to date, or says that it is behind."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from rejoin.shared.db.engine import Database
from rejoin.shared.db.tables import metadata
from rejoin.shared.errors import DatabaseUnavailable, SettingsError
from rejoin.shared.settings import Settings

# The migrations, the first one first. A test holds it to the files, so that a process need not
# load Alembic to see that nothing is to be done.
REVISIONS: Final = ("0001", "0002", "0003")
MIGRATIONS: Final = "rejoin.shared.db:migrations"

_MIGRATE_SECONDS: Final = 3600.0
_LOCK: Final = 0x72656A6F  # "rejo": two that migrate one PostgreSQL take turns
_PATIENCE_SECONDS: Final = 10.0  # for another process that migrates the same file
_LOOK_SECONDS: Final = 0.1

_log = logging.getLogger(__name__)


async def prepare(database: Database) -> bool:
    """Whether the database may be used; the default SQLite file is brought up to date first.

    False where it is away: whoever needs it tries again later.

    Raises:
        SettingsError: it is behind this version, another program's, or its file cannot be made.
    """
    database.make_directory()
    try:
        if await is_behind(database):
            if not database.owns_file:
                raise SettingsError(_told_behind(database))
            await migrate(database)
    except DatabaseUnavailable as error:
        _log.warning("%s; messages are kept in Redis until it is back", error)
        return False
    return True


async def check(settings: Settings) -> None:
    """Return where a process could use the database, without changing it.

    Raises:
        SettingsError: it is behind this version, or another program's.
        DatabaseUnavailable: it is away.
    """
    database = Database.of(settings)
    if database.owns_file:
        return  # made, and brought up to date, by whoever needs it first
    try:
        if await is_behind(database):
            raise SettingsError(_told_behind(database))
    finally:
        await database.aclose()


def _told_behind(database: Database) -> str:
    return f"the database {database.name} is behind this version: run `rejoin migrate`"


async def migrate(database: Database) -> list[str]:
    """Bring the schema up to date; return the migrations that were run. A repeat runs none.

    Two processes that do so at once take turns.

    Raises:
        SettingsError: the default file's directory cannot be made, or it is another program's.
        DatabaseUnavailable: it is away, or locked for longer than 10 s.
    """
    database.make_directory()
    if not database.is_sqlite:
        return await _migrate(database)
    until = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
    while True:
        try:
            return await _migrate(database)
        except DatabaseUnavailable:
            # SQLite does not wait for its lock in every case: not while WAL is switched on.
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(_LOOK_SECONDS)


async def is_behind(database: Database) -> bool:
    """Whether the schema is older than this version, or there is none yet; changes nothing.

    Raises:
        SettingsError: it is another program's.
        DatabaseUnavailable: the database is away.
    """
    async with database.reading() as connection:
        found = await _version(database, connection)
    # A version that is not known here is a later one's: an older process may go on beside it.
    return found is None or found in REVISIONS[:-1]


async def _version(database: Database, connection: AsyncConnection) -> str | None:
    def has_tables(sync: Connection, names: Iterable[str]) -> bool:
        return all(map(inspect(sync).has_table, names))

    if not await connection.run_sync(has_tables, ["alembic_version"]):
        return None
    found = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    if found is None or found in REVISIONS:
        return None if found is None else str(found)
    # A later version's has all of them. Alembic calls its own table the same in every program.
    if not await connection.run_sync(has_tables, metadata.tables):
        raise SettingsError(
            f"the database {database.name} is another program's, whose migrations it notes: give"
            " Rejoin one of its own by REJOIN_DATABASE_URL"
        )
    return str(found)


async def _migrate(database: Database) -> list[str]:
    if database.is_sqlite:
        await database.use_wal()
    async with database.writing(seconds=_MIGRATE_SECONDS) as connection:
        if not database.is_sqlite:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        found = await _version(database, connection)
        if found is not None and found not in REVISIONS:
            return []
        done = REVISIONS.index(found) + 1 if found is not None else 0
        if done < len(REVISIONS):
            await connection.run_sync(_upgrade)
    return list(REVISIONS[done:])


def _upgrade(connection: Connection) -> None:
    # Its INFO tells of its plugins, and that as it is loaded.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Alembic takes a fifth of a second to load, and few processes need it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
