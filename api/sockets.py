"""The listening socket: its options are inherited by every connection it accepts."""

import socket
from typing import Final

_BACKLOG: Final = 2048
_SEND_BUFFER_BYTES: Final = 65_536
_USER_TIMEOUT_MS: Final = 30_000


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    A client that stopped reading holds 64 KiB of the kernel's memory (without SO_SNDBUF 3 MB were
    seen), and one that vanished is let go after 30 s (uvicorn has no time-out for writing).

    Raises:
        OSError: the address is taken, not this machine's, or not ours to use.
    """
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
