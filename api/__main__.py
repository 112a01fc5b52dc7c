"""`python -m rejoin.api [--check]`: serve the API, or say whether it could."""

import asyncio
import logging
import signal
import socket
import sys
from typing import Final

import uvicorn

from rejoin.api.app import create_app
from rejoin.api.http_protocol import HttpProtocol
from rejoin.api.sockets import listen
from rejoin.shared.connections import open_redis, ping
from rejoin.shared.db import schema
from rejoin.shared.db.engine import Database
from rejoin.shared.errors import DatabaseUnavailable, SettingsError, Unavailable
from rejoin.shared.settings import Settings, load_settings, unheeded

_CHECK_SECONDS: Final = 5
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_log = logging.getLogger("rejoin.api")


def main(arguments: list[str]) -> int:
    """Run until a signal ends it; return the exit code: 2 for a wrong setting or argument."""
    if arguments not in ([], ["--check"]):
        return _fail("usage: python -m rejoin.api [--check]", 2)
    try:
        settings = load_settings()
        app = create_app(settings, frugal=True)
    except SettingsError as error:
        return _fail(str(error), 2)
    if arguments:
        return asyncio.run(_check(settings))
    logging.basicConfig(level=settings.log_level.upper(), format=_FORMAT)
    logging.getLogger("uvicorn.error").addFilter(_shortly)
    for sentence in unheeded():
        _log.warning("%s", sentence)
    try:
        asyncio.run(_prepare_database(settings))
    except SettingsError as error:
        return _fail(str(error), 2)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        where = f"REJOIN_HOST={settings.host} REJOIN_PORT={settings.port}"
        return _fail(f"cannot listen on {where}: {error.strerror or error}", 1)
    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=HttpProtocol,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=4,
    )
    _serve(uvicorn.Server(config), listener)
    return 0


def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    # uvicorn raises a signal that ended it once more: that is no reason for another exit code.
    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    host, port = listener.getsockname()[:2]
    _log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    server.run(sockets=[listener])


def _shortly(record: logging.LogRecord) -> bool:
    """Tell in one line of a request that uvicorn cancels when its time to leave is over."""
    if record.exc_info and record.exc_info[0] is asyncio.CancelledError:
        record.msg = "a request was cut off at the end: its client did not read, or Redis was away"
        record.args = record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


async def _prepare_database(settings: Settings) -> None:
    # In a loop of its own, before the server's begins, and so on connections of its own.
    database = Database.of(settings)
    try:
        await schema.prepare(database)
    finally:
        await database.aclose()


async def _check(settings: Settings) -> int:
    """Print what is wrong; return 0 if nothing is."""
    for sentence in unheeded():
        _say(f"warning: {sentence}")
    redis = open_redis(str(settings.redis_url))
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await ping(redis)
    except (Unavailable, TimeoutError) as error:
        _say(f"Redis does not answer (REJOIN_REDIS_URL): {error.__cause__ or error}")
        return 1
    finally:
        await redis.aclose()
    try:
        await schema.check(settings)
    except SettingsError as error:
        return _fail(str(error), 2)
    except DatabaseUnavailable as error:
        _say(f"the database does not answer (REJOIN_DATABASE_URL): {error}")
        return 1
    _say("settings, Redis and database: ok")
    return 0


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"{sentence}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
