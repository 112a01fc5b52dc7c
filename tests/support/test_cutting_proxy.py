"""The cutting proxy against an echo: it cuts where it was told to, and only there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.cutting_proxy import Cut, cutting_proxy, random_cuts


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while got := await reader.read(4096):
                writer.write(got)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def talk(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    back = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(5):
            writer.write(sent)
            writer.write_eof()
            while got := await reader.read(4096):
                back += got
    writer.transport.abort()
    return back


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_is_cut_after_the_given_bytes(reset: bool) -> None:
    cuts = [Cut(down=3, reset=reset), Cut(up=2, reset=reset)]
    async with echo() as port, cutting_proxy(port, cuts) as proxy:
        assert await talk(proxy.port, b"abcdef") == b"abc"
        assert b"ab".startswith(await talk(proxy.port, b"abcdef"))
        assert await talk(proxy.port, b"abcdef") == b"abcdef"
        assert (proxy.connections, proxy.cut_connections) == (3, 2)


async def test_without_a_cut_everything_passes_both_ways() -> None:
    sent = bytes(range(256)) * 4000
    async with echo() as port, cutting_proxy(port) as proxy:
        assert await talk(proxy.port, sent) == sent
        assert proxy.cut_connections == 0


async def test_a_target_that_is_away_closes_the_connection() -> None:
    async with echo() as port:
        pass
    async with cutting_proxy(port) as proxy:
        assert await talk(proxy.port, b"abc") == b""


async def test_open_connections_can_be_cut_at_once() -> None:
    async with echo() as port, cutting_proxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"a")
        async with asyncio.timeout(5):
            assert await reader.readexactly(1) == b"a"
            await proxy.cut_all()
            assert await reader.read() == b""
        writer.transport.abort()


def test_the_same_seed_gives_the_same_cuts() -> None:
    first, second = (list(random_cuts(7, least=10, most=99, count=20)) for _ in range(2))
    assert first == second
    assert all(10 <= cut.down <= 99 for cut in first if cut.down is not None)
    assert {cut.reset for cut in first} == {True, False}


async def test_a_moved_target_gets_the_later_connections_and_keeps_the_earlier() -> None:
    async with echo() as port, echo() as other, cutting_proxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.target_port = other
        assert await talk(proxy.port, b"abc") == b"abc"
        writer.write(b"a")
        async with asyncio.timeout(5):
            assert await reader.readexactly(1) == b"a"
        writer.transport.abort()
