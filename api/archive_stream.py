"""The archive as a stream; while the database is away, comments until it is back."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from starlette.types import Message, Receive, Scope, Send

from rejoin.api import archive
from rejoin.api.context import Context
from rejoin.api.sse import HEADERS
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.errors import NotFound, Unavailable
from rejoin.shared.ids import EventId

_PIECE_BYTES = 65_536
_COMMENT = b": \n\n"


async def respond(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    context: Context,
    message_id: str,
    owner: str,
    after: EventId | None,
    row: StoredMessage | None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Answer with the archive's events later than `after`.

    `row` None: the database was away; it is asked again until it answers, the stream has had its
    time, or the process ends. Where it turns out that there is no such message the stream ends
    without an event.
    """
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]})
    if scope["method"] == "HEAD":
        await send(_body(b"", more=False))
        return
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await send(_body(b"retry: %d\n: open\n\n" % context.hub.retry_milliseconds))
        async for piece in _pieces(context, message_id, owner, after, row):
            if gone.done():
                return
            await send(_body(piece))
        await send(_body(b"", more=False))
    finally:
        gone.cancel()
        await asyncio.wait([gone])


async def _pieces(
    context: Context, message_id: str, owner: str, after: EventId | None, row: StoredMessage | None
) -> AsyncIterator[bytes]:
    until = asyncio.get_running_loop().time() + context.settings.max_stream_seconds
    while row is None:
        if context.hub.draining or asyncio.get_running_loop().time() > until:
            return
        yield _COMMENT
        await context.hub.pause()
        try:
            row = await archive.load(context, message_id, owner)
        except NotFound:
            return
        except Unavailable:
            continue
    parts: list[bytes] = []
    size = 0
    for frame in archive.after(row, after):
        parts.append(frame)
        size += len(frame)
        if size > _PIECE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
