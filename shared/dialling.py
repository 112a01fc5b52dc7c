"""Opens a bare connection to the Redis that a URL names: TCP, TLS or a Unix socket."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar, cast

from redis.asyncio.connection import RedisSSLContext, SSLConnection

from rejoin.shared.redis_address import read_redis_address

P = TypeVar("P", bound=asyncio.Protocol)


async def dial(url: str, protocol: Callable[[], P], greeting: bytes = b"") -> P:
    """Connect, send `greeting`, and return the connection's protocol.

    Raises:
        OSError: nobody answers there.
    """
    options = read_redis_address(url)
    loop = asyncio.get_running_loop()
    if options.get("path"):
        transport, made = await loop.create_unix_connection(protocol, str(options["path"]))
    else:
        host = str(options.get("host", "localhost"))
        transport, made = await loop.create_connection(
            protocol,
            host,
            int(options.get("port", 6379)),
            ssl=_context(cast(dict[str, object], options)),
        )
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if greeting:
        transport.write(greeting)
    return made


def _context(options: dict[str, object]) -> ssl.SSLContext | None:
    """The TLS context that redis-py itself would use for the same URL."""
    if options.get("connection_class") is not SSLConnection:
        return None
    return RedisSSLContext(
        keyfile=cast(str | None, options.get("ssl_keyfile")),
        certfile=cast(str | None, options.get("ssl_certfile")),
        cert_reqs=cast(str, options.get("ssl_cert_reqs", "required")),
        ca_certs=cast(str | None, options.get("ssl_ca_certs")),
        ca_data=cast(str | None, options.get("ssl_ca_data")),
        check_hostname=bool(options.get("ssl_check_hostname", False)),
    ).get()
