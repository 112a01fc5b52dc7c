"""One subscription against a real Redis: confirmed, kept, and back after every loss."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis as sync_redis
from redis.asyncio import Redis

from rejoin.shared import live as live_module
from rejoin.shared.connections import open_redis
from rejoin.shared.errors import LogUnavailable
from tests.support.listening import SOON, listening
from tests.support.messages import until
from tests.support.redis_server import RedisServer, need_binary, redis_server


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


async def test_after_the_confirmation_nothing_is_missed(redis_url: str, redis: Redis) -> None:
    async with listening(redis_url) as (live, ear):
        for n in range(50):
            await live.subscribe(f"c{n}", timeout_seconds=SOON)
            assert await redis.publish(f"c{n}", f"{n}") == 1
        await ear.until_heard(b"49")
        assert ear.heard == [(b"c%d" % n, b"%d" % n) for n in range(50)]


async def test_messages_come_in_order_and_each_once(redis_url: str, redis: Redis) -> None:
    async with listening(redis_url) as (live, ear):
        await live.subscribe("c", timeout_seconds=SOON)
        for n in range(500):
            await redis.publish("c", f"{n}")
        await redis.publish("c", "end")
        await ear.until_heard(b"end")
        assert ear.payloads() == [*(b"%d" % n for n in range(500)), b"end"]


async def test_a_payload_of_any_bytes_and_of_many_packets_is_whole(
    redis_url: str, redis: Redis
) -> None:
    async with listening(redis_url) as (live, ear):
        await live.subscribe("c", timeout_seconds=SOON)
        payloads = [bytes(range(256)), b"", b"\r\n$-1\r\n", os.urandom(3_000_000)]
        for payload in payloads:
            await redis.publish("c", payload)
        await ear.until_heard(payloads[-1])
        assert ear.payloads() == payloads


async def test_a_channel_subscribed_to_twice_is_heard_once(redis_url: str, redis: Redis) -> None:
    async with listening(redis_url) as (live, ear):
        await asyncio.gather(*(live.subscribe("c", timeout_seconds=SOON) for _ in range(5)))
        await live.subscribe("c", timeout_seconds=SOON)
        await redis.publish("c", "once")
        await redis.publish("c", "end")
        await ear.until_heard(b"end")
        assert ear.payloads() == [b"once", b"end"]


async def test_a_channel_let_go_is_not_heard(redis_url: str, redis: Redis) -> None:
    async with listening(redis_url) as (live, ear):
        await live.subscribe("c", timeout_seconds=SOON)
        await live.subscribe("other", timeout_seconds=SOON)
        live.unsubscribe("c")
        live.unsubscribe("never-asked-for")

        async def nobody_hears() -> bool:
            return await redis.publish("c", "gone") == 0

        await until(nobody_hears)
        ear.heard.clear()
        await redis.publish("c", "gone")
        await redis.publish("other", "kept")
        await ear.until_heard(b"kept")
        assert ear.payloads() == [b"kept"]


async def test_subscribed_let_go_and_subscribed_again_misses_nothing(
    redis_url: str, redis: Redis
) -> None:
    async with listening(redis_url) as (live, ear):
        await live.subscribe("ready", timeout_seconds=SOON)
        for n in range(30):
            early = asyncio.create_task(live.subscribe("c", timeout_seconds=SOON))
            await asyncio.sleep(0)
            early.cancel()
            live.unsubscribe("c")
            await live.subscribe("c", timeout_seconds=SOON)
            await redis.publish("c", f"{n}")
            await ear.until_heard(b"%d" % n)
            live.unsubscribe("c")
            with contextlib.suppress(asyncio.CancelledError):
                await early


async def test_a_killed_connection_comes_back_with_every_channel(
    redis_url: str, redis: Redis
) -> None:
    async with listening(redis_url) as (live, ear):
        names = [f"c{n}" for n in range(1200)]  # more than one command takes
        await asyncio.gather(*(live.subscribe(name, timeout_seconds=SOON) for name in names))
        assert ear.restores == 1
        for times in (2, 3):
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
            await ear.until_restored(times)
            for name in names:
                assert await redis.publish(name, f"{times} {name}") == 1
            await ear.until_heard(b"%d c1199" % times)
        assert len(ear.heard) == 2 * len(names)


async def test_what_is_published_after_the_restore_is_heard(redis_url: str, redis: Redis) -> None:
    async with listening(redis_url) as (live, ear):
        await live.subscribe("c", timeout_seconds=SOON)
        for times in range(2, 5):
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
            await ear.until_restored(times)
            assert await redis.publish("c", f"{times}") == 1
            await ear.until_heard(b"%d" % times)


async def test_without_redis_a_subscription_is_refused_in_time_and_stands_later(
    own_redis: RedisServer,
) -> None:
    own_redis.kill()
    async with listening(own_redis.url) as (live, ear):
        with pytest.raises(LogUnavailable):
            await live.subscribe("c", timeout_seconds=0.1)
        assert not live.connected
        own_redis.start()
        await ear.until_restored(1)
        assert live.connected
        await live.subscribe("c", timeout_seconds=SOON)
        with own_redis.client() as client:
            assert client.publish("c", "heard") == 1
        await ear.until_heard(b"heard")


async def test_a_restarted_redis_is_subscribed_to_again(own_redis: RedisServer) -> None:
    async with listening(own_redis.url) as (live, ear):
        await live.subscribe("c", timeout_seconds=SOON)
        await asyncio.to_thread(own_redis.restart)
        await ear.until_restored(2)
        with own_redis.client() as client:
            assert client.publish("c", "heard") == 1
        await ear.until_heard(b"heard")


async def test_a_redis_that_stops_answering_is_given_up(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "_BEAT_SECONDS", 0.2)
    async with listening(own_redis.url) as (live, ear):
        await live.subscribe("c", timeout_seconds=SOON)

        async def given_up() -> bool:
            return not live.connected

        with own_redis.paused():
            await until(given_up)
        await ear.until_restored(2)
        with own_redis.client() as client:
            assert client.publish("c", "heard") >= 1
        await ear.until_heard(b"heard")


async def test_a_quiet_connection_is_kept(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "_BEAT_SECONDS", 0.05)
    async with listening(redis_url) as (live, ear):
        await live.subscribe("c", timeout_seconds=SOON)
        await asyncio.sleep(0.5)  # ten beats
        assert ear.restores == 1
        assert await redis.publish("c", "heard") == 1


@contextlib.contextmanager
def configured(**settings: str) -> Iterator[RedisServer]:
    with redis_server() as server, server.client() as client:
        for name, value in settings.items():
            client.config_set(name, value)
        yield server


async def test_a_password_is_sent() -> None:
    with configured(requirepass="p@ss w%rd") as server:
        url = f"redis://:p%40ss%20w%25rd@127.0.0.1:{server.port}/0"
        client = open_redis(url)
        async with listening(url) as (live, ear):
            await live.subscribe("c", timeout_seconds=SOON)
            await client.publish("c", "heard")
            await ear.until_heard(b"heard")
        await client.aclose()


async def test_a_user_and_a_password_are_sent() -> None:
    with configured() as server, server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "&*", "+@all")
        async with listening(f"redis://bob:pw@127.0.0.1:{server.port}/0") as (live, ear):
            await live.subscribe("c", timeout_seconds=SOON)
            admin.publish("c", "heard")
            await ear.until_heard(b"heard")


async def test_a_wrong_password_is_said_and_tried_again_without_a_rush(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with configured(requirepass="right") as server:
        async with listening(f"redis://:wrong@127.0.0.1:{server.port}/0") as (live, _):
            with pytest.raises(LogUnavailable):
                await live.subscribe("c", timeout_seconds=1.5)
        url = f"redis://:right@127.0.0.1:{server.port}/0"
        with sync_redis.Redis.from_url(url, socket_timeout=5) as client:
            tried = client.info("stats")["total_connections_received"]
    assert "WRONGPASS" in caplog.text
    assert "wrong@" not in caplog.text
    assert tried < 15


async def test_a_unix_socket_is_dialled() -> None:
    with tempfile.TemporaryDirectory(prefix="rejoin-") as name:
        path = Path(name) / "redis.sock"
        process = await asyncio.create_subprocess_exec(
            str(need_binary()), "--port", "0", "--unixsocket", str(path), "--save", "",
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            client = open_redis(f"unix://{path}")
            async with listening(f"unix://{path}?db=0") as (live, ear):
                await live.subscribe("c", timeout_seconds=SOON)
                await client.publish("c", "heard")
                await ear.until_heard(b"heard")
            await client.aclose()
        finally:
            process.terminate()
            await process.wait()
