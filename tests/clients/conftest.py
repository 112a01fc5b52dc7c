"""One API, one worker and one Redis for what does not break them."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.clients.tool_stack import (
    SETTINGS,
    ToolProcesses,
    ToolStack,
    tool_processes,
    tool_stack,
)
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer, redis_server

FAST_TAKEOVER = {**SETTINGS, "REJOIN_LEASE_SECONDS": "1"}


@pytest.fixture(scope="session")
def shared_stack() -> Iterator[Stack]:
    """What most of these tests share."""
    with redis_server() as redis, rejoin_stack(redis, settings=SETTINGS) as stack:
        yield stack


@pytest.fixture
def own_stack(own_redis: RedisServer) -> Iterator[Stack]:
    """Processes of this test's own, to be killed, with a short lease."""
    with rejoin_stack(own_redis, settings=FAST_TAKEOVER) as running:
        yield running
        running.assert_no_traceback()


@pytest.fixture(scope="session")
def with_tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolProcesses]:
    """What the tests of tools share."""
    with tool_processes(tmp_path_factory.mktemp("tools")) as running:
        yield running


@pytest.fixture
async def made(with_tools: ToolProcesses) -> AsyncIterator[ToolStack]:
    """Processes with tools, and a provider of this test's own."""
    async with tool_stack(with_tools) as made:
        yield made
