"""The database away from an API: what needs it says so in time, and a tail waits for it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from rejoin.shared.db import schema
from rejoin.shared.db.engine import Database
from rejoin.shared.ids import new_message_id
from tests.support.caller import (
    Caller,
    Stopwatch,
    assert_try_later,
    caller,
    until,
    visible_text,
)
from tests.support.postgres_server import PostgresServer, postgres_server
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import open_tail

Outage = Callable[[PostgresServer], AbstractContextManager[None]]
JSON = {"Accept": "application/json"}


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A migrated PostgreSQL of this test's own."""
    with postgres_server() as server:

        async def migrate() -> None:
            database = Database(server.url())
            await schema.migrate(database)
            await database.aclose()

        asyncio.run(migrate())
        yield server


@pytest.fixture
def forgetful(own_redis: RedisServer, postgres: PostgresServer) -> Iterator[Stack]:
    """An API and a worker on it, whose logs live a second."""
    settings = {
        "REJOIN_DATABASE_URL": postgres.url(),
        "REJOIN_LOG_TTL_SECONDS": "1",
        "REJOIN_KEEPALIVE_SECONDS": "0.5",
    }
    with rejoin_stack(own_redis, settings=settings) as stack:
        yield stack
        stack.assert_no_traceback()


@contextmanager
def killed(postgres: PostgresServer) -> Iterator[None]:
    postgres.kill()
    yield
    postgres.start()


@contextmanager
def paused(postgres: PostgresServer) -> Iterator[None]:
    postgres.pause()
    try:
        yield
    finally:
        postgres.resume()


async def expired(api: Caller, redis: RedisServer) -> tuple[str, str]:
    """A message that Redis has forgotten, and its conversation."""
    body = (await api.post("one two")).json()
    message_id: str = body["message_id"]
    await api.log(message_id)
    with redis.client() as client:

        async def gone() -> bool:
            return client.keys(f"*{message_id}*") == []

        await until(gone, within=20)
    return message_id, body["conversation_id"]


@pytest.mark.parametrize("away", [killed, paused])
async def test_it_is_told_in_time_and_a_tail_goes_on_when_it_is_back(
    forgetful: Stack, postgres: PostgresServer, away: Outage
) -> None:
    async with caller(forgetful.url) as api:
        message_id, conversation_id = await expired(api, forgetful.redis)
        conversation = f"/api/conversations/{conversation_id}"
        asked = [
            ("GET", "/api/conversations", {}),
            ("GET", conversation, {}),
            ("DELETE", conversation, {}),
            ("GET", f"/api/messages/{message_id}", {}),
            ("POST", f"/api/messages/{message_id}/cancel", {}),
            ("GET", f"/api/messages/{message_id}/events", JSON),
        ]
        # Connected already, as an API is that runs for a while: what is open may fall silent.
        assert (await api.http.get(conversation)).status_code == 200
        with away(postgres):
            for method, path, headers in asked:
                watch = Stopwatch()
                assert_try_later(await api.http.request(method, path, headers=headers))
                assert watch.seconds < 5
            tail_of_it = open_tail(api.events(message_id), last_event_id="1-1")
            tail_of_nothing = open_tail(api.events(new_message_id()))
            tail = await tail_of_it.__aenter__()
            nothing = await tail_of_nothing.__aenter__()
            await tail.read_comments(2, within=20)
            await nothing.read_comments(2, within=20)
            assert tail.frames == nothing.frames == []
        assert visible_text(await tail.read_until_end(within=20)) == "one two"
        assert await nothing.read_until_end(within=20) == []
        await tail_of_it.__aexit__(None, None, None)
        await tail_of_nothing.__aexit__(None, None, None)
        assert (await api.http.delete(conversation)).status_code == 204


async def test_streams_and_their_snapshots_do_not_need_it(
    forgetful: Stack, postgres: PostgresServer
) -> None:
    async with caller(forgetful.url) as api:
        with killed(postgres):
            message_id = await api.accepted("one two")
            assert visible_text(await api.log(message_id)) == "one two"
            assert (await api.snapshot(message_id))["status"] == "done"
