"""A process that posts to nginx with nchan, on keep-alive connections."""

import json
import select
import socket
import sys
import time
from typing import Final

from tests.bench.child import reply
from tests.bench.pace import ROUND_SECONDS, Pace
from tests.bench.samples import stamp

_CONNECTIONS: Final = 32
_TEXT_CHARS: Final = 69  # makes frames of 120 bytes with nchan's own id line
_DRAIN_SECONDS: Final = 5.0


class Posts:
    """Connections that take posts in turn; the answers are only counted."""

    def __init__(self, port: int) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(_CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", port), 5)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[connection.fileno()] = connection
            self._poll.register(connection.fileno(), select.EPOLLIN)
        self._turn = list(self._sockets.values())
        self._next = 0
        self.answered = 0
        self.refused = 0

    def publish(
        self, messages: int, per_message: float, seconds: float, mark_every: int
    ) -> dict[str, object]:
        """Post at a steady rate to channels `m0`, `m1`…, as publisher.py appends."""
        self.answered = self.refused = 0
        pace = Pace(per_message * messages, seconds)
        while not pace.over:
            for number in pace.due():
                marked = (number + number // messages) % mark_every == 0
                self._post(number % messages, marked=marked)
            self._drain(0)
            time.sleep(ROUND_SECONDS)
        end = time.monotonic() + _DRAIN_SECONDS
        while self.answered < pace.count and time.monotonic() < end:
            self._drain(0.1)
        return {
            "published": pace.count,
            "seconds": pace.took_seconds,
            "most_late_ms": pace.most_late_seconds * 1000,
            "answered": self.answered,
            "refused": self.refused,
        }

    def _post(self, message: int, *, marked: bool) -> None:
        text = (stamp() if marked else "").ljust(_TEXT_CHARS, ".")
        body = f'{{"text":"{text}"}}'
        connection = self._turn[self._next]
        self._next = (self._next + 1) % len(self._turn)
        connection.sendall(
            f"POST /pub/m{message} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def _drain(self, seconds: float) -> None:
        for descriptor, _ in self._poll.poll(seconds):
            received = self._sockets[descriptor].recv(1 << 16)
            answered = received.count(b"HTTP/1.1 ")
            self.answered += answered
            self.refused += answered - received.count(b"HTTP/1.1 20")


if __name__ == "__main__":
    _posts = Posts(int(sys.argv[1]))
    while _line := sys.stdin.readline():
        _, _arguments = json.loads(_line)
        reply(_posts.publish(**_arguments))
