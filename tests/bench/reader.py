"""A process that reads thousands of event streams and costs next to nothing: it counts frames.

Nothing is parsed: events are counted by their `data:` (a comment has none), and a marked text
(samples.py) gives its latency. One epoll loop over plain sockets; a read takes what has gathered.
"""

import os
import select
import socket
import sys
import time
from typing import Final

from tests.bench.child import Handler, answer_line
from tests.bench.machine import raise_file_limit
from tests.bench.samples import DIGITS, MARK, spread

_BUFFER_BYTES: Final = 1 << 18
_EVENTS: Final = 4096
_DATA: Final = b"data: "
_NEWLINE: Final = 10
_CONNECT_SECONDS: Final = 10.0


class _Stream:
    __slots__ = ("begun", "cut", "frames", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.frames = 0
        self.begun = False
        self.cut = b""  # the last bytes of a read that ended within a line


class Reader:
    """The streams that are open, by file descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._streams: dict[int, _Stream] = {}
        self._buffer = bytearray(_BUFFER_BYTES)
        self._latencies: list[int] = []
        self._closed = 0
        self._reads = 0

    def run(self) -> None:
        """Read and answer commands until stdin ends."""
        commands = sys.stdin.fileno()
        os.set_blocking(commands, False)
        self._epoll.register(commands, select.EPOLLIN)
        handlers: dict[str, Handler] = {
            "open": self.open,
            "reset": self.reset,
            "report": self.report,
        }
        streams = self._streams
        pending = b""
        while True:
            for descriptor, _ in self._epoll.poll(maxevents=_EVENTS):
                if descriptor in streams:
                    self._read(streams[descriptor])
                    continue
                received = os.read(commands, 1 << 20)
                if not received:
                    return
                *lines, pending = (pending + received).split(b"\n")
                for line in lines:
                    answer_line(handlers, line)

    def open(self, port: int, paths: list[str]) -> dict[str, object]:
        """Ask for each path on a connection of its own."""
        for path in paths:
            connection = socket.create_connection(("127.0.0.1", port), _CONNECT_SECONDS)
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
            connection.sendall(request.encode())
            connection.setblocking(False)
            self._streams[connection.fileno()] = _Stream(connection)
            self._epoll.register(connection.fileno(), select.EPOLLIN)
        return {"open": len(self._streams)}

    def reset(self) -> dict[str, object]:
        """Count from zero."""
        for stream in self._streams.values():
            stream.frames = 0
        self._latencies.clear()
        self._reads = 0
        return {}

    def report(self) -> dict[str, object]:
        """What was counted since the reset."""
        counts = [stream.frames for stream in self._streams.values()]
        return {
            "begun": all(stream.begun for stream in self._streams.values()),
            "frames": sum(counts),
            "least": min(counts, default=0),
            "most": max(counts, default=0),
            "reads": self._reads,
            "closed": self._closed,
            "latency": spread(self._latencies),
        }

    def _read(self, stream: _Stream) -> None:
        buffer = self._buffer
        try:
            size = stream.socket.recv_into(buffer)
        except BlockingIOError:
            return
        except ConnectionError:
            size = 0
        if size == 0:
            self._closed += 1
            self._epoll.unregister(stream.socket.fileno())
            stream.socket.close()
            return
        self._reads += 1
        stream.begun = True
        stream.frames += buffer.count(_DATA, 0, size)
        edge = len(_DATA) - 1
        if stream.cut:
            stream.frames += (stream.cut + buffer[: min(edge, size)]).count(_DATA)
            stream.cut = b""
        if buffer[size - 1] != _NEWLINE:
            stream.cut = bytes(buffer[max(0, size - edge) : size])
        at = buffer.find(MARK, 0, size)
        if at >= 0:
            self._sample(at + len(MARK), size)

    def _sample(self, at: int, size: int) -> None:
        now = time.monotonic_ns()
        buffer = self._buffer
        while at + DIGITS <= size:
            self._latencies.append(now - int(buffer[at : at + DIGITS]))
            at = buffer.find(MARK, at + DIGITS, size)
            if at < 0:
                return
            at += len(MARK)


if __name__ == "__main__":
    raise_file_limit()
    Reader().run()
