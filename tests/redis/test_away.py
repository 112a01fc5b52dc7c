"""When Redis is away: gone, full, silent, busy or read-only, and never for longer than a bound."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable
from threading import Thread
from typing import cast

import pytest
import redis as sync_redis
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rejoin.shared import log, queue, record
from rejoin.shared.connections import open_redis, ping, redis_or_away
from rejoin.shared.errors import LogUnavailable, MessageMissing
from tests.support.messages import accept, batch, claim, ids, start, until
from tests.support.redis_server import RedisServer, free_port, redis_server


@pytest.fixture(params=["redis-server", "redis-6.2"])
async def server(request: pytest.FixtureRequest) -> RedisServer:
    """A server that may be put into a bad way, if it is let out of it again."""
    name = "redis_6_2" if request.param == "redis-6.2" else "session_redis"
    found = request.getfixturevalue(name)
    assert isinstance(found, RedisServer)
    return found


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    opened = open_redis(server.url)
    yield opened
    await opened.aclose()


async def test_a_full_redis_is_away_and_keeps_no_half_of_a_batch(client: Redis) -> None:
    message_id = await accept(client)
    owner = await claim(client, message_id, "a")
    sent = batch(message_id, owner, 0, [start(message_id), "one", "two"])
    try:
        await client.config_set("maxmemory", "1")
        with pytest.raises(LogUnavailable, match="out of memory"):
            await log.append(client, sent)
        with pytest.raises(LogUnavailable, match="out of memory"):
            await accept(client)
        with pytest.raises(LogUnavailable):
            await claim(client, message_id, "b")
    finally:
        await client.config_set("maxmemory", "0")
    assert await ids(client, message_id) == []
    await log.append(client, sent)
    assert await ids(client, message_id) == ["1-0", "1-1", "1-2"]


async def test_a_full_redis_still_lets_jobs_go(client: Redis) -> None:
    message_id = await accept(client)
    await queue.enqueue(client, message_id, life_seconds=600, now_ms=0)
    try:
        await client.config_set("maxmemory", "1")
        with contextlib.suppress(LogUnavailable):
            await queue.complete(client, message_id)
    finally:
        await client.config_set("maxmemory", "0")
    assert await queue.complete(client, message_id)


async def test_a_read_only_redis_is_away(client: Redis) -> None:
    message_id = await accept(client)
    owner = await claim(client, message_id, "a")
    try:
        await cast(Awaitable[object], client.replicaof("127.0.0.1", str(free_port())))
        with pytest.raises(LogUnavailable):
            await log.append(client, batch(message_id, owner, 0, [start(message_id)]))
        with pytest.raises(LogUnavailable):
            await record.cancel(client, message_id)
        with pytest.raises(LogUnavailable):
            await queue.lease(client, token="t", lease_seconds=1, most=1, take_over=True)
    finally:
        await cast(Awaitable[object], client.replicaof("NO", "ONE"))
    await log.append(client, batch(message_id, owner, 0, [start(message_id)]))


async def test_a_redis_that_is_busy_with_somebodys_script_is_away(
    server: RedisServer, client: Redis
) -> None:
    message_id = await accept(client)
    owner = await claim(client, message_id, "a")
    await client.config_set("lua-time-limit", "20")

    def hog() -> None:
        with server.client() as other, contextlib.suppress(sync_redis.RedisError):
            other.eval("while true do end", 0)

    hogging = Thread(target=hog)
    hogging.start()
    seen = False

    async def busy() -> bool:
        nonlocal seen
        try:
            await log.append(client, batch(message_id, owner, 0, [start(message_id)]))
        except LogUnavailable:
            seen = True
        return seen

    try:
        await until(busy)
    finally:
        with server.client() as admin:
            admin.script_kill()
        hogging.join(10)
        await client.config_set("lua-time-limit", "5000")
    assert seen


async def test_a_redis_that_is_gone_is_away() -> None:
    with redis_server() as server:
        client = open_redis(server.url)
        message_id = await accept(client)
        owner = await claim(client, message_id, "a")
        server.kill()
        sent = batch(message_id, owner, 0, [start(message_id)])
        for call in (log.append(client, sent), log.read(client, message_id), ping(client)):
            with pytest.raises(LogUnavailable):
                await call
        server.start()
        with pytest.raises(MessageMissing):  # nothing was kept, and nothing is made up
            await log.append(client, sent)
        await client.aclose()


async def test_a_redis_that_does_not_answer_is_away_within_the_bound() -> None:
    with redis_server() as server:
        client = open_redis(server.url, timeout_seconds=0.2, retries=1)
        await ping(client)
        with server.paused():
            began = time.monotonic()
            with pytest.raises(LogUnavailable):
                await ping(client)
            assert time.monotonic() - began < 3
        await ping(client)
        await client.aclose()


async def test_a_command_whose_reply_was_lost_is_sent_again(clean_redis_url: str) -> None:
    client = open_redis(clean_redis_url)
    message_id = await accept(client)
    owner = await claim(client, message_id, "a")
    for first in range(5):
        await client.client_kill_filter(_type="normal", skipme=False)
        await log.append(client, batch(message_id, owner, first, [f"{first}"]))
    assert await ids(client, message_id) == [f"1-{n}" for n in range(5)]
    await client.aclose()


async def test_more_callers_than_connections_wait_their_turn(clean_redis_url: str) -> None:
    client = open_redis(clean_redis_url, connections=2)
    await asyncio.gather(*(ping(client) for _ in range(200)))
    await client.aclose()


async def test_a_defect_of_ours_is_not_taken_for_an_absence(clean_redis_url: str) -> None:
    client = open_redis(clean_redis_url)
    await client.set("text", "a")
    with pytest.raises(ResponseError), redis_or_away():
        await cast(Awaitable[int], client.lpush("text", "a"))
    await client.aclose()
