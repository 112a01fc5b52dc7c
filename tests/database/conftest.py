"""Databases, SQLite and PostgreSQL alike: empty, migrated, and on a server of the test's own."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from rejoin.shared.db import schema
from rejoin.shared.db.engine import Database
from tests.database.talk import Talk
from tests.support.postgres_server import PostgresServer, postgres_server

KINDS: Final = ["sqlite", "postgresql"]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def session_postgres() -> Iterator[PostgresServer]:
    """One server for the whole run. Nobody kills it: whoever wants to takes `own_postgres`."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of this test's own."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'rejoin.db'}"
        return
    server: PostgresServer = request.getfixturevalue("session_postgres")
    name = f"test{next(_numbers)}"
    yield server.create(name)
    server.drop(name)


@pytest.fixture
async def empty_database(empty_url: str) -> AsyncIterator[Database]:
    """A database without tables."""
    database = Database(empty_url)
    yield database
    await database.aclose()


@pytest.fixture
async def database(empty_database: Database) -> Database:
    """A database with its tables, empty."""
    await schema.migrate(empty_database)
    return empty_database


@pytest.fixture
async def talk(redis: Redis, clean_redis_url: str, empty_url: str) -> Talk:
    """A conversation, nothing in it, on a migrated database of either kind."""
    database = Database(empty_url)
    await schema.migrate(database)
    await database.aclose()
    return Talk(redis, clean_redis_url, empty_url)
