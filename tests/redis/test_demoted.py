"""The primary becomes a replica, its address moves: no open connection stays with it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import log, queue, scripts
from rejoin.shared.connections import open_redis
from rejoin.shared.errors import LogUnavailable
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.messages import accept, batch, claim, ids, start, until
from tests.support.redis_server import RedisServer, free_port, redis_server

OLD, NEW = b"the old one", b"the new one"


@pytest.fixture
async def address(own_redis: RedisServer) -> AsyncIterator[CuttingProxy]:
    """An address that leads to `own_redis` until it is moved."""
    async with cutting_proxy(own_redis.port) as proxy:
        yield proxy


async def who(redis: Redis) -> bytes:
    return cast(bytes, await redis.get("who"))


def demote(server: RedisServer) -> None:
    """Make it a replica of nobody, so that it keeps what it has."""
    with server.client() as client:
        client.replicaof("127.0.0.1", free_port())


async def test_every_connection_is_dialled_anew_once_one_was_refused_as_a_replicas(
    own_redis: RedisServer, address: CuttingProxy
) -> None:
    client = open_redis(f"redis://127.0.0.1:{address.port}/0")
    with redis_server() as other:
        for server, name in ((own_redis, OLD), (other, NEW)):
            with server.client() as admin:
                admin.set("who", name)
        assert set(await asyncio.gather(*(who(client) for _ in range(8)))) == {OLD}
        dialled = address.connections
        address.target_port = other.port
        demote(own_redis)
        await client.set("written", "1")  # refused, dialled anew, sent again
        assert set(await asyncio.gather(*(who(client) for _ in range(8)))) == {NEW}
        assert address.connections <= 2 * dialled
        with other.client() as admin:
            assert admin.get("written") == b"1"
    await client.aclose()


async def test_a_batch_is_appended_to_the_new_primary(
    own_redis: RedisServer, address: CuttingProxy
) -> None:
    client = open_redis(f"redis://127.0.0.1:{address.port}/0")
    message_id = await accept(client)
    owner = await claim(client, message_id, "a")
    await log.append(client, batch(message_id, owner, 0, [start(message_id)]))
    with redis_server() as replica:
        with replica.client() as admin:
            admin.replicaof("127.0.0.1", own_redis.port)
            await until(lambda: holds(replica, message_id), within=20)
            admin.replicaof("NO", "ONE")
        address.target_port = replica.port
        demote(own_redis)
        await log.append(client, batch(message_id, owner, 1, ["one"]))
        assert await ids(client, message_id) == ["1-0", "1-1"]
    await client.aclose()


async def holds(server: RedisServer, message_id: str) -> bool:
    with server.client() as admin:
        return bool(admin.exists(f"rejoin:{{{message_id}}}:log"))


async def test_a_blocking_pop_that_a_demotion_ends_waits_at_the_new_primary(
    own_redis: RedisServer, address: CuttingProxy
) -> None:
    client = open_redis(
        f"redis://127.0.0.1:{address.port}/0", timeout_seconds=3, connections=1, retries=0
    )
    with redis_server() as other:
        waiting = asyncio.create_task(queue.wait_for_token(client, 2.5))

        async def blocked() -> bool:
            with own_redis.client() as admin:
                return bool(admin.info("clients")["blocked_clients"] == 1)

        await until(blocked)
        address.target_port = other.port
        demote(own_redis)
        with pytest.raises(LogUnavailable):
            await waiting
        await cast(Awaitable[object], client.set("written", "1"))
        with other.client() as admin:
            assert admin.get("written") == b"1"
    await client.aclose()


async def test_a_script_loaded_at_a_server_that_was_left_since_is_an_absence(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no defect that would end the message."""
    message_id = await accept(redis)
    owner = await claim(redis, message_id, "a")
    sent = batch(message_id, owner, 0, [start(message_id)])

    async def load_elsewhere(*_: object) -> None: ...

    with monkeypatch.context() as patched:
        patched.setattr(scripts, "load", load_elsewhere)
        await redis.script_flush()
        with pytest.raises(LogUnavailable):
            await log.append(redis, sent)
        with pytest.raises(LogUnavailable):
            await queue.lease(redis, token="t", lease_seconds=1, most=1, take_over=True)
    await log.append(redis, sent)
    assert await ids(redis, message_id) == ["1-0"]
