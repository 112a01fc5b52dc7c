"""JSON pages on a real Redis: what they hold, and what a wait wakes on."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from rejoin.api.app import Application, create_app
from rejoin.shared import keys
from rejoin.shared.db import schema
from rejoin.shared.settings import Settings
from tests.support import messages
from tests.support.redis_server import RedisServer
from tests.support.writer import OWNER, Writer

JSON = {"accept": "application/json"}


@pytest.fixture
async def app(clean_redis_url: str, tmp_path: Path) -> AsyncIterator[Application]:
    made = create_app(Settings(redis_url=clean_redis_url, data_dir=tmp_path))
    async with made.lifespan():
        assert await schema.prepare(made.context.database)
        yield made


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://api", headers=JSON
    ) as made:
        yield made


async def page(
    client: httpx.AsyncClient, writer: Writer, after: str | None = None, **query: Any
) -> dict[str, Any]:
    """Ask for one page."""
    headers = {} if after is None else {"last-event-id": after}
    response = await client.get(
        f"/api/messages/{writer.message_id}/events", params=query, headers=headers
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    return body


async def waiting(
    client: httpx.AsyncClient, redis: Redis, writer: Writer, after: str | None = None
) -> "asyncio.Task[dict[str, Any]]":
    """A page that is waited for; it listens already."""
    task = asyncio.create_task(page(client, writer, after, wait=60))

    async def listens() -> bool:
        ((_, count),) = await redis.pubsub_numsub(keys.live(writer.message_id))
        return int(count) == 1

    await messages.until(listens)
    return task


def ids(body: dict[str, Any]) -> list[str]:
    """The page's events' ids."""
    return [event["id"] for event in body["events"]]


async def test_pages_follow_each_other_to_the_end(client: httpx.AsyncClient, redis: Redis) -> None:
    writer = await Writer.begin(redis)
    await writer.append(messages.start(writer.message_id), "a", "b")
    assert await page(client, writer, limit=2) == {
        "events": [
            {
                "id": "1-0",
                "event": "start",
                "data": json.loads(messages.start(writer.message_id).json()),
            },
            {"id": "1-1", "event": "text", "data": {"text": "a"}},
        ],
        "next": "1-1",
        "ended": False,
    }
    await writer.end()
    rest = await page(client, writer, "1-1", limit=3)
    assert (ids(rest), rest["next"], rest["ended"]) == (["1-2", "1-3", "1-4"], "1-4", True)
    assert await page(client, writer, "1-4") == {"events": [], "next": "1-4", "ended": True}


async def test_an_empty_log_has_no_next(client: httpx.AsyncClient, redis: Redis) -> None:
    writer = await Writer.begin(redis)
    assert await page(client, writer) == {"events": [], "next": None, "ended": False}


async def test_what_no_event_of_the_page_ends_is_not_ended(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    writer = await Writer.begin(redis)
    await writer.append("a")
    await writer.end()
    assert (await page(client, writer, limit=2))["ended"] is False
    assert (await page(client, writer, limit=3))["ended"] is True


async def test_a_page_has_500_events_unless_asked_for_others(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    writer = await Writer.begin(redis)
    await writer.append(*(["x"] * 1200))
    assert len((await page(client, writer))["events"]) == 500
    assert len((await page(client, writer, limit=1000))["events"]) == 1000
    last = await page(client, writer, "1-999", limit=1000)
    assert (len(last["events"]), last["next"], last["ended"]) == (200, "1-1199", False)


async def test_a_wait_ends_with_what_is_published(client: httpx.AsyncClient, redis: Redis) -> None:
    writer = await Writer.begin(redis)
    await writer.append("a")
    task = await waiting(client, redis, writer, "1-0")
    await writer.append("b")
    async with asyncio.timeout(2):
        assert ids(await task) == ["1-1"]


async def test_a_wait_ends_with_the_end(client: httpx.AsyncClient, redis: Redis) -> None:
    writer = await Writer.begin(redis)
    task = await waiting(client, redis, writer)
    await writer.end()
    async with asyncio.timeout(2):
        body = await task
    assert ([event["event"] for event in body["events"]], body["ended"]) == (
        ["usage", "done"],
        True,
    )


async def test_a_wait_ends_with_the_drain(
    client: httpx.AsyncClient, app: Application, redis: Redis
) -> None:
    writer = await Writer.begin(redis)
    task = await waiting(client, redis, writer)
    app.context.hub.drain()
    async with asyncio.timeout(2):
        assert await task == {"events": [], "next": None, "ended": False}
        assert (await page(client, writer, wait=60))["events"] == []


async def test_a_wait_ends_with_its_time(client: httpx.AsyncClient, redis: Redis) -> None:
    writer = await Writer.begin(redis)
    async with asyncio.timeout(5):
        assert (await page(client, writer, wait=0.1))["events"] == []


async def test_a_wait_for_a_message_that_vanishes_is_404(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    writer = await Writer.begin(redis)
    address = f"/api/messages/{writer.message_id}/events?wait=60"
    task = asyncio.create_task(client.get(address))

    async def listens() -> bool:
        ((_, count),) = await redis.pubsub_numsub(keys.live(writer.message_id))
        return int(count) == 1

    await messages.until(listens)
    await redis.flushall()
    await redis.publish(keys.live(writer.message_id), "1 0 0 0\n")
    async with asyncio.timeout(5):
        assert (await task).status_code == 404


async def test_a_wait_outlives_the_subscriptions_loss(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    writer = await Writer.begin(redis)
    task = await waiting(client, redis, writer)
    await redis.client_kill_filter(_type="pubsub")
    await writer.append("a")
    async with asyncio.timeout(4):
        assert ids(await task) == ["1-0"]


async def test_when_the_wait_is_over_nobody_listens(
    client: httpx.AsyncClient, app: Application, redis: Redis
) -> None:
    writer = await Writer.begin(redis)
    for _ in range(3):
        await page(client, writer, wait=0.01)
    await messages.until_true(lambda: app.context.hub._channels == {})


@pytest.mark.parametrize("limit", [1, 2, 500])
async def test_an_unknown_position_is_a_reset_and_the_log_from_its_start(
    client: httpx.AsyncClient, redis: Redis, limit: int
) -> None:
    writer = await Writer.begin(redis)
    await writer.append("a", "b", "c")
    body = await page(client, writer, "1-3", limit=limit, wait=60)
    reset, *events = body["events"]
    assert (reset["id"], reset["event"]) == (None, "reset")
    assert (reset["data"]["after"], reset["data"]["reason"]) == (None, "position_unknown")
    expected = ["1-0", "1-1", "1-2"][:limit]
    assert ([event["id"] for event in events], body["next"]) == (expected, expected[-1])
    assert body["ended"] is False


async def test_an_unknown_position_in_an_empty_log_is_a_reset_alone(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    body = await page(client, await Writer.begin(redis), "1-0")
    assert [event["event"] for event in body["events"]] == ["reset"]
    assert (body["next"], body["ended"]) == (None, False)


async def test_another_owners_message_is_an_unknown_one(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    writer = await Writer.begin(redis, owner=f"not {OWNER}")
    await writer.append("secret")
    for query in ("", "?wait=1", "?last_event_id=9-9"):
        response = await client.get(f"/api/messages/{writer.message_id}/events{query}")
        assert response.status_code == 404
        assert "secret" not in response.text


@pytest.mark.parametrize("stalls", [False, True])
async def test_while_redis_is_away_a_page_is_503_within_5_s(
    own_redis: RedisServer, tmp_path: Path, stalls: bool
) -> None:
    app = create_app(Settings(redis_url=own_redis.url, data_dir=tmp_path))
    transport = httpx.ASGITransport(app)
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://api", headers=JSON) as client,
    ):
        if stalls:
            own_redis.pause()
        else:
            own_redis.kill()
        async with asyncio.timeout(5.5):
            response = await client.get(
                "/api/messages/01980000-0000-7000-8000-000000000000/events?wait=60"
            )
        assert response.status_code == 503
        assert response.headers["retry-after"]
        if stalls:
            own_redis.resume()
