"""Connections to Redis: their time-outs and retries, and what counts as "away"."""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    Redis,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,  # noqa: A004  redis-py's own, which AWAY is about
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004  redis-py's own, which AWAY is about
    TryAgainError,
)

from rejoin.shared.errors import LogUnavailable
from rejoin.shared.redis_address import read_redis_address

AWAY: Final = (
    ConnectionError,  # its subclasses too: loading its data, authentication, too many clients
    TimeoutError,
    OSError,
    ReadOnlyError,
    OutOfMemoryError,
    ClusterDownError,
    TryAgainError,
    NoScriptError,  # just loaded, and not there: on another server, by a restart or a failover
)

# What redis-py knows by no class of its own. Redis 6.2 reports the first row, of a command inside a
# script, as a plain error with the code in its text; BUSY is somebody's script that runs on and on;
# UNBLOCKED ends a blocking pop when its server becomes a replica; the last two are a server that
# wants a password by now.
_AWAY_BY_WORD: Final = (
    "OOM ", "READONLY ", "MISCONF ", "NOREPLICAS ", "LOADING ",
    "BUSY ", "UNBLOCKED ", "MASTERDOWN ", "NOAUTH ", "unauthenticated ",
)  # fmt: skip

# What a primary says once it is a replica: it will take nothing more, and not tell when it would.
_DEMOTED_BY_WORD: Final = ("READONLY ", "UNBLOCKED ")

_CLOSED: Final = "the handler is closed"  # uvloop's word


class _Pool(BlockingConnectionPool):
    """Dials anew with every connection once one of them has met a primary that is none any more.

    A failover may move the address and leave the connections to the old primary open: on those a
    worker would be refused for ever, and an API would read what others no longer write.
    """

    demotions = 0

    def make_connection(self) -> Connection:
        """Make a connection that tells this pool of a demotion."""
        connection: Connection = super().make_connection()  # type: ignore[no-untyped-call]
        cast(_LeavesReplicas, connection).join(self)
        return connection

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect it, also where it is connected to what was the primary before."""
        await cast(_LeavesReplicas, connection).leave_demoted()
        await super().ensure_connection(connection)


class _LeavesReplicas:
    """A connection that does not stay with a server that was demoted."""

    _pool: _Pool
    _demotions_known: int

    def join(self, pool: _Pool) -> None:
        """Belong to a pool."""
        self._pool, self._demotions_known = pool, pool.demotions

    async def leave_demoted(self) -> None:
        """Disconnect, if another connection has met a demotion since this one was dialled."""
        if self._demotions_known != self._pool.demotions:
            self._demotions_known = self._pool.demotions
            await cast(Connection, self).disconnect(nowait=True)

    async def read_response(
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  redis-py's own
        *,
        disconnect_on_error: bool = True,
        push_request: bool | None = False,
    ) -> object:
        try:
            return await cast(Connection, super()).read_response(
                disable_decoding,
                timeout,
                disconnect_on_error=disconnect_on_error,
                push_request=push_request,
            )
        except ResponseError as error:
            if not _tells_of_a_demotion(error):
                raise
            if self._demotions_known == self._pool.demotions:
                self._pool.demotions += 1
            await self.leave_demoted()
            raise ConnectionError(f"a replica by now: {error}") from error


class _HearsCancellation:
    """A connection that a task may be cancelled in, also while it sends.

    redis-py sends under asyncio.wait_for, which before Python 3.12 swallows a cancellation that
    comes as the send completes (python/cpython issue 86296): a stopped worker ran on for ever.
    Where the connection was lost just before, uvloop raises a RuntimeError, which redis-py does
    not know: it ended a worker.
    """

    __slots__ = ()

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        task = asyncio.current_task()
        asked = task.cancelling() if task else 0
        sender = cast(Connection, super())
        try:
            await sender.send_packed_command(command, check_health)
        except RuntimeError as error:
            if _CLOSED not in str(error):
                raise
            raise ConnectionError(str(error)) from error
        if task is not None and task.cancelling() > asked:
            await sender.disconnect(nowait=True)  # a reply is under way that nobody will read
            raise asyncio.CancelledError


class _Tcp(_HearsCancellation, _LeavesReplicas, Connection):
    pass


class _Tls(_HearsCancellation, _LeavesReplicas, SSLConnection):
    pass


class _Unix(_HearsCancellation, _LeavesReplicas, UnixDomainSocketConnection):
    pass


_KINDS: Final[dict[object, type[Connection | UnixDomainSocketConnection]]] = {
    None: _Tcp,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}


def open_redis(
    url: str, *, timeout_seconds: float = 2, connections: int = 64, retries: int = 1
) -> Redis:
    """Return a client with bounded waits, which connects when it is first used.

    `timeout_seconds` bounds connecting, a reply, and the wait for one of the `connections`.
    After a lost reply a command is sent again up to `retries` times: every script bears that.
    """
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "socket_keepalive": True,
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.02), retries),
        "retry_on_error": [ConnectionError, TimeoutError, OSError],
        "max_connections": connections,
        "timeout": timeout_seconds,
        **read_redis_address(url),
    }
    options["connection_class"] = _KINDS[options.get("connection_class")]
    if options["connection_class"] is _Unix:
        del options["socket_keepalive"]  # there is none, and redis-py refuses the word
    pool = _Pool(**options)
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
    except (*AWAY, ResponseError) as error:
        if not means_away(error):
            raise
        full = isinstance(error, OutOfMemoryError) or "OOM " in str(error)
        raise LogUnavailable("Redis is out of memory" if full else what) from error


def means_away(error: Exception) -> bool:
    """Whether an error of redis-py's is about the server's state, and no defect of the caller's."""
    if isinstance(error, AWAY):
        return True
    return isinstance(error, ResponseError) and any(code in f"{error} " for code in _AWAY_BY_WORD)


def _tells_of_a_demotion(error: ResponseError) -> bool:
    if isinstance(error, ReadOnlyError):
        return True
    return any(code in f"{error} " for code in _DEMOTED_BY_WORD)


async def ping(redis: Redis) -> None:
    """Return if Redis answers.

    Raises:
        LogUnavailable: it is away.
    """
    with redis_or_away():
        await cast(Awaitable[object], redis.ping())
