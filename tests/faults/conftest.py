"""Fixtures of the fault tests: a Redis of one's own, and short keep-alives and leases."""

from collections.abc import Iterator

import pytest

from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer

SETTINGS = {"REJOIN_KEEPALIVE_SECONDS": "0.4", "REJOIN_LEASE_SECONDS": "1"}


@pytest.fixture
def stack(own_redis: RedisServer) -> Iterator[Stack]:
    """An API and a worker on a Redis that keeps what it acknowledged; nobody logs a traceback."""
    with rejoin_stack(own_redis, settings=SETTINGS) as running:
        yield running
        running.assert_no_traceback()


@pytest.fixture
def idle_stack(own_redis: RedisServer) -> Iterator[Stack]:
    """The same without a worker: a test starts its own."""
    with rejoin_stack(own_redis, workers=0, settings=SETTINGS) as running:
        yield running
        running.assert_no_traceback()
