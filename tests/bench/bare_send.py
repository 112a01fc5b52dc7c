"""The floor under a tail: what one `send()` of a frame on a loopback TCP socket costs."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.bench.child import Child

_SOCKETS: Final = 1000
_FRAME: Final = b'event: text\ndata: {"text":"' + b"." * 79 + b'"}\nid: 1-100\n\n'


class BareSend:
    """Sockets that another process reads, to be sent to in the shape that tails are."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._next = 0

    def cost_us(self, *, at_once: int, per_second: float, seconds: float) -> float:
        """Microseconds of CPU a send: `at_once` sockets one after the other, then a pause.

        The fewer at once, the dearer each: caches are cold, and its reader sleeps.
        """
        pause_seconds = at_once / per_second
        rounds = max(1, round(seconds / pause_seconds))
        spent = 0.0
        for _ in range(rounds):
            time.sleep(pause_seconds)
            some = self._sockets[self._next : self._next + at_once]
            self._next = (self._next + at_once) % len(self._sockets)
            before = time.thread_time()
            for connection in some:
                connection.send(_FRAME)
            spent += time.thread_time() - before
        return spent / rounds / at_once * 1e6


@contextmanager
def bare_send() -> Iterator[BareSend]:
    """Open as many sockets as there are tails, read by the process that reads tails."""
    accepted = []
    with (
        socket.create_server(("127.0.0.1", 0), backlog=_SOCKETS) as server,
        Child("reader") as reader,
    ):
        reader.tell("open", port=server.getsockname()[1], paths=["/"] * _SOCKETS)
        try:
            for _ in range(_SOCKETS):
                connection, _ = server.accept()
                accepted.append(connection)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setblocking(False)
            reader.answer()
            yield BareSend(accepted)
        finally:
            for connection in accepted:
                connection.close()
