"""The engine: a database that is away or stuck is an error within a bound, and blocks nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from rejoin.shared.db import engine, messages, schema
from rejoin.shared.db.engine import Database
from rejoin.shared.db.saving import save
from rejoin.shared.errors import DatabaseUnavailable
from rejoin.shared.ids import new_message_id
from tests.database.stored import turn
from tests.support.postgres_server import PostgresServer

BOUND_SECONDS = 12


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter bounds, so that a test need not wait for them."""
    monkeypatch.setattr(engine, "_STATEMENT_SECONDS", 0.5)
    monkeypatch.setattr(engine, "_CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(engine, "_TRANSACTION_SECONDS", 1.0)
    monkeypatch.setattr(engine, "_LOCK_SECONDS", 0.5)
    monkeypatch.setattr(engine, "_GOODBYE_SECONDS", 0.1)
    monkeypatch.setattr(engine, "_CLOSE_SECONDS", 0.5)


@pytest.fixture
async def on_own(own_postgres: PostgresServer) -> AsyncIterator[Database]:
    """A migrated database on a server of the test's own."""
    database = Database(own_postgres.url())
    await schema.migrate(database)
    yield database
    await database.aclose()


async def refused(database: Database) -> None:
    """A save that is refused as away, within the bound."""
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(DatabaseUnavailable):
            await save(database, [turn(new_message_id())])


async def works(database: Database) -> None:
    row = turn(new_message_id())
    await save(database, [row])
    assert await messages.load(database, row.id) == row


async def test_a_server_that_is_not_there_is_away() -> None:
    database = Database("postgresql+asyncpg://me@127.0.0.1:1/x")
    await refused(database)
    await database.aclose()


async def test_a_wrong_password_is_away_and_is_not_told(own_postgres: PostgresServer) -> None:
    data = own_postgres.log.parent / "data" / "pg_hba.conf"
    data.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    own_postgres.stop()
    own_postgres.start()
    url = own_postgres.url().replace("postgres@", "postgres:hush@")
    database = Database(url)
    with pytest.raises(DatabaseUnavailable) as caught:
        await save(database, [turn(new_message_id())])
    assert "hush" not in str(caught.value)
    await database.aclose()


async def test_asyncpgs_numbers_may_be_in_the_address(own_postgres: PostgresServer) -> None:
    numbers = (
        "statement_cache_size=0&max_cached_statement_lifetime=0&max_cacheable_statement_size=0"
    )
    database = Database(f"{own_postgres.url()}?{numbers}&prepared_statement_cache_size=0")
    await schema.migrate(database)
    await works(database)
    await database.aclose()


async def test_a_database_without_its_tables_is_away(empty_database: Database) -> None:
    await refused(empty_database)


async def test_after_a_kill_and_a_restart_of_the_server_the_same_database_works(
    own_postgres: PostgresServer, on_own: Database
) -> None:
    await works(on_own)
    own_postgres.kill()
    await refused(on_own)
    own_postgres.start()
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            try:
                await works(on_own)
                break
            except DatabaseUnavailable:  # it may still be replaying, or the pool's are dead
                await asyncio.sleep(0.05)


def hang_up(server: PostgresServer) -> None:
    """Let the server end its connections, as a restart does."""
    ours = "FROM pg_stat_activity WHERE application_name = 'rejoin'"
    server.sql(f"SELECT pg_terminate_backend(pid, 5000) {ours}")


async def test_the_first_after_a_restart_of_the_server_does_not_notice(
    own_postgres: PostgresServer, on_own: Database
) -> None:
    await works(on_own)
    hang_up(own_postgres)
    for _ in range(5):
        await asyncio.sleep(0)  # the loop reads of it
    await works(on_own)


async def test_a_connection_that_was_idle_is_asked_whether_it_lives(
    own_postgres: PostgresServer, on_own: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await works(on_own)
    hang_up(own_postgres)  # the loop has not read of it
    monkeypatch.setattr(engine, "_IDLE_SECONDS", 0.0)
    await works(on_own)


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_does_not_answer_is_away_within_a_bound(
    own_postgres: PostgresServer, on_own: Database
) -> None:
    await works(on_own)
    own_postgres.pause()
    try:
        await refused(on_own)
        await refused(on_own)
    finally:
        own_postgres.resume()
    await works(on_own)


@pytest.mark.usefixtures("hasty")
async def test_closing_does_not_wait_for_a_server_that_does_not_answer(
    own_postgres: PostgresServer, on_own: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await works(on_own)
    own_postgres.pause()
    try:
        await asyncio.wait_for(on_own.aclose(), BOUND_SECONDS)
    finally:
        own_postgres.resume()
    assert caplog.text == "", "it is no error of ours"


@pytest.mark.usefixtures("hasty")
async def test_a_slow_statement_is_ended(on_own: Database) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(DatabaseUnavailable):
            async with on_own.reading() as connection:
                await connection.execute(text("SELECT pg_sleep(60)"))
    await works(on_own)


@pytest.mark.usefixtures("hasty")
async def test_a_locked_file_is_away_and_the_loop_goes_on(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'rejoin.db'}"
    holder, database = Database(url), Database(url)
    await schema.migrate(holder)
    gaps = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    ticking = asyncio.create_task(tick())
    try:
        async with holder.writing():
            await refused(database)
            assert await messages.load(database, new_message_id()) is None, "readers do not wait"
        await works(database)
    finally:
        ticking.cancel()
        await holder.aclose()
        await database.aclose()
    assert len(gaps) > 10, "the loop went on while the statement waited for the lock"


async def test_what_was_not_committed_is_not_there(database: Database) -> None:
    row = turn(new_message_id())
    await save(database, [row])

    async def begin_and_fail() -> None:
        async with database.writing() as connection:
            await connection.execute(text("DELETE FROM messages"))
            raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        await begin_and_fail()
    assert await messages.load(database, row.id) == row


async def test_many_at_once_wait_for_one_another(database: Database) -> None:
    rows = [turn(new_message_id(), f"{number}") for number in range(40)]
    await asyncio.gather(*(save(database, [row]) for row in rows))
    for row in rows[::13]:
        assert await messages.load(database, row.id) == row
