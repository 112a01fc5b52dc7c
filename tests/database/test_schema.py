"""The schema: made by migrations, the same as the tables', and a database behind is refused."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from rejoin.client.commands import database_check
from rejoin.shared.db import schema, tables
from rejoin.shared.db.engine import Database
from rejoin.shared.errors import DatabaseUnavailable, SettingsError
from rejoin.shared.redis_check import Grade
from rejoin.shared.settings import Settings
from tests.support.redis_server import RedisServer


def run(module: str, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: v for name, v in os.environ.items() if not name.startswith("REJOIN_")}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def migrate(**settings: str) -> "subprocess.CompletedProcess[str]":
    code = "from rejoin.client.commands.main import main; main(['migrate'])"
    environment = {name: v for name, v in os.environ.items() if not name.startswith("REJOIN_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def version(database: Database) -> str | None:
    async with database.reading() as connection:
        found = await connection.execute(text("SELECT version_num FROM alembic_version"))
        return found.scalar()


async def set_version(database: Database, to: str) -> None:
    async with database.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": to})


async def test_from_empty_the_migrations_make_what_the_tables_say(
    empty_database: Database,
) -> None:
    assert await schema.migrate(empty_database) == list(schema.REVISIONS)

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, tables.metadata))

    async with empty_database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_foreign_ids_are_indexed_and_named(database: Database) -> None:
    def first_columns(connection: Connection, table: str) -> set[str | None]:
        seen = inspect(connection)
        indexes = {index["column_names"][0] for index in seen.get_indexes(table)}
        return indexes | {seen.get_pk_constraint(table)["constrained_columns"][0]}

    async with database.reading() as connection:
        messages = await connection.run_sync(first_columns, "messages")
        calls = await connection.run_sync(first_columns, "tool_calls")
    assert {"conversation_id", "parent_id"} <= messages
    assert "message_id" in calls


def test_the_known_revisions_are_the_files() -> None:
    config = Config()
    config.set_main_option("script_location", schema.MIGRATIONS)
    scripts = list(ScriptDirectory.from_config(config).walk_revisions())
    assert [script.revision for script in reversed(scripts)] == list(schema.REVISIONS)


async def test_migrating_again_does_nothing(database: Database) -> None:
    assert await schema.migrate(database) == []
    assert await version(database) == schema.REVISIONS[-1]


async def test_two_that_migrate_at_once_take_turns(empty_url: str) -> None:
    databases = [Database(empty_url) for _ in range(4)]
    try:
        done = await asyncio.gather(*(schema.migrate(one) for one in databases))
        assert sorted(done) == [[], [], [], list(schema.REVISIONS)]
    finally:
        for one in databases:
            await one.aclose()


async def test_an_empty_database_is_behind(empty_database: Database) -> None:
    with pytest.raises(SettingsError, match="rejoin migrate"):
        await schema.prepare(empty_database)


async def test_a_database_at_an_earlier_version_is_behind_and_at_a_later_one_is_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await schema.prepare(database)
    await set_version(database, "9999")
    assert await schema.prepare(database), "a newer version runs beside this one"
    assert await schema.migrate(database) == []
    await set_version(database, schema.REVISIONS[-1])
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "next"))
    with pytest.raises(SettingsError, match="rejoin migrate"):
        await schema.prepare(database)


async def test_a_database_whose_migrations_are_another_programs_is_refused(
    empty_url: str, empty_database: Database
) -> None:
    async with empty_database.writing() as connection:
        await connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        await connection.execute(text("INSERT INTO alembic_version VALUES ('ab12')"))
    for use in (schema.prepare, schema.migrate):
        with pytest.raises(SettingsError, match="is another program's"):
            await use(empty_database)
    found = await database_check.look(Settings(database_url=empty_url))
    assert found.grade is Grade.BROKEN
    assert "is another program's" in found.sentence


async def test_what_is_said_of_a_database_holds_no_password(empty_database: Database) -> None:
    database = Database("postgresql+asyncpg://me:hush@127.0.0.1:1/x")
    assert "hush" not in database.name
    assert not await schema.prepare(database), "away is not behind"


async def test_the_default_file_migrates_itself(tmp_path: Path) -> None:
    database = Database.of(Settings(data_dir=tmp_path / "new"))
    try:
        assert await schema.prepare(database)
        assert await version(database) == schema.REVISIONS[-1]
        async with database.reading() as connection:
            mode = (await connection.execute(text("PRAGMA journal_mode"))).scalar()
            keys = (await connection.execute(text("PRAGMA foreign_keys"))).scalar()
        assert (mode, keys) == ("wal", 1)
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    finally:
        await database.aclose()


async def test_a_directory_that_cannot_be_made_is_said_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    database = Database.of(Settings(data_dir=tmp_path / "file" / "below"))
    with pytest.raises(SettingsError, match="REJOIN_DATA_DIR"):
        await schema.prepare(database)


async def test_a_file_that_is_locked_for_long_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("rejoin.shared.db.engine._STATEMENT_SECONDS", 0.1)
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"
    holder, database = Database(url), Database(url)
    try:
        await schema.migrate(holder)
        async with holder.writing():
            with pytest.raises(DatabaseUnavailable):
                await schema.migrate(database)
        assert await schema.migrate(database) == []
    finally:
        await holder.aclose()
        await database.aclose()


def test_the_command_migrates_and_says_so(empty_url: str) -> None:
    first, second = (migrate(REJOIN_DATABASE_URL=empty_url) for _ in range(2))
    assert (first.returncode, first.stderr) == (0, "")
    assert schema.REVISIONS[-1] in first.stdout
    assert (second.returncode, second.stdout) == (0, "the database is up to date\n")


def test_the_command_says_that_a_database_is_away() -> None:
    done = migrate(REJOIN_DATABASE_URL="postgresql+asyncpg://me:hush@127.0.0.1:1/x")
    assert done.returncode == 1
    assert done.stderr.startswith("rejoin: the database is away")
    assert "hush" not in done.stderr


@pytest.mark.parametrize("module", ["rejoin.api", "rejoin.worker"])
@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_a_process_refuses_a_database_that_is_behind(
    empty_url: str, session_redis: RedisServer, module: str, arguments: list[str]
) -> None:
    settings = {"REJOIN_DATABASE_URL": empty_url, "REJOIN_REDIS_URL": session_redis.url}
    done = run(module, *arguments, **settings, REJOIN_PORT="0")
    assert done.returncode == 2
    assert "rejoin migrate" in done.stderr
    assert "Traceback" not in done.stderr
