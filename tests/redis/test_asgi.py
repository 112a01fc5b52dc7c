"""The tail does not depend on one server: transports, middlewares, uvicorn's parsers and loops."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, NamedTuple

import httpx
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rejoin.api.app import Application, create_app
from rejoin.shared.connections import open_redis
from rejoin.shared.settings import Settings
from tests.support.asgi_call import asgi_call, scope_of
from tests.support.messages import until_true
from tests.support.redis_server import RedisServer, free_port
from tests.support.sse_reader import RetryField, open_tail
from tests.support.writer import Writer

Wrap = Callable[[ASGIApp], ASGIApp]


@pytest.fixture
async def app(clean_redis_url: str, tmp_path: Path) -> AsyncIterator[Application]:
    made = create_app(Settings(redis_url=clean_redis_url, data_dir=tmp_path))
    async with made.lifespan():
        yield made


def path_of(writer: Writer) -> str:
    """The path of a message's events."""
    return f"/api/messages/{writer.message_id}/events"


async def write_slowly(writer: Writer) -> bytes:
    """Append one by one, and the end; the log."""
    for n in range(20):
        await writer.append(f"{n} ")
        await asyncio.sleep(0.005)
    await writer.end()
    return b"".join(await writer.whole())


def bare(app: ASGIApp) -> ASGIApp:
    """Nothing around it."""
    return app


def with_base_http_middleware(app: ASGIApp) -> ASGIApp:
    """Starlette's own, over anyio's streams: their `send` needs a task."""

    async def pass_on(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        assert request.headers["host"] == "api"
        return response

    return BaseHTTPMiddleware(app, dispatch=pass_on)


def with_wrapped_send(app: ASGIApp) -> ASGIApp:
    """A middleware of the plain kind, which looks at the request after the response began."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped_send(message: Message) -> None:
            assert scope["path"].startswith("/api/messages/")
            assert scope["client"] == ("127.0.0.1", 1)
            assert (b"host", b"api") in scope["headers"]
            await send(message)

        await app(scope, receive, wrapped_send)

    return wrapped


def with_yielding_send(app: ASGIApp) -> ASGIApp:
    """A server that gives way to others with each piece."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def yielding_send(message: Message) -> None:
            await asyncio.sleep(0)
            await send(message)
            await asyncio.sleep(0)

        await app(scope, receive, yielding_send)

    return wrapped


def with_timed_send(app: ASGIApp) -> ASGIApp:
    """A middleware that bounds each piece: asyncio.timeout works within a task alone."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def timed_send(message: Message) -> None:
            async with asyncio.timeout(5):
                await send(message)

        await app(scope, receive, timed_send)

    return wrapped


WRAPS = [
    bare,
    with_base_http_middleware,
    with_wrapped_send,
    with_yielding_send,
    with_timed_send,
]


@pytest.mark.parametrize("wrap", WRAPS)
async def test_live_events_arrive_one_by_one_whatever_is_around_the_tail(
    app: Application, redis: Redis, wrap: Wrap
) -> None:
    writer = await Writer.begin(redis)
    async with asgi_call(wrap(app), scope_of(path_of(writer))) as call:
        await writer.append("first")
        await until_true(lambda: b"id: 1-0" in call.socket.events)
        await writer.append("second")
        await until_true(lambda: b"id: 1-1" in call.socket.events)
        log = await write_slowly(writer)
        await call.until_ended()
        assert call.socket.events == log
    assert (app.context.hub._channels, app.context.hub.beats.tails) == ({}, set())


@pytest.mark.parametrize("wrap", WRAPS)
async def test_a_drain_ends_the_stream_whatever_is_around_it(
    app: Application, redis: Redis, wrap: Wrap
) -> None:
    writer = await Writer.begin(redis)
    async with asgi_call(wrap(app), scope_of(path_of(writer))) as call:
        await writer.append("first")
        await until_true(lambda: b"id: 1-0" in call.socket.events)
        app.context.hub.drain()
        await call.until_ended()
        assert call.socket.body.count(b"retry: ") == 2


@pytest.mark.parametrize("wrap", WRAPS)
async def test_a_client_that_goes_leaves_nothing_behind_whatever_is_around_it(
    app: Application, redis: Redis, wrap: Wrap
) -> None:
    writer = await Writer.begin(redis)
    async with asgi_call(wrap(app), scope_of(path_of(writer))) as call:
        await writer.append("first")
        await until_true(lambda: b"id: 1-0" in call.socket.events)
    await until_true(lambda: app.context.hub._channels == {})
    await until_true(lambda: len(app.context.hub._tasks) == 3)


async def test_httpx_as_a_transport_gets_the_log(app: Application, redis: Redis) -> None:
    writer = await Writer.begin(redis)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        writing = asyncio.create_task(write_slowly(writer))
        response = await client.get(path_of(writer))
        assert response.content.removeprefix(b"retry: 1000\n: open\n\n") == await writing


async def test_a_mounted_application_serves_tails_below_its_path(
    app: Application, redis: Redis
) -> None:
    outer = Starlette(routes=[Mount("/chat", app)])
    writer = await Writer.begin(redis)
    async with asgi_call(outer, scope_of("/chat" + path_of(writer))) as call:
        log = await write_slowly(writer)
        await call.until_ended()
        assert call.socket.events == log


async def test_two_applications_of_one_process_keep_to_their_own_redis(
    app: Application, redis: Redis, own_redis: RedisServer, tmp_path: Path
) -> None:
    other = create_app(Settings(redis_url=own_redis.url, data_dir=tmp_path))
    outer = Starlette(routes=[Mount("/a", app), Mount("/b", other)])
    theirs = open_redis(own_redis.url)
    writers = {"/a": await Writer.begin(redis), "/b": await Writer.begin(theirs)}
    async with other.lifespan():
        for prefix, writer in writers.items():
            elsewhere = "/b" if prefix == "/a" else "/a"
            async with asgi_call(outer, scope_of(elsewhere + path_of(writer))) as missing:
                await missing.until_ended()
                assert missing.status == 404
            async with asgi_call(outer, scope_of(prefix + path_of(writer))) as call:
                log = await write_slowly(writer)
                await call.until_ended()
                assert call.socket.events == log
    await theirs.aclose()


def test_starlettes_test_client_gets_the_log(clean_redis_url: str, tmp_path: Path) -> None:
    async def written() -> tuple[str, bytes]:
        redis = open_redis(clean_redis_url)
        writer = await Writer.begin(redis)
        log = await write_slowly(writer)
        await redis.aclose()
        return path_of(writer), log

    path, log = asyncio.run(written())
    app = create_app(Settings(redis_url=clean_redis_url, data_dir=tmp_path))
    outer = Starlette(routes=[Mount("/", app)], lifespan=lambda _: app.lifespan())
    with TestClient(outer) as client:
        response = client.get(path)
        assert response.content.removeprefix(b"retry: 1000\n: open\n\n") == log
        assert client.get(path, headers={"last-event-id": "1-21"}).status_code == 204


class Server(NamedTuple):
    """A running uvicorn: its address, its process, and the file of what it says."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]


@contextmanager
def uvicorn(redis_url: str, *options: str) -> Iterator[Server]:
    """`uvicorn` as users start it, with its access log."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "rejoin.api.app:create_app"]
    with TemporaryFile() as log, TemporaryDirectory() as data:
        process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            env={"REJOIN_REDIS_URL": redis_url, "REJOIN_DATA_DIR": data, "PATH": ""},
            stdout=log,
            stderr=log,
        )
        try:
            yield Server(f"http://127.0.0.1:{port}", process, log)
        finally:
            process.kill()
            process.wait(10)


@pytest.mark.parametrize(("http", "loop"), [("h11", "asyncio"), ("httptools", "uvloop")])
async def test_uvicorn_serves_tails_with_each_parser_and_loop(
    clean_redis_url: str, redis: Redis, http: str, loop: str
) -> None:
    writer, endless = await Writer.begin(redis), await Writer.begin(redis)
    with uvicorn(clean_redis_url, "--http", http, "--loop", loop) as (url, process, log):
        async with httpx.AsyncClient(base_url=url) as client:

            async def ready() -> bool:
                try:
                    return (await client.get("/healthz")).status_code == 200
                except httpx.ConnectError:
                    return False

            async with asyncio.timeout(20):
                while not await ready():  # noqa: ASYNC110  another process
                    await asyncio.sleep(0.05)
        async with (
            open_tail(url + path_of(writer)) as tail,
            open_tail(url + path_of(endless)) as other,
        ):
            written = await write_slowly(writer)
            await tail.read_until_end()
            assert tail.log_bytes() == written
            await endless.append("first")
            await other.read_n(1)
            process.terminate()
            await other.read_until_end()
            assert isinstance(other.items[-1], RetryField)
        await asyncio.to_thread(process.wait, 10)
        log.seek(0)
        said = log.read().decode()
        assert f"GET {path_of(writer)} HTTP/1.1" in said
        assert "Traceback" not in said
