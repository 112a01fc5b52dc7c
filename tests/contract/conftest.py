"""One API, one worker and one Redis for the whole folder, and an API that nobody works for."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.caller import Caller, caller
from tests.support.processes import Api, Stack, rejoin_stack
from tests.support.redis_server import redis_server

FAST = {"REJOIN_KEEPALIVE_SECONDS": "0.5"}
OTHER = {
    "REJOIN_DEFAULT_MODEL": "demo/echo?rate=0",
    "REJOIN_MAX_BODY_BYTES": "2000",
    "REJOIN_MAX_STREAM_SECONDS": "1",
    "REJOIN_CORS_ORIGINS": "http://a.example,http://b.example",
}


@pytest.fixture(scope="session")
def shared_stack() -> Iterator[Stack]:
    """What most of these tests share: an API and a worker on a Redis of their own."""
    with redis_server() as redis, rejoin_stack(redis, settings=FAST) as stack:
        yield stack


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[Caller]:
    """A caller of the shared API."""
    async with caller(stack.url) as speaker:
        yield speaker


@pytest.fixture(scope="session")
def shared_other_api(shared_stack: Stack) -> Api:
    """A second API on the same Redis, with settings of its own."""
    return shared_stack.new_api(**OTHER).start()


@pytest.fixture
async def other_api(shared_other_api: Api, stack: Stack) -> AsyncIterator[Caller]:
    """A caller of the second API: default model, small bodies, short streams, CORS."""
    assert shared_other_api in stack.apis
    async with caller(shared_other_api.url) as speaker:
        yield speaker


@pytest.fixture(scope="session")
def shared_idle_stack() -> Iterator[Stack]:
    """An API on a Redis without any worker: whatever is accepted stays queued."""
    with redis_server() as redis, rejoin_stack(redis, workers=0, settings=FAST) as stack:
        yield stack


@pytest.fixture
async def idle_api(shared_idle_stack: Stack) -> AsyncIterator[Caller]:
    """A caller of the API without a worker."""
    async with caller(shared_idle_stack.url) as speaker:
        yield speaker
    shared_idle_stack.assert_no_traceback()
