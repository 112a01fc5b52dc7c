"""A reader that stops reading costs the API a bounded amount, and nobody else anything."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil
import pytest
from redis.asyncio import Redis

from rejoin.shared.connections import open_redis
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import SseReader, open_tail
from tests.support.writer import Writer

EVENT_BYTES = 2000
EVENTS_AN_APPEND = 50
BATCHES = 220  # 22 MB
SLOW_BUFFER_BYTES = 4096
MOST_GROWTH_BYTES = 8_000_000
WITHIN = 30.0
READERS = 20


@pytest.fixture
def stack(own_redis: RedisServer) -> Iterator[Stack]:
    with rejoin_stack(own_redis, workers=0) as running:
        yield running
        running.assert_no_traceback()


@pytest.fixture
async def redis(own_redis: RedisServer) -> AsyncIterator[Redis]:
    client = open_redis(own_redis.url)
    yield client
    await client.aclose()


@asynccontextmanager
async def small_window(url: str, message_id: str) -> AsyncIterator[SseReader]:
    """A tail over a socket that holds next to nothing; it reads only when it is asked to."""
    host, port = url.removeprefix("http://").split(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=raw, limit=SLOW_BUFFER_BYTES)
    path = f"/api/messages/{message_id}/events"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    stream = SseReader(reader, writer)
    try:
        await stream.read_head()
        yield stream
    finally:
        writer.transport.abort()


def rss(stack: Stack) -> int:
    """Bytes of memory that the API's process has."""
    return int(psutil.Process(stack.api.pid).memory_info().rss)


async def fill(writer: Writer, batches: int) -> None:
    """Append megabytes."""
    for n in range(batches):
        body = f"{n} ".ljust(EVENT_BYTES, "x")
        await writer.append(*([body] * EVENTS_AN_APPEND))


async def read_whole(stack: Stack, writer: Writer) -> bytes:
    """Tail the message to its end."""
    async with open_tail(f"{stack.url}/api/messages/{writer.message_id}/events") as tail:
        await tail.read_until_end(within=WITHIN)
        return tail.log_bytes()


async def test_a_reader_that_stops_is_bounded_and_goes_on_later(stack: Stack, redis: Redis) -> None:
    warm = await Writer.begin(redis)
    fast = asyncio.create_task(read_whole(stack, warm))
    await fill(warm, 20)
    await warm.end()
    await fast

    writer = await Writer.begin(redis)
    async with small_window(stack.url, writer.message_id) as slow:
        before = rss(stack)
        fast = asyncio.create_task(read_whole(stack, writer))
        most = 0
        for _ in range(BATCHES // 10):
            await fill(writer, 10)
            most = max(most, rss(stack) - before)
        await writer.end()
        got = await fast  # while the slow one stands still
        assert max(most, rss(stack) - before) < MOST_GROWTH_BYTES
        whole = b"".join(await writer.whole())
        assert len(whole) > 20_000_000
        assert got == whole
        assert len(slow.raw) < 100_000
        await slow.read_until_end(within=WITHIN)
        assert slow.log_bytes() == whole
        assert rss(stack) - before < MOST_GROWTH_BYTES


async def test_readers_that_stop_in_a_replay_of_large_events_are_bounded(
    stack: Stack, redis: Redis
) -> None:
    """A page of 500 events, 15 MB, was held for each of them: 340 MB were seen."""
    writer = await Writer.begin(redis)
    for n in range(500):
        await writer.append(f"{n} ".ljust(30_000, "x"))
    await writer.end()
    await read_whole(stack, writer)
    before = rss(stack)
    async with AsyncExitStack() as tails:
        slow = [
            await tails.enter_async_context(small_window(stack.url, writer.message_id))
            for _ in range(READERS)
        ]
        # Another message's end shows that the process did what it could for each of them.
        other = await Writer.begin(redis)
        await fill(other, 20)
        await other.end()
        await read_whole(stack, other)
        assert rss(stack) - before < READERS * 600_000 + MOST_GROWTH_BYTES
        await slow[0].read_until_end(within=WITHIN)
        assert slow[0].log_bytes() == b"".join(await writer.whole())
