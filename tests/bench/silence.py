"""Clients that tell how long they heard nothing while their messages changed hands."""

import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Final

_CONNECT_SECONDS: Final = 10.0
_END_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02
_BUFFER_BYTES: Final = 1 << 16
_NEVER: Final = float("inf")


class Client:
    """One tail: when events came, and whether a `reset` was among those that came together."""

    def __init__(self, port: int, message_id: str) -> None:
        self.heard: list[tuple[float, bool]] = []  # only grows: two threads look at it
        self.ended = False
        self.socket = socket.create_connection(("127.0.0.1", port), _CONNECT_SECONDS)
        self.socket.sendall(
            f"GET /api/messages/{message_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        )
        self._rest = b""

    def read(self) -> None:
        """Take what has come."""
        try:
            received = self.socket.recv(_BUFFER_BYTES)
        except ConnectionError:
            received = b""
        now = time.monotonic()
        self.ended = not received
        whole, _, self._rest = (self._rest + received).rpartition(b"\n\n")
        if b"data: " in whole:  # a comment has none
            self.heard.append((now, b"event: reset\n" in whole))

    def silence(self, since: float) -> float:
        """The longest time without an event up to the first `reset` after `since`, in seconds.

        Infinite where there is none, or nothing after it.
        """
        heard = list(self.heard)
        longest = 0.0
        for (before, _), (at, reset) in pairwise(heard):
            if at >= since:
                longest = max(longest, at - before)
                if reset:
                    return longest if heard[-1][0] > at else _NEVER
        return _NEVER


class Clients:
    """One client a message. `run` reads them; whoever starts it calls `end`."""

    def __init__(self, port: int, message_ids: Sequence[str]) -> None:
        self._clients = [Client(port, message_id) for message_id in message_ids]
        self._over = threading.Event()

    def run(self) -> None:
        """Read until the end."""
        with selectors.DefaultSelector() as selector:
            for client in self._clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
            while not self._over.is_set():
                for key, _ in selector.select(_POLL_SECONDS):
                    key.data.read()
                    if key.data.ended:
                        selector.unregister(key.fileobj)

    def end(self) -> None:
        """End `run`."""
        self._over.set()

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.socket.close()

    def silences(self, since: float, seconds: float) -> list[float]:
        """Wait until all go on after a `reset` later than `since`: each one's silence in seconds.

        Infinite for those that have not gone on after `seconds`, or whose stream ended.
        """
        end = time.monotonic() + seconds
        while True:
            found = [client.silence(since) for client in self._clients]
            if _NEVER not in found or time.monotonic() > end:
                return found
            if any(client.ended for client in self._clients):
                return found
            time.sleep(_POLL_SECONDS)


@contextmanager
def listening(port: int, message_ids: Sequence[str]) -> Iterator[Clients]:
    """Tail the messages in a thread that ends with the block."""
    clients = Clients(port, message_ids)
    reading = threading.Thread(target=clients.run, name="silence")
    reading.start()
    try:
        yield clients
    finally:
        clients.end()
        reading.join(_END_SECONDS)
        clients.close()
