"""A model provider that costs next to nothing: each chunk's text is the time of its sending.

It speaks OpenAI's chat completions as far as streaming goes. A request whose text carries a time
(samples.py) tells how long it was under way. `openai/sim?words=100&rate=50` asks for so many
chunks, so many a second (0: all at once). `openai/sim?steps=20&tool=NAME` calls that tool until it
was told so many results; it tells how long it waited for each.
"""

import asyncio
import heapq
import json
import os
import random
import sys
import time
from typing import Final, cast
from urllib.parse import parse_qsl

import uvloop

from tests.bench.child import answer_line, reply
from tests.bench.machine import raise_file_limit
from tests.bench.samples import DIGITS, MARK, spread, stamp

_TICK_SECONDS: Final = 0.001
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_NO_LIST: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_OBJECT: Final = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"sim",'
)
_CHUNK: Final = (
    f'{_OBJECT}"choices":[{{"index":0,"delta":{{"content":"%s"}},"logprobs":null,'
    '"finish_reason":null}]}\n\n'
)
_FINISH: Final = f'{_OBJECT}"choices":[{{"index":0,"delta":{{}},"finish_reason":"%s"}}]}}\n\n'
_CALL: Final = (
    f'{_OBJECT}"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":0,"id":"call_%d",'
    '"type":"function","function":{"name":"%s","arguments":"{}"}}]},"finish_reason":null}]}\n\n'
)
_USAGE: Final = f'{_OBJECT}"choices":[],"usage":{{"prompt_tokens":1,"completion_tokens":1}}}}\n\n'
_DONE: Final = "data: [DONE]\n\n"


class Simulator:
    """What was asked, and the answers under way in the order of their next chunk."""

    def __init__(self) -> None:
        self.running = 0
        self.sent = 0
        self._latencies: list[int] = []
        self._steps: list[int] = []
        self._called: dict[bytes, int] = {}  # when it called a tool last, by a request's time
        self._due: list[tuple[float, int, Connection]] = []
        self._order = 0

    def asked(self, connection: "Connection", body: bytes) -> None:
        """Take a request and begin its answer."""
        now = time.monotonic_ns()
        at = body.find(MARK)
        made = body[at + len(MARK) :][:DIGITS] if at >= 0 else b""
        if made in self._called:
            self._steps.append(now - self._called.pop(made))
        elif made:
            self._latencies.append(now - int(made))
        request = json.loads(body)
        _, _, options = str(request["model"]).partition("?")
        wanted = dict(parse_qsl(options))
        told = sum(message["role"] == "tool" for message in request["messages"])
        if told < int(wanted.get("steps", 0)):
            connection.write(_HEAD)
            connection.end("tool_calls", _CALL % (told, wanted["tool"]))
            self._called[made] = time.monotonic_ns()
            return
        connection.left, rate = int(wanted.get("words", 3)), float(wanted.get("rate", 0))
        connection.write(_HEAD)
        self.running += 1
        if rate:
            connection.period_seconds = 1 / rate
            # Anywhere in the first period, so that streams do not beat together.
            self._push(connection, time.monotonic() + random.random() / rate)
            return
        while connection.left:
            self._chunk(connection)
        self._end(connection)

    async def run(self) -> None:
        """Send what is due, for ever."""
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                due, _, connection = heapq.heappop(self._due)
                if connection.gone:
                    self.running -= 1
                elif connection.left:
                    self._chunk(connection)
                    self._push(connection, due + connection.period_seconds)
                else:
                    self._end(connection)
            await asyncio.sleep(_TICK_SECONDS)

    def reset(self) -> dict[str, object]:
        """Count from zero."""
        self._latencies.clear()
        self._steps.clear()
        self.sent = 0
        return {}

    def report(self) -> dict[str, object]:
        """What was counted since the reset, and how many answers are under way."""
        return {
            "running": self.running,
            "sent": self.sent,
            "asked": len(self._latencies),
            "latency": spread(self._latencies),
            "steps": spread(self._steps),
        }

    def _push(self, connection: "Connection", due: float) -> None:
        self._order += 1
        heapq.heappush(self._due, (due, self._order, connection))

    def _chunk(self, connection: "Connection") -> None:
        connection.left -= 1
        self.sent += 1
        connection.piece(_CHUNK % stamp())

    def _end(self, connection: "Connection") -> None:
        self.running -= 1
        connection.end("stop")


class Connection(asyncio.Protocol):
    """One connection with keep-alive, one request at a time."""

    def __init__(self, simulator: Simulator) -> None:
        self.left = 0
        self.period_seconds = 0.0
        self.gone = False
        self._simulator = simulator
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        _, _, length = head.lower().partition(b"content-length:")
        if not length:  # a worker asks for the list of models
            self._received = b""
            self.write(_NO_LIST)
        elif len(body) >= int(length.split(b"\r\n", 1)[0]):
            self._received = b""
            self._simulator.asked(self, body)

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def piece(self, text: str) -> None:
        """Send one piece of the body."""
        self._transport.write(f"{len(text):x}\r\n{text}\r\n".encode())

    def end(self, reason: str, *before: str) -> None:
        """Send the last pieces, and that there are no more."""
        for text in (*before, _FINISH % reason, _USAGE, _DONE):
            self.piece(text)
        self.write(b"0\r\n\r\n")


async def _main() -> None:
    loop = asyncio.get_running_loop()
    simulator = Simulator()
    server = await loop.create_server(lambda: Connection(simulator), "127.0.0.1", 0, backlog=4096)
    handlers = {"reset": simulator.reset, "report": simulator.report}
    ended = asyncio.Event()

    def commanded() -> None:
        received = os.read(sys.stdin.fileno(), 1 << 16)
        for line in received.splitlines():
            answer_line(handlers, line)
        if not received:
            ended.set()

    loop.add_reader(sys.stdin.fileno(), commanded)
    reply({"port": server.sockets[0].getsockname()[1]})
    sending = loop.create_task(simulator.run())
    await ended.wait()
    sending.cancel()


if __name__ == "__main__":
    raise_file_limit()
    uvloop.run(_main())
