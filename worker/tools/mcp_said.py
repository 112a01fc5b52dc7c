"""What an MCP server writes to its stderr, and what the SDK says of it, at a bounded rate."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TextIO

_AT_ONCE: Final = 20
_LINES_PER_SECOND: Final = 2.0
_MOST_LINE_CHARS: Final = 500
_CHUNK_BYTES: Final = 65_536
_PAUSE_SECONDS: Final = 0.01  # between chunks: a flood takes its time from its own server
_LOGGERS: Final = (
    "client",  # the session's, by that name
    "mcp.client.stdio",
    "mcp.client.streamable_http",
    "mcp.shared.jsonrpc_dispatcher",
)

_log = logging.getLogger(__name__)


class Rate:
    """Lets lines pass: some at once, then so many a second; counts those that did not."""

    def __init__(self) -> None:
        self._left = float(_AT_ONCE)
        self._seen = time.monotonic()
        self._dropped = 0

    def take(self) -> int | None:
        """Return how many lines were dropped since the last that passed; None: drop this too."""
        now = time.monotonic()
        self._left = min(_AT_ONCE, self._left + (now - self._seen) * _LINES_PER_SECOND)
        self._seen = now
        if self._left < 1:
            self._dropped += 1
            return None
        self._left -= 1
        dropped, self._dropped = self._dropped, 0
        return dropped


class _SdkRate(logging.Filter):
    """Holds the SDK's own log to a rate, and leaves out its tracebacks: a server chooses both."""

    def __init__(self) -> None:
        super().__init__()
        self._rate = Rate()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or self._rate.take() is None:
            return False  # at INFO it tells session ids
        record.exc_info = record.exc_text = None
        return True


_SDK_RATE: Final = _SdkRate()


def quieten_sdk() -> None:
    """Hold the SDK's log to a rate; once is enough, more do no harm."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_SDK_RATE)


@asynccontextmanager
async def stderr_of(name: str) -> AsyncIterator[TextIO]:
    """Give a file for a server's stderr, whose lines go to the worker's log.

    It is closed by the one who has started the server with it: the server has its own.
    """
    read, write = os.pipe()
    file = os.fdopen(write, "w")
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
    )
    passing = asyncio.create_task(_pass_on(name, reader))
    try:
        yield file
    finally:
        file.close()
        transport.close()
        passing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await passing


async def _pass_on(name: str, reader: asyncio.StreamReader) -> None:
    rate = Rate()
    line = b""
    while chunk := await reader.read(_CHUNK_BYTES):
        *lines, line = (line + chunk).split(b"\n")
        for whole in lines:
            _tell(name, whole, rate)
        if len(line) > _CHUNK_BYTES:
            _tell(name, line, rate)
            line = b""
        await asyncio.sleep(_PAUSE_SECONDS)
    if line:
        _tell(name, line, rate)


def _tell(name: str, line: bytes, rate: Rate) -> None:
    if (dropped := rate.take()) is None:
        return
    if dropped:
        _log.info("MCP server %s: %d lines left out", name, dropped)
    text = line[: _MOST_LINE_CHARS * 4].decode("utf-8", "replace")[:_MOST_LINE_CHARS]
    shown = "".join(char if char.isprintable() else " " for char in text)
    _log.info("MCP server %s: %s", name, shown.rstrip())
