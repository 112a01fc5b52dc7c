"""Fixtures of every test: real Redis servers, a client, a stack; the logs where a test fails."""

from collections.abc import AsyncIterator, Generator, Iterator

import pytest
from redis.asyncio import Redis

from rejoin.shared.connections import open_redis
from tests.support import processes
from tests.support.processes import Stack
from tests.support.redis_server import RedisServer, redis_server

LOG_TAIL = 12_000


@pytest.fixture(scope="session")
def session_redis() -> Iterator[RedisServer]:
    """One server for the whole run. Nobody kills it: whoever wants to takes `own_redis`."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(session_redis: RedisServer) -> str:
    """The session's server; what earlier tests wrote is still in it."""
    return session_redis.url


@pytest.fixture
def clean_redis_url(session_redis: RedisServer) -> str:
    """The session's server, emptied."""
    with session_redis.client() as client:
        client.flushall()
    return session_redis.url


@pytest.fixture
async def redis(clean_redis_url: str) -> AsyncIterator[Redis]:
    """A client of the session's server, emptied."""
    client = open_redis(clean_redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server of this test's own, that keeps what it acknowledged over a kill -9."""
    with redis_server(appendonly=True) as server:
        yield server


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """A folder's shared processes; a traceback in their logs fails the test that caused it."""
    yield shared_stack
    shared_stack.assert_no_traceback()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the processes logged during a failed test to its report."""
    report = yield
    if report.failed:
        for process in processes.started:
            said = process.said(process.marked)[-LOG_TAIL:]
            if said:
                report.sections.append((f"log of {process.name}", said))
    return report


@pytest.fixture(autouse=True)
def _logs_of_this_test_alone() -> Iterator[None]:
    for process in processes.started:
        process.mark()
    yield
    processes.started[:] = [process for process in processes.started if process.running]
