"""A toy HTTP server over raw sockets: says the bytes it is told to, and breaks off there."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.support.cutting_proxy import _reset_on_close

EVENT_STREAM: Final = b"content-type: text/event-stream\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def last_event_id(self) -> str | None:
        return self.headers.get("last-event-id")


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes of one reply, and how its connection goes: by FIN, RST, or not at all."""

    raw: bytes
    reset: bool = False
    hold: bool = False

    def cut(self, at: int, *, reset: bool = False) -> "Reply":
        """The same reply, broken off after `at` bytes."""
        return Reply(self.raw[:at], reset=reset)


Answer = Callable[[Request], Reply]


@dataclass(slots=True)
class Toy:
    """What has been asked, and what is answered: `answers` first, one a request, then `answer`."""

    answer: Answer
    answers: list[Answer | Reply] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader)
            self.requests.append(request)
            answer = self.answers.pop(0) if self.answers else self.answer
            reply = answer if isinstance(answer, Reply) else answer(request)
            writer.write(reply.raw)
            await writer.drain()
            if reply.hold:
                await reader.read()
            if reply.reset:
                _reset_on_close(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client let go first
        finally:
            writer.close()


@asynccontextmanager
async def toy_server(
    answer: Answer, answers: Iterable[Answer | Reply] = (), *, port: int = 0
) -> AsyncIterator[Toy]:
    """Run one on 127.0.0.1; each connection carries one request."""
    toy = Toy(answer, list(answers))
    server = await asyncio.start_server(toy.serve, "127.0.0.1", port)
    toy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield toy
    finally:
        server.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split(" ")
    return Request(method, path, headers, body)


def reply(
    status: int, body: bytes = b"", *headers: str, content_type: str = "application/json"
) -> Reply:
    """A whole reply with a length."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"content-length: {len(body)}",
        f"content-type: {content_type}",
    ]
    return Reply("\r\n".join([*lines, *headers, "", ""]).encode() + body)


def problem(status: int, detail: str, *headers: str, **members: object) -> Reply:
    """A problem+json reply."""
    body = {"type": "about:blank", "title": "X", "status": status, "detail": detail, **members}
    return reply(
        status, json.dumps(body).encode(), *headers, content_type="application/problem+json"
    )


def no_content() -> Reply:
    """204."""
    return Reply(b"HTTP/1.1 204 No Content\r\n\r\n")


def stream(body: bytes, *, chunked: bool = True, chunk_bytes: int = 7) -> Reply:
    """An event stream: chunked, or to the connection's end."""
    if not chunked:
        return Reply(b"HTTP/1.1 200 OK\r\n" + EVENT_STREAM + b"\r\n" + body)
    parts = [body[n : n + chunk_bytes] for n in range(0, len(body), chunk_bytes)]
    head = b"HTTP/1.1 200 OK\r\n" + EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n"
    return Reply(head + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a toy log."""

    id: str | None
    name: str
    data: dict[str, object]

    @property
    def frame(self) -> bytes:
        text = json.dumps(self.data, ensure_ascii=False)
        last = "" if self.id is None else f"id: {self.id}\n"
        return f"event: {self.name}\ndata: {text}\n{last}\n".encode()


class ToyLog:
    """A finished log, answered as the contract says: what is later than Last-Event-ID."""

    def __init__(
        self, entries: Sequence[Entry], *, before: bytes = b": open\n\nretry: 0\n\n"
    ) -> None:
        self.entries = entries
        self.before = before

    def after(self, position: str | None) -> list[Entry]:
        """The entries later than a position that is one of theirs."""
        if position is None:
            return list(self.entries)
        return list(self.entries[[entry.id for entry in self.entries].index(position) + 1 :])

    def __call__(self, request: Request) -> Reply:
        return self.stream(request)

    def stream(self, request: Request, *, chunked: bool = True) -> Reply:
        """Answer one request."""
        rest = self.after(request.last_event_id)
        if not rest:
            return no_content()
        return stream(self.before + b"".join(entry.frame for entry in rest), chunked=chunked)


def plain_log(*texts: str, attempt: int = 1) -> list[Entry]:
    """A finished log of one attempt with these texts."""
    entries = [Entry(f"{attempt}-0", "start", {"message_id": "m", "attempt": attempt})]
    entries += [Entry(f"{attempt}-{n}", "text", {"text": t}) for n, t in enumerate(texts, 1)]
    end = len(entries)
    return [
        *entries,
        Entry(f"{attempt}-{end}", "usage", {"input_tokens": 1}),
        Entry(f"{attempt}-{end + 1}", "done", {"finish_reason": "stop"}),
    ]
