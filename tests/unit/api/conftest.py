"""An API's parts in this process, on a Redis of their own."""

from collections.abc import AsyncIterator

import fakeredis
import httpx
import pytest
from redis.asyncio import Redis

from rejoin.api.app import create_app
from rejoin.api.context import Context
from rejoin.shared.db.engine import Database
from rejoin.shared.settings import Settings

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def settings() -> Settings:
    """The defaults, whatever the environment says; no Redis is there."""
    return Settings.model_construct(redis_url=NOWHERE)


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    """An empty Redis within this process."""
    client: Redis = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    yield client
    await client.aclose()


@pytest.fixture
def context(settings: Settings, redis: Redis) -> Context:
    """What endpoints work with; the hub is not entered: nothing here is published."""
    made = create_app(settings).context
    return Context(settings, redis, made.hub, Database.of(settings))


@pytest.fixture
async def away(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application whose Redis is away."""
    transport = httpx.ASGITransport(create_app(settings), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client
