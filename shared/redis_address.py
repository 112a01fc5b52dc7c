"""Reads REJOIN_REDIS_URL: where the server is, and who we are to it; not how we wait for it."""

import inspect
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)

from rejoin.shared.errors import SettingsError

_NAME: Final = "REJOIN_REDIS_URL"
_PLACE: Final = frozenset(
    {
        "connection_class", "host", "port", "path", "db", "username", "password",
        "client_name", "health_check_interval",
    }
)  # fmt: skip
_TLS: Final = frozenset(
    {
        "ssl_ca_certs", "ssl_ca_data", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname",
        "ssl_ciphers", "ssl_keyfile",
    }
)  # fmt: skip
# A blocking pop that outlasts a URL's socket_timeout reports a Redis that is away, for ever, and
# with decode_responses every reply is a str: such are of a URL that others use too.
_OURS: Final = frozenset(
    name
    for kind in (Connection, UnixDomainSocketConnection, *Connection.__mro__[1:-1])
    for name in inspect.signature(kind).parameters
) | frozenset(inspect.signature(BlockingConnectionPool).parameters)


def read_redis_address(url: str) -> dict[str, Any]:
    """Return what redis-py needs to connect; options of its that are ours to set are passed over.

    Raises:
        SettingsError: it is no address, or has an option that is none.
    """
    try:
        options = parse_url(url)
    except ValueError:
        # Not its own words: they may quote a part of the password.
        raise SettingsError(
            f"{_NAME}: it cannot be read: in a password write @ as %40, : as %3A, / as %2F and"
            " # as %23; or its port or an option is wrong"
        ) from None
    tls = options.get("connection_class") is SSLConnection
    taken = _PLACE | _TLS if tls else _PLACE
    for name in sorted(options.keys() - taken - _OURS):
        mend = ": write rediss:// for TLS" if name.startswith("ssl_") and not tls else ""
        raise SettingsError(f"{_NAME}: there is no option {name[:100]}{mend}")
    return {name: value for name, value in options.items() if name in taken}
