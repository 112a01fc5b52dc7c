"""A strict SSE client over a raw socket: sees every byte, refuses what the contract refuses."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

WITHIN_SECONDS: Final = 10.0
ENDS: Final = ("done", "failed")
_EVENT_ID: Final = re.compile(r"(0|[1-9]\d*)-(0|[1-9]\d*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class SseFrame:
    """One event: its bytes, blank line included, and what they say; `id` None: it has none."""

    raw: bytes
    event: str
    data: dict[str, Any]
    id: str | None


@dataclass(frozen=True, slots=True)
class Comment:
    """A line that clients ignore."""

    text: str


@dataclass(frozen=True, slots=True)
class RetryField:
    """How long a client waits before it comes back."""

    milliseconds: int


Item = SseFrame | Comment | RetryField


def parse_block(block: bytes) -> list[Item]:
    """Return what one block says, blank line included; an event's lines have one order only.

    Fails on anything but `event`, `data`, `id` in that order with one line each, comments and
    `retry:` apart from events.
    """
    assert block.endswith(b"\n\n"), f"not a whole block: {block!r}"
    assert b"\r" not in block, f"a carriage return outside JSON: {block!r}"
    lines = block[:-2].decode("utf-8", "strict").split("\n")
    items: list[Item] = []
    while lines and lines[0].startswith((":", "retry:")):
        items.append(_plain(lines.pop(0)))
    if not lines:
        return items
    names = [line.partition(": ")[0] for line in lines]
    assert names in (["event", "data", "id"], ["event", "data"]), f"a frame's lines: {block!r}"
    event, text, *rest = (line.partition(": ")[2] for line in lines)
    data = json.loads(text)
    assert isinstance(data, dict), f"data is no JSON object: {block!r}"
    event_id = rest[0] if rest else None
    if event_id is None:
        assert event == "reset", f"an event without an id: {block!r}"
        assert data["reason"] == "position_unknown", f"a reset without an id: {block!r}"
    else:
        assert _EVENT_ID.fullmatch(event_id), f"not an event id: {block!r}"
    items.append(SseFrame(block, event, data, event_id))
    return items


def _plain(line: str) -> Comment | RetryField:
    if line.startswith(":"):
        return Comment(line[1:].strip())
    value = line.removeprefix("retry:").strip()
    assert value.isascii(), f"retry: {line!r}"
    assert value.isdigit(), f"retry: {line!r}"
    return RetryField(int(value))


class CutOff(ConnectionError):
    """The connection broke before the response was complete."""


class SseReader:
    """One response read as it comes. `raw` is the body so far, `items` what it said.

    Every wait is bounded; a wait that takes longer raises TimeoutError, and a connection that
    breaks ConnectionError (CutOff where it was closed). An AssertionError is the server's fault.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.raw = bytearray()
        self.items: list[Item] = []
        self.body_ended = False
        self._reader = reader
        self._writer = writer
        self._parsed = 0
        self._left = 0  # bytes of the present chunk, or of the whole body
        self._chunked = False

    @property
    def frames(self) -> list[SseFrame]:
        """The events read so far."""
        return [item for item in self.items if isinstance(item, SseFrame)]

    @property
    def comments(self) -> list[Comment]:
        """The comments read so far."""
        return [item for item in self.items if isinstance(item, Comment)]

    @property
    def retries(self) -> list[RetryField]:
        """The `retry:` fields read so far."""
        return [item for item in self.items if isinstance(item, RetryField)]

    @property
    def last_event_id(self) -> str | None:
        """The position a browser would come back with: of the last whole event with an id."""
        with_id = [frame.id for frame in self.frames if frame.id is not None]
        return with_id[-1] if with_id else None

    @property
    def saw_end(self) -> bool:
        """Whether the last event read ends the log."""
        return bool(self.frames) and self.frames[-1].event in ENDS

    def log_bytes(self) -> bytes:
        """The events' own bytes, without comments and `retry:`."""
        return b"".join(frame.raw for frame in self.frames)

    async def read_n(self, count: int, *, within: float = WITHIN_SECONDS) -> list[SseFrame]:
        """Read until `count` events have come since the response began: those events."""
        await self.until(lambda: len(self.frames) >= count, within=within)
        return self.frames[:count]

    async def read_comments(self, count: int, *, within: float = WITHIN_SECONDS) -> None:
        """Read until `count` more comments have come."""
        wanted = len(self.comments) + count
        await self.until(lambda: len(self.comments) >= wanted, within=within)

    async def read_until_end(self, *, within: float = WITHIN_SECONDS) -> list[SseFrame]:
        """Read to the end of the body: all its events. The server closes it after the end."""
        async with asyncio.timeout(within):
            while not self.body_ended:
                await self._more()
        left = bytes(self.raw[self._parsed :])
        assert not left, f"the body ended within a frame: {left!r}"
        ends = [n for n, frame in enumerate(self.frames) if frame.event in ENDS]
        assert ends in ([], [len(self.frames) - 1]), "an event follows the end of the log"
        return self.frames

    async def read_bytes(self, count: int, *, within: float = WITHIN_SECONDS) -> None:
        """Read the body up to exactly `count` bytes, as if the line was cut there; then cut."""
        async with asyncio.timeout(within):
            while len(self.raw) < count and not self.body_ended:
                await self._more(count - len(self.raw))
        assert len(self.raw) >= count, f"the body ended after {len(self.raw)} of {count} bytes"
        self.cut()

    async def until(self, seen: Callable[[], bool], *, within: float = WITHIN_SECONDS) -> None:
        """Read until `seen()`; fail when the body ends before."""
        async with asyncio.timeout(within):
            while not seen():
                assert not self.body_ended, f"the body ended early: {bytes(self.raw[-500:])!r}"
                await self._more()

    def cut(self) -> None:
        """Drop the connection without a word."""
        self._writer.transport.abort()

    async def read_head(self) -> None:
        """Read the status line and the headers."""
        head = (await self._line(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        self.status = int(first.split(" ", 2)[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        if self.status in (204, 304):
            self.body_ended = True
        elif not self._chunked:
            self._left = int(self.headers.get("content-length", "-1"))
            self.body_ended = self._left == 0

    async def _more(self, most: int = 65536) -> None:
        if self._chunked and self._left == 0:
            await self._next_chunk()
            if self.body_ended:
                return
        bound = most if self._left < 0 else min(most, self._left)
        got = await self._reader.read(bound)
        if not got:
            if self._left >= 0:
                raise CutOff("within the body")
            self.body_ended = True  # a body without a length ends with its connection
            return
        if self._left > 0:
            self._left -= len(got)
            if self._left == 0 and self._chunked:
                assert await self._line() == b"\r\n", "a chunk's end"
            elif self._left == 0:
                self.body_ended = True
        self.raw += got
        self._parse()

    async def _next_chunk(self) -> None:
        self._left = int((await self._line()).split(b";")[0], 16)
        if self._left == 0:
            assert await self._line() == b"\r\n", "trailers"
            self.body_ended = True

    async def _line(self, end: bytes = b"\r\n") -> bytes:
        try:
            return await self._reader.readuntil(end)
        except asyncio.IncompleteReadError as error:
            raise CutOff("within the head or between chunks") from error

    def _parse(self) -> None:
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            return
        while (end := self.raw.find(b"\n\n", self._parsed)) >= 0:
            block = bytes(self.raw[self._parsed : end + 2])
            self._parsed = end + 2
            self.items += parse_block(block)


@asynccontextmanager
async def sse_request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    within: float = WITHIN_SECONDS,
) -> AsyncIterator[SseReader]:
    """Send one request on a connection of its own; yield once the response's head is here."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    async with asyncio.timeout(within):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    stream = SseReader(reader, writer)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = {"Host": parts.netloc, "Accept": "text/event-stream"} | dict(headers or {})
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b""))
        async with asyncio.timeout(within):
            await writer.drain()
            await stream.read_head()
        yield stream
    finally:
        writer.transport.abort()


@asynccontextmanager
async def open_tail(
    url: str,
    *,
    last_event_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    within: float = WITHIN_SECONDS,
) -> AsyncIterator[SseReader]:
    """Open a tail and check that it is one: 200 and `text/event-stream`."""
    sent = dict(headers or {})
    if last_event_id is not None:
        sent["Last-Event-ID"] = last_event_id
    async with sse_request("GET", url, headers=sent, within=within) as stream:
        assert stream.status == 200, f"{stream.status} for {url}"
        content_type = stream.headers.get("content-type", "")
        assert content_type.split(";")[0].strip() == "text/event-stream", content_type
        yield stream
