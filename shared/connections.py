"""Connections to Redis: their time-outs and retries, and what counts as "away"."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,  # noqa: A004  redis-py's own, which AWAY is about
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004  redis-py's own, which AWAY is about
    TryAgainError,
)
from rejoin.shared.errors import LogUnavailable

AWAY: Final = (
    ConnectionError,  # its subclasses too: loading its data, authentication, too many clients
    TimeoutError,
    OSError,
    ReadOnlyError,
    OutOfMemoryError,
    ClusterDownError,
    TryAgainError,
)

# What redis-py knows by no class of its own. Redis 6.2 reports the first row, of a command inside a
# script, as a plain error with the code in its text; BUSY is somebody's script that runs on and on;
# UNBLOCKED ends a blocking pop when its server becomes a replica; the last two are a server that
# wants a password by now.
_AWAY_BY_WORD: Final = (
    "OOM ", "READONLY ", "MISCONF ", "NOREPLICAS ", "LOADING ",
    "BUSY ", "UNBLOCKED ", "MASTERDOWN ", "NOAUTH ", "unauthenticated ",
)  # fmt: skip


def open_redis(
    url: str, *, timeout_seconds: float = 2, connections: int = 64, retries: int = 1
) -> Redis:
    """Return a client with bounded waits, which connects when it is first used.

    `timeout_seconds` bounds connecting, a reply, and the wait for one of the `connections`.
    After a lost reply a command is sent again up to `retries` times: every script bears that.
    """
    # A Unix socket has no keepalive, and redis-py's connection to one refuses the word.
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    pool = BlockingConnectionPool.from_url(
        url,
        protocol=2,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        **keepalive,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), retries),
        retry_on_error=[ConnectionError, TimeoutError, OSError],
        max_connections=connections,
        timeout=timeout_seconds,
    )
    redis = Redis(connection_pool=pool)
    redis.auto_close_connection_pool = True
    return redis


@contextmanager
def redis_or_away(what: str = "Redis is away") -> Iterator[None]:
    """Translate redis-py's errors at the border.

    Raises:
        LogUnavailable: Redis is away, read-only or full.
    """
    try:
        yield
    except AWAY as error:
        raise LogUnavailable(what) from error
    except ResponseError as error:
        if any(code in f"{error} " for code in _AWAY_BY_WORD):
            raise LogUnavailable(what) from error
        raise


async def ping(redis: Redis) -> None:
    """Return if Redis answers.

    Raises:
        LogUnavailable: it is away.
    """
    with redis_or_away():
        await cast(Awaitable[object], redis.ping())
