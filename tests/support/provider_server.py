"""A model provider on 127.0.0.1: plays scripted chat completions in the real wire format.

In a test: `async with ProviderServer() as server`, then `server.play(Answer(...))` for each
request to come; a request beyond the script is answered by the model's name (`simulate`), or as
`answers` does.
As a process of its own: `python -m tests.support.provider_server --port 0` prints its port
(`provider_process` does it); what it was asked is at `GET /requests`, outside /v1.
"""

import argparse
import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

import uvloop

from tests.support.provider_script import (
    Answer,
    Drop,
    Hold,
    Part,
    Pause,
    Request,
    Reset,
    simulate,
)

HOST: Final = "127.0.0.1"
MODELS: Final = b'{"object":"list","data":[{"id":"sim","object":"model"}],"has_more":false}'


class ProviderServer:
    """The server. `requests` holds what was asked, in order; `connections` counts them.

    `lists_models`: whoever asks for the models, as each worker does, gets a list, and is neither
    noted nor given a scripted answer. `pairing` (of pairing_rules) refuses what the real server
    would, which takes no answer from the script; `refusals` has what it said.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        lists_models: bool = False,
        pairing: Callable[[Request], Answer | None] | None = None,
        answers: Callable[[Request], Answer] | None = None,
    ) -> None:
        self.port = port
        self._lists_models = lists_models
        self._pairing = pairing
        self._answers = answers
        self.refusals: list[bytes] = []
        self.requests: list[Request] = []
        self.connections = 0
        self.seen: Counter[str] = Counter()
        self._script: deque[Answer] = deque()
        self._living: set[_Connection] = set()
        self._arrived = asyncio.Condition()

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL takes."""
        return f"http://{HOST}:{self.port}/v1"

    def play(self, *answers: Answer) -> None:
        """Answer the next requests with these, in order."""
        self._script.extend(answers)

    async def request(self, number: int = 0, *, within_seconds: float = 5) -> Request:
        """Return the request of this number (from 0), once it has come."""
        async with asyncio.timeout(within_seconds), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > number)
        return self.requests[number]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for connection in list(self._living):
            await connection.aclose()

    async def serve_forever(self) -> None:
        """Serve until cancelled."""
        await self._server.serve_forever()

    async def next_answer(self, request: Request) -> Answer:
        """Note the request, and choose its answer."""
        if request.path == "/requests":
            return Answer([self._told()], content_type="application/json")
        if self._lists_models and request.path.partition("?")[0].endswith("/models"):
            return Answer([MODELS], content_type="application/json")
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        if self._pairing is not None and (refusal := self._pairing(request)) is not None:
            self.refusals += cast(list[bytes], refusal.parts)
            return refusal
        if self._script:
            return self._script.popleft()
        return self._answers(request) if self._answers else simulate(request, self.seen)

    def _told(self) -> bytes:
        told = [
            {
                "at": request.at,
                "body": request.json,
                "reference": request.headers.get("x-client-request-id"),
                "answered": request.answered.is_set(),
                "disconnected": request.disconnected.is_set(),
            }
            for request in self.requests
        ]
        return json.dumps(told).encode()

    def joined(self, connection: "_Connection") -> None:
        """A client connected."""
        self.connections += 1
        self._living.add(connection)

    def left(self, connection: "_Connection") -> None:
        """Its connection is closed."""
        self._living.discard(connection)


class _Connection(asyncio.Protocol):
    """One connection, HTTP/1.1 with keep-alive, one request at a time."""

    def __init__(self, server: ProviderServer) -> None:
        self._server = server
        self._received = bytearray()
        self._arrival = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._request: Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by descent
        self._server.joined(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._arrival.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._gone.set()
        self._arrival.set()
        self._writable.set()
        self._server.left(self)
        if self._request is not None and not self._request.answered.is_set():
            self._request.disconnected.set()

    async def aclose(self) -> None:
        self._transport.abort()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        while (request := await self._read()) is not None:
            self._request = request
            answer = await self._server.next_answer(request)
            if not await self._send(request, answer):
                break
            request.answered.set()
            self._request = None
        self._transport.close()

    async def _read(self) -> Request | None:
        head = await self._until(lambda: self._received.find(b"\r\n\r\n"))
        if head < 0:
            return None
        lines = self._received[:head].decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        pairs = (line.split(":", 1) for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        end = head + 4 + int(headers.get("content-length", 0))
        if await self._until(lambda: end if len(self._received) >= end else -1) < 0:
            return None
        body = bytes(self._received[head + 4 : end])
        del self._received[:end]
        return Request(method, path, headers, body)

    async def _until(self, found: Callable[[], int]) -> int:
        while (place := found()) < 0 and not self._gone.is_set():
            self._arrival.clear()
            await self._arrival.wait()
        return place

    async def _send(self, request: Request, answer: Answer) -> bool:
        """Send the answer; return whether the connection can take another request."""
        if answer.silent:
            await self._gone.wait()
            return False
        head = {
            "Content-Type": answer.content_type,
            "Transfer-Encoding": "chunked",
            "X-Request-Id": f"req_{len(self._server.requests)}",
            **answer.headers,
        }
        lines = [f"HTTP/1.1 {answer.status} Played", *(f"{k}: {v}" for k, v in head.items())]
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        async for part in parts_of(answer.parts):
            if not await self._send_part(request, part, answer.split):
                return False
        if self._transport.is_closing():
            return False
        self._transport.write(b"0\r\n\r\n")
        return True

    async def _send_part(self, request: Request, part: Part, split: int) -> bool:
        match part:
            case bytes():
                size = split or len(part) or 1
                for start in range(0, len(part), size):
                    piece = part[start : start + size]
                    if self._transport.is_closing():
                        return False
                    self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    request.pieces += 1
                    if split:  # a piece a write, as far as the kernel lets them arrive apart
                        await asyncio.sleep(0)
                await self._writable.wait()
            case Pause():
                await asyncio.sleep(part.seconds)
            case Hold():
                await self._gone.wait()
            case Reset():
                socket_ = self._transport.get_extra_info("socket")
                socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._transport.abort()
            case Drop():
                self._transport.close()
        return not self._gone.is_set() and not self._transport.is_closing()


async def parts_of(parts: Iterable[Part] | AsyncIterator[Part]) -> AsyncIterator[Part]:
    """An answer's parts, however they come."""
    if isinstance(parts, AsyncIterator):
        async for part in parts:
            yield part
    else:
        for part in parts:
            yield part


@contextmanager
def provider_process() -> Iterator[str]:
    """Run the server as a process of its own; give what OPENAI_BASE_URL takes."""
    command = [sys.executable, "-m", "tests.support.provider_server", "--port", "0"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"http://{HOST}:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


async def _main(port: int) -> None:
    async with ProviderServer(port, lists_models=True) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    _arguments = argparse.ArgumentParser(description=__doc__)
    _arguments.add_argument("--port", type=int, default=0)
    uvloop.run(_main(_arguments.parse_args().port))
