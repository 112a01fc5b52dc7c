"""A model provider on 127.0.0.1: plays scripted chat completions in the real wire format.

In a test: `async with ProviderServer() as server`, then `server.play(Answer(...))` for each
request to come; a request beyond the script is answered by the model's name (`simulate`).
As a process of its own: `python -m tests.support.provider_server --port 0` prints its port.
"""

import argparse
import asyncio
import json
import socket
import struct
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qsl

HOST: Final = "127.0.0.1"
_WORDS: Final = ("plain", "naïve", "日本", "tea", "🙂", "word")


@dataclass(frozen=True)
class Pause:
    """Wait so long before the next part."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Send nothing more, and keep the connection until the client leaves."""


@dataclass(frozen=True)
class Reset:
    """Break the connection with a TCP reset."""


@dataclass(frozen=True)
class Drop:
    """Close the connection without the body's end."""


Part = bytes | Pause | Hold | Reset | Drop


@dataclass
class Answer:
    """One answer. `parts` are sent in order, each bytes as a piece of the body of its own.

    `split` cuts the bytes anew, into pieces of so many; `silent` answers nothing at all.
    """

    parts: Iterable[Part] | AsyncIterator[Part] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream; charset=utf-8"
    split: int = 0
    silent: bool = False


@dataclass
class Request:
    """What a client asked, and how it went on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    pieces: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> dict[str, object]:
        """The body."""
        parsed = json.loads(self.body)
        assert isinstance(parsed, dict)
        return parsed


def completion_chunk(model: str, **members: object) -> dict[str, object]:
    """A chat.completion.chunk as OpenAI sends it, with these members replaced."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000}
    return {**head, "model": model, "choices": [], **members}


def choice(delta: Mapping[str, object], finish_reason: str | None = None) -> list[object]:
    """The `choices` of a chunk."""
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


def sse(value: object, newline: str = "\n") -> bytes:
    """One SSE event; a string is sent as it is."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"data: {text}{newline}{newline}".encode()


def error_answer(
    status: int, message: str, *, headers: Mapping[str, str] | None = None, **members: object
) -> Answer:
    """An error before the stream, in OpenAI's shape."""
    error = {"message": message, "type": None, "param": None, "code": None, **members}
    body = json.dumps({"error": error}).encode()
    return Answer([body], status, headers or {}, "application/json")


def simulated_words(count: int) -> list[str]:
    """The words of a simulated answer, each with its space: they tell their own place."""
    return [f"{_WORDS[n % len(_WORDS)]}{n} " for n in range(count)]


def simulated_text(count: int) -> str:
    """What a whole simulated answer of so many words says."""
    return "".join(simulated_words(count))


def simulate(request: Request, seen: Counter[str]) -> Answer:
    """Answer by the model's name, `sim?words=300&rate=50`.

    - `words` (100), `rate` a second (0: at once), `delay` seconds before the first word,
      `reasoning` words of thinking first, `split` bytes a piece.
    - `fault` at the `at`-th word: `eof` (a clean end), `drop`, `reset`, `stall`, `error` (an
      error object), `junk` (no JSON); or instead of an answer: `silent`, `empty`, `html`,
      `context`, or a status (`429`, with `retry_after` seconds).
    - `times`: only so many first requests for this very name meet the fault.
    """
    model = str(request.json.get("model", ""))
    options = dict(parse_qsl(model.partition("?")[2]))
    fault = options.get("fault", "")
    if fault and "times" in options:
        seen[model] += 1
        if seen[model] > int(options["times"]):
            fault = ""
    split = int(options.get("split", 0))
    match fault:
        case "silent":
            return Answer(silent=True)
        case "empty":
            return Answer()
        case "html":
            return Answer([b"<html><body>Bad gateway</body></html>"], content_type="text/html")
        case "context":
            said = "This model's maximum context length is 8192 tokens."
            return error_answer(400, said, code="context_length_exceeded")
        case _ if fault.isdigit():
            after = options.get("retry_after")
            headers = {"Retry-After": after} if after else {}
            return error_answer(int(fault), f"Simulated error {fault}.", headers=headers)
    return Answer(_simulated_parts(request, options, fault), split=split)


async def _simulated_parts(
    request: Request, options: Mapping[str, str], fault: str
) -> AsyncIterator[Part]:
    model = str(request.json["model"])
    words = simulated_words(int(options.get("words", 100)))
    rate, at = float(options.get("rate", 0)), int(options.get("at", len(words) // 2))
    yield sse(completion_chunk(model, choices=choice({"role": "assistant", "content": ""})))
    await asyncio.sleep(float(options.get("delay", 0)))
    for n in range(int(options.get("reasoning", 0))):
        yield sse(completion_chunk(model, choices=choice({"reasoning_content": f"so{n} "})))
    clock = asyncio.get_running_loop().time
    started = clock()
    for n, word in enumerate(words):
        if rate:
            await asyncio.sleep(started + n / rate - clock())
        if fault and n == at:
            for part in _FAULTS[fault]:
                yield part
            return
        yield sse(completion_chunk(model, choices=choice({"content": word})))
    yield sse(completion_chunk(model, choices=choice({}, "stop")))
    usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
    yield sse(completion_chunk(model, usage=usage))
    yield sse("[DONE]")


_FAULTS: Final[Mapping[str, Sequence[Part]]] = {
    "eof": (),
    "drop": (Drop(),),
    "reset": (Reset(),),
    "stall": (Hold(),),
    "junk": (sse("{not json"),),
    "error": (sse({"error": {"message": "The server had an error.", "type": "server_error"}}),),
}


class ProviderServer:
    """The server. `requests` holds what was asked, in order; `connections` counts them."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
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
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        return self._script.popleft() if self._script else simulate(request, self.seen)

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
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
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
        async for part in _parts(answer.parts):
            if not await self._send_part(request, part, answer.split):
                return False
        self._transport.write(b"0\r\n\r\n")
        return True

    async def _send_part(self, request: Request, part: Part, split: int) -> bool:
        match part:
            case bytes():
                size = split or len(part) or 1
                for start in range(0, len(part), size):
                    piece = part[start : start + size]
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


async def _parts(parts: Iterable[Part] | AsyncIterator[Part]) -> AsyncIterator[Part]:
    if isinstance(parts, AsyncIterator):
        async for part in parts:
            yield part
    else:
        for part in parts:
            yield part


async def _main(port: int) -> None:
    async with ProviderServer(port) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    _arguments = argparse.ArgumentParser(description=__doc__)
    _arguments.add_argument("--port", type=int, default=0)
    asyncio.run(_main(_arguments.parse_args().port))
