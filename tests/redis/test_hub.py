"""The hub and its tails on a real Redis that is cut off, killed and started again."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import pytest
from redis.asyncio import Redis

from rejoin.api.hub import Hub
from rejoin.api.tail import Tail
from rejoin.shared import keys
from rejoin.shared.connections import open_redis
from rejoin.shared.ids import EventId
from tests.support import messages
from tests.support.messages import until_true
from tests.support.redis_server import RedisServer
from tests.support.tails import Socket, opened
from tests.support.writer import OWNER, Writer

MESSAGES = 20
TAILS_A_MESSAGE = 10
OWN_TASKS = 3

NewHub = Callable[..., Awaitable[Hub]]


@asynccontextmanager
async def hub_on(url: str, *, keepalive_seconds: float = 15) -> AsyncIterator[Hub]:
    """A hub that is at work; at the end nobody is followed any more and no task is left."""
    redis = open_redis(url)
    async with Hub(
        redis,
        url,
        keepalive_seconds=keepalive_seconds,
        retry_milliseconds=1000,
        max_stream_seconds=3600,
    ) as hub:
        yield hub
        await until_true(lambda: len(hub._tasks) == OWN_TASKS)
        assert (hub._channels, hub.beats.tails) == ({}, set())
    assert hub._tasks == set()
    await redis.aclose()


async def listeners(redis: Redis, writer: Writer) -> int:
    """How many connections are subscribed to a message's channel."""
    ((_, count),) = await redis.pubsub_numsub(keys.live(writer.message_id))
    return int(count)


async def follow(hub: Hub, writer: Writer, chance: random.Random) -> tuple[bytes, EventId | None]:
    """Tail a message to its end, going away and blocking now and then; what came, and its end."""
    got, position = b"", None
    while True:
        socket = Socket()
        with opened(hub, socket, position, message_id=writer.message_id, owner=OWNER) as tail:
            life = chance.choice([0.05, 0.3, 60])
            try:
                async with asyncio.timeout(life):
                    while not socket.ended:
                        if chance.random() < 0.2:
                            socket.block()
                        await asyncio.sleep(0.02)
                        socket.unblock()
            except TimeoutError:
                socket.unblock()
        got += socket.events
        last = socket.events.rpartition(b"\nid: ")[2].strip()
        position = EventId.parse(last) if last else position
        if b"event: done" in socket.events:
            return got, tail.position


async def write(writer: Writer, chance: random.Random) -> None:
    """Append at random for some seconds, then end."""
    end = asyncio.get_running_loop().time() + 3
    while asyncio.get_running_loop().time() < end:
        await writer.append(*("x" * chance.randint(1, 300) for _ in range(chance.randint(1, 5))))
        await asyncio.sleep(chance.random() * 0.05)
    await writer.end()


def keep_all(server: RedisServer) -> None:
    """Let it write before it answers: on a busy disk `everysec` puts the write off too."""
    with server.client() as client:
        client.config_set("appendfsync", "always")


async def break_things(server: RedisServer, chance: random.Random) -> None:
    """Kill the subscription's connection again and again, and the server twice."""
    for n in range(12):
        await asyncio.sleep(chance.random() * 0.4)
        if n in (4, 8):
            await asyncio.to_thread(server.restart)
            keep_all(server)
        else:
            with server.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


@pytest.mark.parametrize("seed", [1, 2])
async def test_all_tails_equal_the_logs_whatever_happens_to_redis(
    own_redis: RedisServer, seed: int
) -> None:
    chance = random.Random(seed)
    keep_all(own_redis)
    redis = open_redis(own_redis.url)
    async with hub_on(own_redis.url, keepalive_seconds=0.6) as hub, asyncio.timeout(40):
        writers = [await Writer.begin(redis) for _ in range(MESSAGES)]
        async with asyncio.TaskGroup() as group:
            tails = [
                (writer, group.create_task(follow(hub, writer, chance)))
                for writer in writers
                for _ in range(TAILS_A_MESSAGE)
            ]
            for writer in writers:
                group.create_task(write(writer, chance))
            group.create_task(break_things(own_redis, chance))
        logs = {writer.message_id: b"".join(await writer.whole()) for writer in writers}
        for writer, tail in tails:
            assert tail.result()[0] == logs[writer.message_id]
    await redis.aclose()


async def test_a_lost_publish_is_repaired_by_the_check_before_a_comment(
    redis: Redis, redis_url: str
) -> None:
    async with hub_on(redis_url, keepalive_seconds=0.3) as hub:
        writer, socket = await Writer.begin(redis), Socket()
        with opened(hub, socket, message_id=writer.message_id, owner=OWNER) as tail:
            await writer.append("a")
            await until_true(lambda: tail.live and tail.position == EventId(1, 0))
            await writer.append_unpublished("b", "c")
            await until_true(lambda: tail.live and tail.position == EventId(1, 2))
            comments = socket.comments
            await until_true(lambda: socket.comments > comments)
            assert socket.events == b"".join(await writer.whole())


async def test_a_message_that_vanished_ends_its_tails_at_the_check(
    redis: Redis, redis_url: str
) -> None:
    async with hub_on(redis_url, keepalive_seconds=0.3) as hub:
        writer, socket = await Writer.begin(redis), Socket()
        with opened(hub, socket, message_id=writer.message_id, owner=OWNER) as tail:
            await until_true(lambda: tail.live)
            await redis.flushall()
            await until_true(lambda: socket.ended)
            assert socket.events == b""


async def test_tails_of_one_message_share_a_subscription_and_the_last_lets_it_go(
    redis: Redis, redis_url: str
) -> None:
    async with hub_on(redis_url) as hub:
        writer = await Writer.begin(redis)
        with ExitStack() as tails:
            many = [
                tails.enter_context(
                    opened(hub, Socket(), message_id=writer.message_id, owner=OWNER)
                )
                for _ in range(50)
            ]
            await until_true(lambda: all(tail.live for tail in many))
            assert await listeners(redis, writer) == 1
            for tail in many[1:]:
                tail.close()
            await redis.ping()
            assert await listeners(redis, writer) == 1

        async def nobody() -> bool:
            return await listeners(redis, writer) == 0

        await messages.until(nobody)


def stands_at(tail: Tail, position: EventId) -> bool:
    """Whether that is the last event that a tail has sent."""
    return tail.position == position


async def test_whoever_joins_as_the_last_one_leaves_misses_nothing(
    redis: Redis, redis_url: str
) -> None:
    """No check would repair it in time: the keep-alive is far off."""
    async with hub_on(redis_url) as hub:
        writer = await Writer.begin(redis)
        socket = Socket()
        with ExitStack() as first:
            first.enter_context(opened(hub, socket, message_id=writer.message_id, owner=OWNER))
            await until_true(lambda: bool(socket.messages))
            position: EventId | None = None
            for n in range(300):
                socket = Socket()
                with ExitStack() as tails:
                    # The last one goes and the next one comes within one turn of the loop.
                    first.close()
                    tail = tails.enter_context(
                        opened(hub, socket, position, message_id=writer.message_id, owner=OWNER)
                    )
                    await asyncio.sleep(0.0003 * (n % 5))
                    await writer.append(str(n))
                    await until_true(partial(stands_at, tail, EventId(1, n)), within=3)
                    assert socket.events.count(b"event: ") == 1
                    position = tail.position
                    first = tails.pop_all()
            first.close()


async def test_many_tails_that_come_and_go_leave_no_task_behind(
    redis: Redis, redis_url: str
) -> None:
    async with hub_on(redis_url) as hub:
        writers = [await Writer.begin(redis) for _ in range(10)]
        for n in range(1000):
            writer = writers[n % 10]
            with opened(hub, Socket(), message_id=writer.message_id, owner=OWNER):
                if n % 10 == 0:
                    await writer.append(str(n))
                await asyncio.sleep(0 if n % 3 else 0.0005)
        await until_true(lambda: len(hub._tasks) == OWN_TASKS)

        async def nobody() -> bool:
            return [await listeners(redis, writer) for writer in writers] == [0] * 10

        await messages.until(nobody)
        assert (hub._live._wanted, hub._live._waiters) == (set(), {})


async def test_a_new_attempt_is_followed(redis: Redis, redis_url: str) -> None:
    async with hub_on(redis_url) as hub:
        writer, socket = await Writer.begin(redis), Socket()
        with opened(hub, socket, message_id=writer.message_id, owner=OWNER):
            await writer.append("a", "b")
            await writer.append_unpublished("lost, and the last of its attempt")
            await writer.claim_again("second")
            await writer.append("c")
            await writer.end()
            await until_true(lambda: socket.ended)
            assert socket.events == b"".join(await writer.whole())
            assert socket.events.count(b"event: ") == 6
