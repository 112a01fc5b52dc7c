"""A new tail while Redis is away: 200, `retry:` and comments; what it turns out to be, later."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rejoin.api.app import Application, create_app
from rejoin.shared.db import schema
from rejoin.shared.settings import Settings
from tests.support.asgi_call import AsgiCall, asgi_call, scope_of
from tests.support.messages import until, until_true
from tests.support.redis_server import RedisServer
from tests.support.writer import OWNER, Writer

UNKNOWN_ID = "01980000-0000-7000-8000-000000000000"
COME_BACK = 15.0


@pytest.fixture
async def app(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Application]:
    settings = Settings(redis_url=own_redis.url, keepalive_seconds=0.4, data_dir=tmp_path)
    made = create_app(settings)
    async with made.lifespan():
        assert await schema.prepare(made.context.database)
        yield made


def events_of(message_id: str, **headers: str) -> dict[str, object]:
    """A request for a message's events."""
    return scope_of(f"/api/messages/{message_id}/events", headers=headers)


async def begun(redis: Redis, *, owner: str = OWNER) -> Writer:
    """A message with two events."""
    writer = await Writer.begin(redis, owner=owner)
    await writer.append("a", "b")
    return writer


async def assert_held(call: AsgiCall) -> None:
    """The stream is open, and speaks only in comments."""
    assert call.status == 200
    assert call.headers["content-type"] == "text/event-stream"
    await until_true(lambda: call.socket.comments >= 3)
    assert call.socket.body.startswith(b"retry: 1000\n")
    assert (call.socket.events, call.socket.ended) == (b"", False)


@pytest.mark.parametrize("stalls", [False, True])
async def test_it_goes_on_by_itself_when_redis_is_back(
    app: Application, own_redis: RedisServer, own_client: Redis, stalls: bool
) -> None:
    writer = await begun(own_client)
    if stalls:
        own_redis.pause()
    else:
        own_redis.kill()
    async with (
        asgi_call(app, events_of(writer.message_id)) as call,
        asgi_call(app, events_of(writer.message_id, **{"last-event-id": "1-0"})) as resumed,
    ):
        await assert_held(call)
        await assert_held(resumed)
        if stalls:
            own_redis.resume()
        else:
            own_redis.start()
        await until_true(lambda: call.socket.events != b"", within=COME_BACK)
        await writer.append("c")
        await writer.end()
        await call.until_ended(COME_BACK)
        await resumed.until_ended(COME_BACK)
        log = await writer.whole()
        assert call.socket.events == b"".join(log)
        assert resumed.socket.events == b"".join(log[1:])


@pytest.mark.parametrize("whose", ["nobody's", "another's"])
async def test_it_ends_without_an_event_when_the_message_is_not_the_callers(
    app: Application, own_redis: RedisServer, own_client: Redis, whose: str
) -> None:
    writer = await begun(own_client, owner="another")
    message_id = UNKNOWN_ID if whose == "nobody's" else writer.message_id
    own_redis.kill()
    async with asgi_call(app, events_of(message_id, **{"last-event-id": "9-9"})) as call:
        await assert_held(call)
        own_redis.start()
        await call.until_ended(COME_BACK)
        assert call.socket.events == b""

    async def is_unknown() -> bool:
        # 200 as long as a first look at Redis or the database is late.
        async with asgi_call(app, events_of(message_id)) as again:
            return again.status == 404

    await until(is_unknown, within=COME_BACK)


async def test_a_client_that_saw_the_end_is_let_go_and_then_gets_204(
    app: Application, own_redis: RedisServer, own_client: Redis
) -> None:
    writer = await begun(own_client)
    await writer.end()
    own_redis.kill()
    async with asgi_call(app, events_of(writer.message_id, **{"last-event-id": "1-3"})) as call:
        await assert_held(call)
        own_redis.start()
        await call.until_ended(COME_BACK)
        assert call.socket.events == b""
    async with asgi_call(app, events_of(writer.message_id, **{"last-event-id": "1-3"})) as again:
        assert again.status == 204


async def test_a_position_that_redis_lost_is_reset_when_it_is_back(
    app: Application, own_redis: RedisServer, own_client: Redis
) -> None:
    writer = await begun(own_client)
    own_redis.kill()
    async with asgi_call(app, events_of(writer.message_id, **{"last-event-id": "1-9"})) as call:
        await assert_held(call)
        own_redis.start()
        await until_true(lambda: b"id: 1-1" in call.socket.events, within=COME_BACK)
        reset, *rest = call.socket.events.split(b"\n\n")
        assert reset.startswith(b"event: reset\n")
        assert b"position_unknown" in reset
        assert b"\nid: " not in reset
        assert b"\n\n".join(rest) == b"".join(await writer.whole())


@pytest.mark.parametrize("stalls", [False, True])
async def test_a_drain_ends_it_in_time(
    app: Application, own_redis: RedisServer, stalls: bool
) -> None:
    if stalls:
        own_redis.pause()
    else:
        own_redis.kill()
    async with asgi_call(app, events_of(UNKNOWN_ID)) as call:
        await assert_held(call)
        app.context.hub.drain()
        await call.until_ended(within=3)
        assert call.socket.messages[-1]["body"].startswith(b"retry: ")
        assert call.socket.events == b""


async def test_open_tails_hear_comments_while_redis_stalls_and_then_go_on(
    app: Application, own_redis: RedisServer, own_client: Redis
) -> None:
    writer = await begun(own_client)
    async with asgi_call(app, events_of(writer.message_id)) as call:
        await until_true(lambda: b"id: 1-1" in call.socket.events)
        with own_redis.paused():
            heard = call.socket.comments
            await until_true(lambda: call.socket.comments >= heard + 3)
        await writer.append("c")
        await writer.end()
        await call.until_ended(COME_BACK)
        assert call.socket.events == b"".join(await writer.whole())


async def test_many_tails_that_wait_are_served_when_redis_is_back(
    app: Application, own_redis: RedisServer, own_client: Redis
) -> None:
    writers = [await begun(own_client) for _ in range(20)]
    own_redis.kill()

    async def tail(writer: Writer) -> bytes:
        async with asgi_call(app, events_of(writer.message_id)) as call:
            await call.until_ended(COME_BACK)
            return call.socket.events

    async with asyncio.TaskGroup() as group:
        tails = [(writer, group.create_task(tail(writer))) for writer in writers * 20]
        await asyncio.sleep(1)
        own_redis.start()
        for writer in writers:
            await writer.end()
    for writer, got in tails:
        assert got.result() == b"".join(await writer.whole())
