"""Fixtures of the fault tests: processes with short keep-alives and leases, whole for each test."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from redis.asyncio import Redis

from tests.support.caller import Caller, caller
from tests.support.going_on import Staged, staged
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer, redis_server

SETTINGS = {"REJOIN_KEEPALIVE_SECONDS": "0.4", "REJOIN_LEASE_SECONDS": "1"}


class Whole:
    """An API and a worker on a Redis that keeps what it acknowledged.

    The next test gets the same ones where this one left them whole, and new ones where it killed,
    restarted or added any: starting them takes longer than most tests.
    """

    def __init__(self) -> None:
        self._ends = ExitStack()
        self._stack: Stack | None = None
        self._pids: list[int] = []

    def stack(self) -> Stack:
        """Return processes that nobody has harmed."""
        if self._stack is None or self._pids != _pids(self._stack):
            self.close()
            redis = self._ends.enter_context(redis_server(appendonly=True))
            self._stack = self._ends.enter_context(rejoin_stack(redis, settings=SETTINGS))
            self._pids = _pids(self._stack)
        return self._stack

    def close(self) -> None:
        """End them."""
        self._stack = None
        self._ends.close()


def _pids(stack: Stack) -> list[int]:
    processes = [*stack.apis, *stack.workers]
    return [stack.redis.pid, *(process.pid if process.running else 0 for process in processes)]


@pytest.fixture(scope="session")
def whole() -> Iterator[Whole]:
    """The processes of the run, kept from test to test as long as they are whole."""
    holder = Whole()
    yield holder
    holder.close()


@pytest.fixture
def stack(whole: Whole) -> Iterator[Stack]:
    """An API and a worker for a test to break; nobody logs a traceback."""
    running = whole.stack()
    for process in (running.api, running.worker):
        process.mark()
    yield running
    try:
        running.assert_no_traceback()
    except AssertionError:
        whole.close()
        raise


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[Caller]:
    """A caller of that API."""
    async with caller(stack.url) as api:
        yield api


@pytest.fixture
def idle_stack(own_redis: RedisServer) -> Iterator[Stack]:
    """An API without a worker: a test starts its own."""
    with rejoin_stack(own_redis, workers=0, settings=SETTINGS) as running:
        yield running
        running.assert_no_traceback()


@pytest.fixture
def serving(redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Staged:
    """Runs models that go on with a part of their answer, all with the same settings."""
    return partial(staged, redis, clean_redis_url, monkeypatch)
