"""The database's connections: opened when first used, every wait bounded, its errors translated."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from rejoin.shared.db.address import numbers, read_address
from rejoin.shared.errors import DatabaseRefused, DatabaseUnavailable, SettingsError
from rejoin.shared.settings import Settings

FILE: Final = "rejoin.db"

_CONNECT_SECONDS: Final = 3.0
_STATEMENT_SECONDS: Final = 5.0
_TRANSACTION_SECONDS: Final = 10.0
_LOCK_SECONDS: Final = 3.0  # for SQLite's: less than a request waits for its answer
_GOODBYE_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 3.0
_CONNECTIONS: Final = 5
_IDLE_SECONDS: Final = 10.0  # after which a connection is asked whether it lives, in 0.4 ms
_TAKEN_AT: Final = "rejoin_taken_at"

# asyncpg's own errors while it connects, and a socket's, come as they are.
_AWAY: Final = (
    DBAPIError,
    PoolTimeout,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)


class Database:
    """One process' connections to the database. Whoever opens it calls `aclose`.

    `owns_file`: it is the default SQLite file, whose schema this process may bring up to date.
    """

    def __init__(self, url: str, *, owns_file: bool = False) -> None:
        """Open nothing yet.

        Raises:
            SettingsError: `url` is no address of a database.
        """
        self._url = read_address(url)
        self.owns_file = owns_file
        self._engine: AsyncEngine | None = None
        # By what is done with it, for to make one takes time; all have the same connections.
        self._engines: dict[tuple[bool, bool], AsyncEngine] = {}

    @classmethod
    def of(cls, settings: Settings) -> "Database":
        """The one of REJOIN_DATABASE_URL, else an SQLite file in REJOIN_DATA_DIR.

        Raises:
            SettingsError: REJOIN_DATABASE_URL cannot be read.
        """
        if settings.database_url is not None:
            return cls(settings.database_url)
        file = settings.data_dir.absolute() / FILE
        url = URL.create("sqlite+aiosqlite", database=str(file))
        return cls(url.render_as_string(hide_password=False), owns_file=True)

    @property
    def name(self) -> str:
        """What it is, for people: without a password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is an SQLite file."""
        return self._url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The SQLite file, if it is one."""
        return Path(self._url.database) if self.is_sqlite and self._url.database else None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with, for one transaction of 10 s at most.

        Raises:
            DatabaseUnavailable: the database is away, too slow, or not migrated.
        """
        async with self._transaction(writes=False, seconds=_TRANSACTION_SECONDS) as connection:
            yield connection

    @asynccontextmanager
    async def writing(
        self, *, seconds: float = _TRANSACTION_SECONDS, single: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        """A connection to write with: one transaction, committed with the block.

        `single`: a single statement on PostgreSQL, which is a transaction without BEGIN and COMMIT.

        Raises:
            DatabaseUnavailable: the database is away, too slow, or not migrated; nothing is
                written, or all of it where only the answer to the commit was lost.
            DatabaseRefused: it cannot hold what it was given; nothing is written.
        """
        async with self._transaction(writes=True, seconds=seconds, single=single) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(
        self, *, writes: bool, seconds: float, single: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        with database_or_away():
            async with asyncio.timeout(seconds):
                async with self._opened_for(writes, single).begin() as connection:
                    yield connection

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            self._engine = self._open()
        return self._engine

    def _opened_for(self, writes: bool, single: bool) -> AsyncEngine:
        if (writes, single) not in self._engines:
            options: dict[str, object] = {"rejoin_writes": writes}
            if single and not self.is_sqlite:
                options["isolation_level"] = "AUTOCOMMIT"
            self._engines[writes, single] = self._opened().execution_options(**options)
        return self._engines[writes, single]

    def _open(self) -> AsyncEngine:
        if not self.is_sqlite:
            engine = create_async_engine(
                self._url,
                pool_size=_CONNECTIONS,
                max_overflow=0,
                pool_timeout=_CONNECT_SECONDS,
                connect_args={
                    **numbers(self._url),
                    "timeout": _CONNECT_SECONDS,
                    "command_timeout": _STATEMENT_SECONDS,
                    "connection_class": _Connection,
                    "server_settings": {"application_name": "rejoin"},
                },
            )
            event.listen(engine.sync_engine, "checkout", _renew_dead)
            return engine
        engine = create_async_engine(
            self._url,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=_CONNECT_SECONDS,
            connect_args={"timeout": _LOCK_SECONDS},
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine

    async def use_wal(self) -> None:
        """Let readers and a writer of an SQLite file not wait for each other; the file keeps it.

        Raises:
            DatabaseUnavailable: the file is locked, or cannot be opened.
        """
        with database_or_away():
            async with (
                asyncio.timeout(_TRANSACTION_SECONDS),
                self._opened().connect() as connection,
            ):
                await connection.exec_driver_sql("PRAGMA journal_mode = WAL")

    def make_directory(self) -> None:
        """Make the default file's directory; other people's users cannot read it.

        Raises:
            SettingsError: it cannot be written.
        """
        if not self.owns_file or self.file is None:
            return
        directory = self.file.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"REJOIN_DATA_DIR={directory} cannot be written: {error.strerror}"
            ) from error

    async def aclose(self) -> None:
        """Close every connection, within 3 s."""
        engine, self._engine, self._engines = self._engine, None, {}
        if engine is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await engine.dispose()
        except (OSError, TimeoutError):
            return  # a server that is away closes nothing


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """Waits half a second for a server's goodbye, not the two that SQLAlchemy gives it.

    A request that has run out of time waits for that too.
    """

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Close it in order, or cut it off."""
        try:
            await super().close(timeout=min(timeout or _GOODBYE_SECONDS, _GOODBYE_SECONDS))
        except TimeoutError:
            return  # asyncpg has cut it off then


@contextmanager
def database_or_away() -> Iterator[None]:
    """Translate SQLAlchemy's errors, and its drivers', at the border.

    Raises:
        DatabaseUnavailable: the database is away, too slow, or lacks a table.
        DatabaseRefused: it cannot hold what it was given.
    """
    try:
        yield
    except OverflowError as error:  # an integer that SQLite has no column for; it comes as it is
        raise DatabaseRefused(f"the database refused a row: {error}") from error
    except (DataError, IntegrityError) as error:
        raise DatabaseRefused(f"the database refused a row: {_first_line(error)}") from error
    except _AWAY as error:
        if isinstance(error, DBAPIError) and _is_of_the_row(error):
            raise DatabaseRefused(f"the database refused a row: {_first_line(error)}") from error
        raise DatabaseUnavailable(f"the database is away: {_first_line(error)}") from error


def _is_of_the_row(error: DBAPIError) -> bool:
    # asyncpg encodes arguments itself, and says so with an error class of its own.
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(state, str) and state[:2] in ("22", "23")


def _first_line(error: BaseException) -> str:
    """What the driver said, without the statement and its values: those are somebody's words."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    said = str(cause).strip().partition("\n")[0]
    return said or type(cause).__name__


def _renew_dead(connection: Any, entry: ConnectionPoolEntry, _: object) -> None:
    # Else the first one after a restart of the server would fail. asyncpg knows what was closed;
    # what may have fallen silent is asked.
    now, since = time.monotonic(), entry.info.get(_TAKEN_AT)
    entry.info[_TAKEN_AT] = now
    driver = connection.driver_connection
    try:
        if since is not None and now - since > _IDLE_SECONDS and not driver.is_closed():
            connection.ping()
    except Exception as error:
        if driver.is_closed():
            raise InvalidatePoolError from error
        raise
    if driver.is_closed():
        raise InvalidatePoolError


def _prepare_sqlite(connection: Any, _: object) -> None:
    # Transactions are begun below: sqlite3's own begin only before writing, and wait for no lock.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(_LOCK_SECONDS * 1000)}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")  # what was saved is taken out of Redis
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("rejoin_writes")
    if writes is not None:  # WAL is switched on outside of a transaction
        # A reader that goes on to write is refused at once where another wrote meanwhile.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
