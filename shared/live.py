"""One pub/sub connection: subscribes, confirms, reconnects, hands over what was published.

An asyncio.Protocol of our own over hiredis' parser: with redis-py's reader and a task woken for
each message, delivery cost a third more. Whatever the socket holds is parsed first, then the
listener is told once that it has all of it.
"""

import asyncio
import logging
import random
from collections.abc import Iterable
from typing import Final, Protocol, cast

import hiredis

from rejoin.shared.dialling import dial
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.redis_address import read_redis_address

_BEAT_SECONDS: Final = 3  # between pings; a connection silent for two of them is given up
_CONNECT_SECONDS: Final = 3
_LONGEST_PAUSE_SECONDS: Final = 1
_STEADY_SECONDS: Final = 1  # a connection that lasted so long was no refusal
_CHANNELS_A_COMMAND: Final = 500

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who hears what was published. Called from the socket's callback: must not wait."""

    def receive(self, channel: bytes, payload: bytes) -> None:
        """Take one message; more may follow at once."""

    def drained(self) -> None:
        """All that had arrived was handed over."""

    def restored(self) -> None:
        """Every channel is subscribed again after a loss: what was published since is lost."""


class Live:
    """The subscriptions of one process. `run` keeps them; whoever starts it cancels it."""

    def __init__(self, url: str, listener: Listener) -> None:
        self._url = url
        self._listener = listener
        self._wanted: set[bytes] = set()
        # SUBSCRIBEs that this connection has not confirmed yet, also of channels let go since:
        # an earlier one's confirmation must not pass for that of the last, the one that counts.
        self._unconfirmed: dict[bytes, int] = {}
        self._waiters: dict[bytes, asyncio.Future[None]] = {}
        self._to_restore = 0  # confirmations until all that was subscribed before is so again
        self._link: _Link | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._link is not None

    async def run(self) -> None:
        """Connect, and connect again after each loss, until cancelled."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            try:
                link = await self._connect()
                since = loop.time()
                await link.keep()
                _log.warning("the subscription to Redis was lost; connecting again")
                if loop.time() - since > _STEADY_SECONDS:
                    pause = 0
            except (OSError, TimeoutError, hiredis.HiredisError) as error:
                if pause == 0:
                    _log.warning("Redis is away (%s); trying again", error or type(error).__name__)
            except Exception:  # noqa: BLE001  without this task the process is deaf for good
                _log.exception("the subscription to Redis broke; connecting again")
            finally:
                self._link = None
            pause = min(max(0.02, pause * 2), _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  spreads, hides nothing

    async def subscribe(self, channel: str, *, timeout_seconds: float) -> None:
        """Subscribe and wait until Redis confirmed it; at once where it had.

        Raises:
            LogUnavailable: no confirmation in time; the subscription stays asked for.
        """
        name = channel.encode()
        if name not in self._wanted:
            self._wanted.add(name)
            if self._link is not None:
                self._send([name])
        elif self._link is not None and name not in self._unconfirmed:
            return
        waiter = self._waiters.get(name)
        if waiter is None:
            waiter = self._waiters[name] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.shield(waiter)
        except TimeoutError as error:
            raise LogUnavailable("Redis did not confirm a subscription") from error

    def unsubscribe(self, channel: str) -> None:
        """Let a channel go; whoever still waits for its confirmation does so in vain."""
        name = channel.encode()
        if name not in self._wanted:
            return
        self._wanted.discard(name)
        self._waiters.pop(name, None)
        if self._link is not None:
            self._link.write(_command(b"UNSUBSCRIBE", name))

    async def _connect(self) -> "_Link":
        async with asyncio.timeout(_CONNECT_SECONDS):
            link = await dial(self._url, lambda: _Link(self), _greeting(self._url))
        self._link = link
        names = list(self._wanted)
        self._unconfirmed = {}
        self._to_restore = len(names)
        for at in range(0, len(names), _CHANNELS_A_COMMAND):
            self._send(names[at : at + _CHANNELS_A_COMMAND])
        if not names:
            self._listener.restored()
        return link

    def _send(self, names: list[bytes]) -> None:
        for name in names:
            self._unconfirmed[name] = self._unconfirmed.get(name, 0) + 1
        cast(_Link, self._link).write(_command(b"SUBSCRIBE", *names))

    def _confirmed(self, name: bytes) -> None:
        left = self._unconfirmed.pop(name, 0) - 1
        if left > 0:
            self._unconfirmed[name] = left
        elif (waiter := self._waiters.pop(name, None)) is not None:
            waiter.set_result(None)
        # Redis confirms in the order of asking: the first ones are those of the reconnect.
        if self._to_restore:
            self._to_restore -= 1
            if not self._to_restore:
                self._listener.restored()

    def hear(self, replies: Iterable[object]) -> None:
        """Take parsed replies from the link."""
        receive = self._listener.receive
        for reply in replies:
            if not isinstance(reply, list):
                continue  # +PONG, +OK
            kind = reply[0]
            if kind == b"message":
                receive(reply[1], reply[2])
            elif kind == b"subscribe":
                self._confirmed(reply[1])
        self._listener.drained()


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._reader = hiredis.Reader()
        self._transport: asyncio.WriteTransport | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed.done():
            self._closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._reader.feed(data)
        replies = []
        try:
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    raise reply
                replies.append(reply)
        except hiredis.HiredisError as error:
            _log.warning("Redis refused a subscription: %s", error)
            self._abort()
        self._live.hear(replies)

    def write(self, command: bytes) -> None:
        """Send a command; its reply comes through `data_received`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(command)

    async def keep(self) -> None:
        """Return when the connection is lost; ping it, and give it up when it stays silent."""
        try:
            while not self._closed.done():
                await asyncio.wait([self._closed], timeout=_BEAT_SECONDS)
                if not self._closed.done():
                    if not self._heard:
                        return
                    self._heard = False
                    self.write(_command(b"PING"))
        finally:
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _command(*parts: bytes) -> bytes:
    return bytes(hiredis.pack_command(cast(tuple[bytes], parts)))  # its stub knows tuples of one


def _greeting(url: str) -> bytes:
    """AUTH, where the URL has a password."""
    options = read_redis_address(url)
    password = options.get("password")
    if not password:
        return b""
    names = [str(options["username"])] if options.get("username") else []
    return _command(b"AUTH", *(part.encode() for part in [*names, str(password)]))
