"""An API's parts in this process, on a Redis of their own."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import fakeredis
import httpx
import pytest
from redis.asyncio import Redis

from rejoin.api.app import create_app
from rejoin.api.context import Context
from rejoin.shared.db import schema
from rejoin.shared.db.engine import FILE, Database
from rejoin.shared.settings import Settings
from tests.support.tails import MemoryHub, Socket, memory_hub

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file with its tables, to be copied: to migrate takes longer than a test."""
    settings = Settings.model_construct(data_dir=tmp_path_factory.mktemp("migrated"))

    async def migrate() -> None:
        database = Database.of(settings)
        await schema.migrate(database)
        await database.aclose()

    asyncio.run(migrate())
    return settings.data_dir / FILE


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    """The defaults, whatever the environment says; no Redis is there, and an empty history."""
    shutil.copy(migrated, tmp_path / FILE)
    return Settings.model_construct(redis_url=NOWHERE, data_dir=tmp_path)


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    """An empty Redis within this process."""
    client: Redis = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    yield client
    await client.aclose()


@pytest.fixture
async def context(settings: Settings, redis: Redis) -> AsyncIterator[Context]:
    """What endpoints work with; the hub is not entered: nothing here is published."""
    made = create_app(settings).context
    yield Context(settings, redis, made.hub, made.database, made.history)
    await made.database.aclose()


@pytest.fixture
async def away(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application whose Redis is away."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://api") as client,
    ):
        yield client


@pytest.fixture
async def hub() -> AsyncIterator[MemoryHub]:
    """A hub without Redis; it fails a test that leaves a tail or a task of one behind."""
    async with memory_hub() as hub:
        yield hub


@pytest.fixture
def socket() -> Socket:
    """A client's side of what is sent."""
    return Socket()
