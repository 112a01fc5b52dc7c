"""One API, one worker and one Redis for what does not break them."""

from collections.abc import Iterator

import pytest

from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer, redis_server

SETTINGS = {"REJOIN_KEEPALIVE_SECONDS": "0.5", "REJOIN_RETRY_MILLISECONDS": "50"}
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
